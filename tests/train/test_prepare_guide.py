"""What a checkpoint says of its training is held against the guide that is asked for."""

import warnings
from types import SimpleNamespace

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from capkit.assets.cache import building
from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide, LanguageModelGuide
from capkit.decoding.language_model import CausalLanguageModel
from capkit.text.tokenizers import word_tokenizer
from capkit.train.guidance import prepare_guide


def checkpoint(**objective):
    return {"capkit": {"config": {"objective": objective}}}


@pytest.mark.parametrize("trained", [checkpoint(), checkpoint(image_dropout=0.0), {"capkit": {"config": {}}}])
def test_a_captioner_that_missed_no_image_is_guided_with_a_warning(trained):
    with pytest.warns(UserWarning, match=r"trained with every image.*objective\.image_dropout=0\.5"):
        prepare_guide(object(), trained, Decoding(guide=Guide(2.0)), "cpu")


@pytest.mark.parametrize(
    ("trained", "guide"), [(checkpoint(image_dropout=0.5), Guide(2.0)), (checkpoint(), None)], ids=["trained", "plain"]
)
def test_no_warning_where_there_is_nothing_to_warn_of(trained, guide):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_guide(object(), trained, Decoding(guide=guide), "cpu")


def test_a_language_model_among_the_assets_is_a_causal_language_model(tmp_path, monkeypatch):
    """Its folder has an about.json, as exported weights do."""
    monkeypatch.setenv("CAPKIT_CACHE", str(tmp_path))
    tokenizer = word_tokenizer(["a red circle"])
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    with building("small-lm", {"version": "1"}) as folder:
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    captioner = SimpleNamespace(tokenizer=tokenizer)
    guide = LanguageModelGuide(str(tmp_path / "small-lm"))
    prepare_guide(captioner, checkpoint(image_dropout=0.5), Decoding(guide=guide), "cpu")
    assert isinstance(captioner.language_model, CausalLanguageModel)
