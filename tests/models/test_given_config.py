import pytest
from transformers import AutoModel, AutoModelForCausalLM

from capkit.errors import UsageError
from capkit.models.captioners.base import resolve_tokenizer
from capkit.models.encoders.image import HFImageEncoder
from capkit.models.given_config import inner_settings, network_of
from capkit.models.pretrained import build_config

VIT = {
    "model_type": "vit",
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 19}
LLAMA = {
    "model_type": "llama",
    "num_attention_heads": 2,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
}
SWIN = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (VIT | {"hidden_size": "wide"}, "expected int, got str"),
        (VIT | {"hidden_act": "golu"}, "KeyError: 'golu'"),
        (VIT | {"patch_size": 0}, "ZeroDivisionError"),
        (VIT | {"patch_size": 64}, "patches that fit the pictures of 32 x 32 pixels, got 64 x 64"),
        (SWIN | {"depths": [1, 1, 1, 1], "num_heads": [2] * 4}, "patches and windows fit pictures of 64 x 64 pixels"),
        ({"model_type": "bert"}, "give an image transformer"),
        (VIT | {"dtype": "word"}, "no attribute 'word'"),
        (VIT | {"hidden_sise": 24}, "'hidden_sise', which would have no effect; did you mean 'hidden_size'?"),
        ({"model_type": "clip", "vision_config": {"hidden_sise": 24}}, "did you mean 'hidden_size'?"),
        (
            {"model_type": "clip", "vision_config": {"hidden_size": 63}},
            "not a multiple of the number of attention heads",
        ),
        ({"model_type": "blip", "vision_config": "word"}, "vision_config"),
        ({"model_type": "vitt"}, "'vitt' is unknown"),
    ],
)
def test_what_transformers_refuses_of_an_image_encoder_is_told(config, told):
    with pytest.raises(UsageError, match=r"the image encoder|patch_size") as error:
        HFImageEncoder(config=config)
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (GPT2 | {"n_head": 3}, "divisible by num_heads"),
        (GPT2 | {"n_layers": 2}, "did you mean 'n_layer'?"),
        (GPT2 | {"n_embd": -16}, "negative dimension"),
        (VIT, "Unrecognized configuration class"),
        (LLAMA | {"num_key_value_heads": 3}, "give 2, or another divisor"),
    ],
)
def test_what_transformers_refuses_of_a_language_model_is_told(config, told):
    with pytest.raises(UsageError, match="the language model") as error:
        network_of(AutoModelForCausalLM.from_config, build_config(config, "language model"), "language model")
    assert told in str(error.value)


def test_keys_of_other_versions_and_of_the_types_own_names_are_taken():
    old = {
        "num_beams": 3,
        "gradient_checkpointing": False,
        "torch_dtype": "float32",
        "architectures": ["GPT2LMHeadModel"],
    }
    config = build_config({**GPT2, **old, "max_position_embeddings": 33}, "language model")
    assert config.n_positions == 33  # `max_position_embeddings` is another name of it
    assert build_config({"model_type": "t5", "bos_token_id": 3}, "language model").bos_token_id == 3
    ids = {"vision_start_token_id": 5, "vision_end_token_id": 6, "vision_token_id": 7}  # as in the hub's own file
    assert build_config({"model_type": "qwen2_5_vl", **ids}, "captioner").vision_end_token_id == 6
    assert (
        build_config({"model_type": "llama", "rope_theta": 500.0}, "language model").rope_parameters["rope_theta"]
        == 500
    )


def test_an_error_that_is_no_refusal_keeps_its_kind():
    def interrupted(config):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network_of(interrupted, build_config(VIT, "image encoder"), "image encoder")
    assert (
        network_of(AutoModel.from_config, build_config(VIT, "image encoder"), "image encoder").config.hidden_size == 16
    )


def test_a_config_within_a_config_is_settings_by_name():
    assert inner_settings({"text_config": {"a": 1}}, "text_config", "captioner") == {"a": 1}
    assert inner_settings({}, "text_config", "captioner") == {}
    with pytest.raises(UsageError, match=r"settings by name for text_config, got 5"):
        inner_settings({"text_config": 5}, "text_config", "captioner")


@pytest.mark.parametrize("wrong", [None, "word", 5, ["a"]])
def test_a_tokenizer_that_is_none_says_what_to_write_on_the_command_line(wrong):
    with pytest.raises(UsageError, match=r"give model\.tokenizer=word on the command line"):
        resolve_tokenizer(wrong)
