"""DistilBERT as a BERT-type decoder: transformers' DistilBERT neither attends causally nor to an image, its BERT does.

DistilBERT (Sanh et al. 2019, arXiv 1910.01108) is BERT without token types and pooler. With its weights under BERT's
names, and one token type that adds zero, BERT computes the same hidden states and logits.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, DistilBertForMaskedLM

from capkit.models.pretrained import load_pretrained

_NAMES = (
    (r"^distilbert\.embeddings\.", "bert.embeddings."),
    (r"^distilbert\.transformer\.layer\.(\d+)\.", r"bert.encoder.layer.\1."),
    (r"\.attention\.q_lin\.", ".attention.self.query."),
    (r"\.attention\.k_lin\.", ".attention.self.key."),
    (r"\.attention\.v_lin\.", ".attention.self.value."),
    (r"\.attention\.out_lin\.", ".attention.output.dense."),
    (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
    (r"\.ffn\.lin1\.", ".intermediate.dense."),
    (r"\.ffn\.lin2\.", ".output.dense."),
    (r"\.output_layer_norm\.", ".output.LayerNorm."),
    (r"^vocab_transform\.", "cls.predictions.transform.dense."),
    (r"^vocab_layer_norm\.", "cls.predictions.transform.LayerNorm."),
    (r"^vocab_projector\.", "cls.predictions.decoder."),
)
_TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"
_BIAS, _SAME_BIAS = "cls.predictions.decoder.bias", "cls.predictions.bias"


def bert_config(config: Any) -> BertConfig:
    """BERT's config of the same network, for a causal decoder with cross-attention."""
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        intermediate_size=config.hidden_dim,
        hidden_act=config.activation,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        max_position_embeddings=config.max_position_embeddings,
        initializer_range=config.initializer_range,
        type_vocab_size=1,
        layer_norm_eps=1e-12,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        is_decoder=True,
        add_cross_attention=True,
    )


def bert_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DistilBERT's weights, with its language-model head, under BERT's names."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    renamed[_SAME_BIAS] = renamed[_BIAS]
    width = renamed["bert.embeddings.word_embeddings.weight"].shape[1]
    return renamed | {_TOKEN_TYPES: torch.zeros(1, width)}


def load_as_bert(network: Any, name: str, config: Any) -> None:
    """Load the weights of the DistilBERT `name` into a BERT of `bert_config(config)`.

    Cross-attention, which DistilBERT has not, keeps its random weights.
    """
    weights = bert_weights(load_pretrained(DistilBertForMaskedLM, name, "text decoder", config).state_dict())
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected and all(".crossattention." in key for key in missing), (missing, unexpected)
