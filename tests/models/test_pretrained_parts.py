import pytest
import torch
from transformers import AutoModelForCausalLM

from capkit.errors import UsageError
from capkit.models.pretrained import build_config, split_head
from capkit.models.tuning.lora import LoRA

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 19}
LMS = [
    {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 19},
    {"model_type": "llama", "num_key_value_heads": 1, **SIZES},
    {"model_type": "bert", "is_decoder": True, **SIZES},
    {"model_type": "roberta", "is_decoder": True, **SIZES},
    {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 8, **SIZES},
    {"model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 8, **SIZES},
]


def language_model(config):
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return AutoModelForCausalLM.from_config(build_config(special | config, "language model")).eval()


@pytest.mark.parametrize("config", LMS, ids=[config["model_type"] for config in LMS])
def test_head_of_body_is_the_whole_language_model(config):
    model = language_model(config)
    body, head = split_head(model)
    tokens = torch.randint(3, 19, (2, 5))
    torch.testing.assert_close(head(body(tokens).last_hidden_state), model(tokens).logits)


def test_model_that_changes_its_logits_after_the_head_is_a_usage_error():
    config = {"model_type": "gemma2", "num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 30.0, **SIZES}
    with pytest.raises(UsageError, match="final_logit_softcapping"):
        split_head(language_model(config))


def test_lora_targets_default_to_those_of_the_model_type():
    model = language_model(LMS[1])
    LoRA(rank=2).add_to(model)
    adapted = {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad}
    assert adapted == {"q_proj", "v_proj"}


def test_unmatched_lora_targets_name_the_layers_there_are():
    with pytest.raises(UsageError, match="q_proj"):
        LoRA(targets=["query"]).add_to(language_model(LMS[1]))
