"""What a command asks for: read against the checkpoint's config, given to each batch."""

import json

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.text.tokenizers import word_tokenizer
from capkit.train.captioner_module import best_captions, rows_of
from capkit.train.conditions import UNCONDITIONED, Requested, model_config, requested_conditions
from capkit.types import CaptionBatch, Samples

MODEL = {"_target_": "capkit.models.captioners.encoder_decoder.EncoderDecoder"}
MODEL |= {
    "conditions": {"alignment": {"kind": "bins", "count": 4}, "length": {"kind": "length", "longest": 9}, "box": "box"}
}


def asked(model=MODEL, **conditions):
    data = {"conditions": {"length": "length"}}
    return requested_conditions(OmegaConf.create({"conditions": conditions, "data": data}), model)


def test_what_is_asked_for_is_given_to_every_image_and_nothing_else():
    batch = CaptionBatch(["a", "b"], conditions={"alignment": torch.ones(2), "length": torch.tensor([[1.0], [2.0]])})
    found = asked(length="data", box="0,0,.5,1", alignment=None)(batch).conditions
    assert found["length"].tolist() == [[1.0], [2.0]]
    assert found["box"].tolist() == [[0.0, 0.0, 0.5, 1.0]] * 2
    assert set(found) == {"length", "box"}
    assert asked(alignment="top")(batch).conditions["alignment"].tolist() == [3.0, 3.0]
    assert UNCONDITIONED(batch).conditions == {} and asked() == UNCONDITIONED
    assert set(batch.conditions) == {"alignment", "length"}


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"lenght": 4}, "conditions.lenght=4: expected one of alignment, length, box; did you mean 'length'"),
        ({"length": 10}, "conditions.length=10: expected 1 to 9 words, as in training, got 10"),
        ({"box": [0.5, 0, 0.4, 1]}, "conditions.box=[0.5, 0, 0.4, 1]: expected a box x0,y0,x1,y1"),
        ({"box": [0, 0, 1, 1.2]}, "conditions.box=[0, 0, 1, 1.2]: expected a box x0,y0,x1,y1"),
        ({"box": "data"}, "conditions.box=data: expected data that gives box, got length"),
        ({"lenght": "data"}, "conditions.lenght=data: expected one of alignment, length, box"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_by_name(conditions, said):
    with pytest.raises(UsageError) as error:
        asked(**conditions)
    assert said in str(error.value)


def test_a_kind_that_there_is_not_is_told_where_nothing_is_asked_for():
    with pytest.raises(UsageError, match=r"model\.conditions\.x: expected a kind"):
        asked({"conditions": {"x": "lengths"}})


def test_a_captioner_without_conditions_is_asked_for_none():
    for model in ({}, {"conditions": None}, None):
        assert asked(model) == Requested()
        with pytest.raises(UsageError, match="expected none, since this captioner was trained without any"):
            asked(model, length=3)


def test_captions_and_candidates_are_written_under_what_is_asked_for():
    torch.manual_seed(0)
    settings = {"length": {"kind": "length", "longest": 9}}
    tokenizer = word_tokenizer(["a red circle is left of one blue star"])
    model = EncoderDecoder(
        tokenizer, feature_width=6, width=16, num_layers=1, num_heads=2, max_length=12, conditions=settings
    )
    for parameter in model.parameters():
        parameter.data.normal_(std=0.7)
    batch = CaptionBatch(
        ["a", "b", "c"], features=torch.randn(3, 4, 6), conditions={"length": torch.tensor([2.0, 3, 4])}
    )
    asked_for = CaptionBatch(batch.keys, features=batch.features, conditions={"length": torch.full((3,), 7.0)})
    candidates = Decoding("sample", max_length=8, num_candidates=4)
    for decoding, reranker, num in ((Decoding(max_length=8), None, 1), (candidates, lambda _, found: found, 4)):
        found = best_captions(model, batch, decoding, reranker, Requested({"length": 7.0}))
        assert found.texts == model.eval().generate(model.encode(asked_for), decoding, num).texts
        assert found.texts != best_captions(model, batch, decoding, reranker).texts
        own = best_captions(model, batch, decoding, reranker, Requested(from_data=("length",)))
        assert own.texts == model.generate(model.encode(batch), decoding, num).texts != found.texts


def test_a_caption_of_each_condition_is_a_row_with_several():
    batch = CaptionBatch(["a"], references=[["x"]])
    assert rows_of(batch, Samples.from_texts([["one", "two"]]))[0]["captions"] == ["one", "two"]
    assert "captions" not in rows_of(batch, Samples.from_texts([["one"]]))[0]


def test_images_without_captions_have_no_values_of_their_own():
    with pytest.raises(UsageError, match="length=data: expected images with captions"):
        asked(length="data")(CaptionBatch(["a"]))


def test_values_of_data_are_refused_of_a_users_images():
    cfg = OmegaConf.create(
        {"conditions": {"length": "data"}, "images": "photos", "data": {"conditions": {"length": 1}}}
    )
    with pytest.raises(UsageError, match="got data without conditions; give a value"):
        requested_conditions(cfg, MODEL)


def test_a_runs_an_exports_and_a_tuned_captioners_conditions_are_found(tmp_path):
    run, tuned, export = tmp_path / "run", tmp_path / "tuned", tmp_path / "export"
    for folder in (run, tuned, export):
        folder.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"model": MODEL}))
    (tuned / "config.yaml").write_text(
        yaml.safe_dump({"model": {"_target_": "capkit.checkpoint.loading.load_captioner_to_tune", "ckpt": str(run)}})
    )
    (export / "about.json").write_text(json.dumps({"config": MODEL}))
    for folder in (run, tuned, export):
        assert asked(model_config(str(folder)), length=9).values == {"length": 9.0}
        with pytest.raises(UsageError, match="expected 1 to 9 words"):
            asked(model_config(str(folder)), length=10)
