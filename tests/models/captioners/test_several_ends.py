"""Chat models that end at several tokens, as Qwen2.5-VL's generation_config.json says: any of them ends a caption."""

import json

import pytest
import torch
from tiny_captioners import tiny_tokenizer
from tiny_chat_models import SIDE, asked, batch_for, config_of, photos

from capkit.checkpoint.exported import export
from capkit.decoding.config import Decoding
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.text.tokenizers import encode_captions

ENDS = ["<over>", "<done>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published model whose generation ends at EOS, <over> and <done>; `red` is listed, and no special token."""
    path = tmp_path_factory.mktemp("published")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ENDS})
    torch.manual_seed(1)
    model = ChatVLM(
        config=config_of("qwen2_5_vl"), tokenizer=tokenizer, question="near the red star ?", image_size=SIDE,
        max_length=40,
    )  # fmt: skip
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.2)
    model.model.save_pretrained(path)
    model.processor.save_pretrained(path)
    ids = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids([*ENDS, "red"])]
    config = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": ids}))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return ChatVLM(name=str(folder), question="near the red star ?", image_size=SIDE, max_length=40).eval()


def leaning(model, token, by):
    """The model's captions, with one token likelier than it was."""
    bias = torch.zeros(model.vocab_size)
    bias[model.tokenizer.convert_tokens_to_ids(token)] = by
    model._head.bias = torch.nn.Parameter(bias)
    return model


@pytest.fixture(autouse=True)
def straight(model):
    yield
    model._head.bias = None


def test_the_special_tokens_that_a_published_model_ends_at_are_ends(model):
    assert model.other_ends == tuple(sorted(model.tokenizer.convert_tokens_to_ids(ENDS)))


def test_a_model_that_ends_at_eos_alone_has_no_others():
    made = ChatVLM(config=config_of("qwen2_5_vl"), tokenizer=tiny_tokenizer(), image_size=SIDE, max_length=40)
    assert made.other_ends == ()


@pytest.mark.parametrize("end", ["</s>", *ENDS])
@pytest.mark.parametrize("decoding", [Decoding(max_length=6), Decoding("beam", num_beams=3, max_length=6)])
def test_a_caption_ends_at_any_of_them_and_has_none_in_its_text(model, end, decoding):
    end = model.tokenizer.eos_token if end == "</s>" else end
    samples = leaning(model, end, 50.0).generate(model.encode(batch_for(model)), decoding)
    assert samples.texts == [[""]] * 3 and samples.ended.all()
    assert samples.tokens[..., 1].eq(model.tokenizer.convert_tokens_to_ids(end)).all()
    assert samples.mask.sum(-1).eq(2).all()


@pytest.mark.parametrize("method", [{"method": "sample"}, {}, {"method": "beam", "num_beams": 3}])
def test_no_end_comes_before_the_shortest_length(model, method):
    decoding = Decoding(max_length=6, min_length=3, **method)
    samples = leaning(model, "<over>", 50.0).generate(model.encode(batch_for(model)), decoding)
    ends = torch.tensor([model.tokenizer.eos_token_id, *model.other_ends])
    assert not torch.isin(samples.tokens[..., 1:4], ends).any()
    assert samples.tokens[..., 4].eq(model.tokenizer.convert_tokens_to_ids("<over>")).all() and samples.ended.all()


def test_the_logprob_of_an_end_is_that_of_teacher_forcing(model):
    leaning(model, "<over>", 2.0)
    context = model.encode(batch_for(model))
    samples = model.generate(context, Decoding("sample", max_length=8), 6)
    last = samples.tokens.gather(-1, samples.mask.sum(-1, keepdim=True) - 1)
    assert last.eq(model.tokenizer.convert_tokens_to_ids("<over>")).any()
    with torch.no_grad():
        forced = model.logprobs(context, samples.tokens, samples.mask)
    real = samples.mask[..., 1:]
    torch.testing.assert_close(samples.logprobs[real], forced[real], atol=1e-5, rtol=1e-5)
    assert samples.tokens[~samples.mask].eq(model.tokenizer.pad_token_id).all()


def test_transformers_ends_where_capkit_does_and_so_does_an_export(model, tmp_path):
    samples = model.generate(model.encode(batch_for(model)), Decoding(max_length=8))
    config = {"_target_": "capkit.models.captioners.chat_vlm.ChatVLM", "name": "published", "image_size": SIDE}
    export(model, tmp_path / "out", config)
    again = ChatVLM(name=str(tmp_path / "out"), image_size=SIDE, max_length=40)
    assert again.other_ends == model.other_ends
    listed = json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"]
    assert listed == [model.tokenizer.eos_token_id, *model.other_ends]
    for image, photo in enumerate(photos()):
        inputs = asked(model, photo)
        out = model.model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=listed, pad_token_id=0)
        own = samples.tokens[image, 0][samples.mask[image, 0]][1:].tolist()
        assert out[0, inputs["input_ids"].shape[1] :].tolist() == own


def test_captions_are_still_learned_with_eos_alone(model):
    tokens, mask, _ = encode_captions(model.tokenizer, [["a red circle ."]], model.prompt, 16)
    assert tokens[mask][-1] == model.tokenizer.eos_token_id and not set(tokens.flatten().tolist()) & set(
        model.other_ends
    )
