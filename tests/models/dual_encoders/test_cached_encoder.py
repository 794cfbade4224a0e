import copy
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from capkit.errors import UsageError
from capkit.metrics.clip_score import ClipScore
from capkit.models.dual_encoders.base import CacheableEncoder, DualEncoder
from capkit.models.dual_encoders.cached import CachedDualEncoder, CachedTextEncoder
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder

WORDS = ["a", "photo", "of", "red", "blue", "circle", "square", "dog"]
TEXTS = ["a red circle", "a blue square", "a dog", "a red circle"]


def _tokenizer(words=WORDS):
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<unk>", "<eos>", *words])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def _encoder(seed=0, activation="quick_gelu", size=16, words=WORDS, **kwargs):
    torch.manual_seed(seed)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"hidden_act": activation}
    text = {**small, "vocab_size": 12, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 3}
    vision = {**small, "image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": 16, "width": 16})
    return HFDualEncoder(model, _tokenizer(words), processor, **kwargs)


class Counting(HFDualEncoder):
    """Counts what the network itself has to encode, and refuses once `limit` texts went through."""

    def __init__(self, encoder, limit=10**9):
        self.__dict__.update(encoder.__dict__)
        self.num_texts = self.num_images = 0
        self.limit = limit

    def encode_text(self, texts):
        self.num_texts += len(texts)
        if self.num_texts > self.limit:
            raise KeyboardInterrupt
        return super().encode_text(texts)

    def encode_image(self, pixels):
        self.num_images += len(pixels)
        return super().encode_image(pixels)


def _pictures(count=3):
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8) for i in range(count)]


def test_cached_embeddings_are_the_encoders_at_first_and_when_read_back(tmp_path):
    plain = _encoder()
    pixels = plain.preprocess(_pictures())
    for _ in range(2):
        cached = CachedDualEncoder(_encoder(), tmp_path)
        assert torch.allclose(cached.encode_text(TEXTS), plain.encode_text(TEXTS), atol=1e-6)
        assert torch.allclose(cached.encode_image(pixels), plain.encode_image(pixels), atol=1e-6)
    assert cached.encode_text([]).shape == (0, 8)


def test_each_text_and_picture_is_encoded_once_ever(tmp_path):
    first = Counting(_encoder())
    cached = CachedDualEncoder(first, tmp_path)
    pixels = cached.preprocess(_pictures())
    cached.encode_text(TEXTS)
    cached.encode_image(pixels[[0, 1, 0]])
    assert (first.num_texts, first.num_images) == (3, 2)
    second = Counting(_encoder())
    cached = CachedDualEncoder(second, tmp_path)
    cached.encode_text([*TEXTS, "a blue circle"])
    cached.encode_image(pixels)
    assert (second.num_texts, second.num_images) == (1, 1)


def test_a_picture_that_changed_is_encoded_again(tmp_path):
    counting = Counting(_encoder())
    cached = CachedDualEncoder(counting, tmp_path)
    (picture,) = _pictures(1)
    before = cached.encode_image(cached.preprocess([picture]))
    picture[5:15] = 0
    after = cached.encode_image(cached.preprocess([picture]))
    assert counting.num_images == 2
    assert (before - after).norm() > 1e-4


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        ({}, {"text", "image"}),
        ({"seed": 1}, set()),
        ({"activation": "gelu"}, set()),
        ({"prompt": "a photo of"}, {"image"}),
        ({"max_length": 6}, {"image"}),
        ({"words": WORDS[::-1]}, {"image"}),
        ({"size": 20}, {"text"}),
        ({"name": "another name"}, {"text", "image"}),
        ({"batch_size": 1}, {"text", "image"}),
    ],
)
def test_encoders_share_embeddings_exactly_where_these_are_equal(tmp_path, other, shares):
    CachedDualEncoder(_encoder(), tmp_path).encode_text(["a dog"])
    CachedDualEncoder(_encoder(), tmp_path).encode_image(_encoder().preprocess(_pictures(1)))
    counting = Counting(_encoder(**other))
    cached = CachedDualEncoder(counting, tmp_path)
    cached.encode_text(["a dog"])
    cached.encode_image(_encoder().preprocess(_pictures(1)))
    assert counting.num_texts == (0 if "text" in shares else 1)
    assert counting.num_images == (0 if "image" in shares else 1)


def test_using_the_tokenizer_does_not_change_what_is_said_of_it():
    encoder = _encoder(max_length=6)
    before = encoder.fingerprint_fields("text")
    encoder.encode_text(TEXTS)
    encoder.is_cut(TEXTS)
    assert encoder.fingerprint_fields("text") == before


