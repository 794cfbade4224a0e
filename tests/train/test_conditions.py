"""What a command asks for: read against the checkpoint's config, given to each batch."""

import json

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from capkit.errors import UsageError
from capkit.train.conditions import UNCONDITIONED, Requested, model_config, requested_conditions
from capkit.types import CaptionBatch

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


def test_a_captioner_without_conditions_is_asked_for_none():
    for model in ({}, {"conditions": None}, None):
        assert asked(model) == Requested()
        with pytest.raises(UsageError, match="expected none, since this captioner was trained without any"):
            asked(model, length=3)


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
