"""Small towers of every kind over one word tokenizer, in eval mode."""

import functools

import torch

from capkit.models.dual_encoders.text_towers.bag_of_words import BagOfWords
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU
from capkit.models.dual_encoders.text_towers.conv import ConvText
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.text_towers.ngrams import NGrams
from capkit.text.tokenizers import word_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
CLIP = {"model_type": "clip_text_model", "max_position_embeddings": 20, **SIZES}
SIGLIP = {"model_type": "siglip_text_model", "max_position_embeddings": 20, **SIZES}
BERT = {"model_type": "bert", "max_position_embeddings": 20, **SIZES}
ROBERTA = {"model_type": "roberta", "max_position_embeddings": 21, **SIZES}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 20}

TEXTS = [
    "a red circle left of a blue square",
    "a blue square left of a red circle",
    "one star",
    "",
    "a zebra with the small green star .",
]


def words():
    return word_tokenizer(["a red circle is left of the blue square , near one small green star ."])


BUILD = {
    "clip_eos": lambda: HFTextTower(config=CLIP, tokenizer=words()),
    "siglip_eos": lambda: HFTextTower(config=SIGLIP, tokenizer=words()),
    "bert_cls": lambda: HFTextTower(config=BERT, tokenizer=words(), pooling="cls"),
    "roberta_mean": lambda: HFTextTower(config=ROBERTA, tokenizer=words(), pooling="mean"),
    "gpt2_eos": lambda: HFTextTower(config=GPT2, tokenizer=words()),
    "char_gru": lambda: CharGRU(hidden=6, heads=2, attention_hidden=5, max_length=40),
    "char_gru_two_layers": lambda: CharGRU(hidden=6, layers=2, attention_hidden=5, max_length=40),
    "bag_tf": lambda: BagOfWords(words(), hidden=12, width=10, max_length=20),
    "bag_binary": lambda: BagOfWords(words(), counts="binary", hidden=12, width=10, max_length=20),
    "bigrams": lambda: NGrams(orders=[1, 2], buckets=500, hidden=12, width=10, max_length=20),
    "trigrams_skips": lambda: NGrams(orders=[1, 2, 3], skips=[1, 2], buckets=500, hidden=12, width=10, max_length=20),
    "conv": lambda: ConvText(words(), windows=[1, 2, 3], embedding=8, channels=6, width=10, max_length=20),
}
BAGS = ("bag_tf", "bag_binary")


@functools.cache
def build(name):
    torch.manual_seed(1)
    tower = BUILD[name]()
    for parameter in tower.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.3)
    return tower.eval()


def embed(tower, texts):
    with torch.no_grad():
        return tower(*tower.tokenize(texts))