def test_tuning_the_text_side_leaves_embeddings_of_images_valid():
    tuned = _encoder()
    tuned.model.text_model.embeddings.token_embedding.weight += 1
    assert tuned.fingerprint_fields("image") == _encoder().fingerprint_fields("image")
    assert tuned.fingerprint_fields("text") != _encoder().fingerprint_fields("text")
    tuned.model.visual_projection.weight += 1
    assert tuned.fingerprint_fields("image") != _encoder().fingerprint_fields("image")


def test_another_precision_is_another_encoder():
    half = _encoder()
    half.model.bfloat16()
    assert half.fingerprint_fields("image") != _encoder().fingerprint_fields("image")


def test_it_meets_the_protocols_and_passes_everything_else_on(tmp_path):
    cached = CachedDualEncoder(_encoder(prompt="a photo of", max_length=6), tmp_path)
    assert isinstance(cached, DualEncoder) and isinstance(cached, CacheableEncoder)
    assert (cached.name, cached.prompt, cached.max_length) == ("CLIPModel", "a photo of", 6)
    assert cached.is_cut(["a", "a red circle"]) == [False, True]
    assert cached.fingerprint_fields("text") == _encoder(prompt="a photo of", max_length=6).fingerprint_fields("text")
    with pytest.raises(AttributeError):
        _ = cached.nonsense


def test_a_metric_uses_the_cache_through_its_judge_alone(tmp_path):
    rows = (TEXTS[:2], [[], []], [{"key": str(i), "image": p} for i, p in enumerate(_pictures(2))])
    plain = ClipScore(_encoder()).score(*rows)
    counting = Counting(_encoder())
    metric = ClipScore(CachedDualEncoder(counting, tmp_path))
    assert metric.score(*rows) == pytest.approx(plain, abs=1e-6)
    assert copy.deepcopy(metric).score(*rows) == pytest.approx(plain, abs=1e-6)
    assert (counting.num_texts, counting.num_images) == (2, 2)


def test_texts_are_committed_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("capkit.models.dual_encoders.cached._COMMIT_ROWS", 2)
    texts = ["a", "a dog", "a red dog", "a blue dog", "a photo of a dog"]
    with pytest.raises(KeyboardInterrupt):
        CachedDualEncoder(Counting(_encoder(), limit=4), tmp_path).encode_text(texts)
    counting = Counting(_encoder())
    rows = CachedDualEncoder(counting, tmp_path).encode_text(texts)
    assert counting.num_texts == 1
    assert torch.allclose(rows, _encoder().encode_text(texts), atol=1e-6)


ENDLESS = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from test_cached_encoder import CachedDualEncoder, _encoder
    cached = CachedDualEncoder(_encoder(), sys.argv[1])
    for number in range(10**9):
        cached.encode_text([f"a dog {number} {place}" for place in range(20)])
        print(number, flush=True)
"""


@pytest.mark.integration
def test_an_encoder_killed_in_the_middle_goes_on_where_it_was(tmp_path):
    code = textwrap.dedent(ENDLESS)
    arguments = [sys.executable, "-c", code, tmp_path, Path(__file__).parent]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    assert process.stdout is not None
    done = int([process.stdout.readline() for _ in range(4)][-1])
    process.send_signal(signal.SIGKILL)
    process.wait()
    counting = Counting(_encoder())
    texts = [f"a dog {number} {place}" for number in range(done + 1) for place in range(20)]
    rows = CachedDualEncoder(counting, tmp_path).encode_text(texts)
    assert counting.num_texts == 0
    assert torch.allclose(rows, _encoder().encode_text(texts), atol=1e-6)


def test_a_foreign_store_under_our_name_is_refused(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    CachedDualEncoder(_encoder(), mine)
    CachedDualEncoder(_encoder(prompt="a photo of"), theirs).encode_text(["a dog"])
    (name,) = [path.name for path in mine.iterdir() if path.name.startswith("text")]
    (other,) = [path.name for path in theirs.iterdir() if path.name.startswith("text")]
    shutil.rmtree(mine / name)
    shutil.copytree(theirs / other, mine / name)
    with pytest.raises(UsageError, match="prompt is 'a photo of', wanted ''"):
        CachedDualEncoder(_encoder(), mine)


def test_what_cannot_be_cached_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"needs an encoder with fingerprint_fields\(side\), got object"):
        CachedTextEncoder(object(), tmp_path)
    with pytest.raises(UsageError, match="cached already"):
        CachedDualEncoder(CachedDualEncoder(_encoder(), tmp_path), tmp_path)
