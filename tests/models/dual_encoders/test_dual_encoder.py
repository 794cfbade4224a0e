import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from capkit.errors import UsageError
from capkit.metrics.clip_score import ClipScore
from capkit.models.dual_encoders.base import DualEncoder
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder

WORDS = ["a", "photo", "depicts", "of", "red", "blue", "circle", "square", "the", "dog", "on", "grass"]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def _tokenizer():
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<unk>", "<eos>", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def _encoder(kind="clip", **kwargs):
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": len(WORDS) + 4, "max_position_embeddings": 12}
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    if kind == "clip":
        text |= {"bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return HFDualEncoder(model, _tokenizer(), processor, **kwargs)


def _pictures(count=3):
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8) for i in range(count)]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_embeddings_have_unit_norm_and_one_width(kind):
    encoder = _encoder(kind)
    images = encoder.encode_image(encoder.preprocess(_pictures()))
    texts = encoder.encode_text(["a red circle", "the dog"])
    assert images.shape[1] == texts.shape[1]
    assert torch.cat([images, texts]).norm(dim=1).tolist() == pytest.approx([1] * 5)
    assert not images.requires_grad and not texts.requires_grad
    assert isinstance(encoder, DualEncoder)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_embeddings_of_pictures_are_what_the_tower_pools_and_projects(kind):
    encoder = _encoder(kind)
    pixels = encoder.preprocess(_pictures())
    project = encoder.model.visual_projection if kind == "clip" else torch.nn.Identity()
    projected = torch.nn.functional.normalize(project(encoder.encode_pooled(pixels)), dim=-1)
    torch.testing.assert_close(projected, encoder.encode_image(pixels))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_text_is_embedded_alike_whatever_its_batch(kind):
    texts = ["a dog", "a red circle on the blue square", "the dog", "a dog", "grass"]
    encoder = _encoder(kind, batch_size=2)
    together = encoder.encode_text(texts)
    alone = torch.cat([encoder.encode_text([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.equal(together[0], together[3])
    assert (together[0] - together[1]).norm() > 1e-3


def test_no_texts_and_no_rows_fit_together():
    assert _encoder().encode_text([]).shape == (0, 8)


@pytest.mark.parametrize("prompt", ["a photo of", "a photo of "])
def test_the_prompt_stands_before_the_text_with_one_space(prompt):
    assert torch.equal(
        _encoder(prompt=prompt).encode_text(["red circle"]), _encoder().encode_text(["a photo of red circle"])
    )


def test_texts_are_cut_to_max_length_and_counted():
    encoder = _encoder(max_length=6)  # bos, four words, eos
    assert encoder.is_cut(["a red circle on", "a red circle on grass"]) == [False, True]
    assert encoder.is_cut([]) == []
    assert torch.equal(encoder.encode_text(["a red circle on grass"]), encoder.encode_text(["a red circle on the dog"]))
    assert _encoder(max_length=6, prompt="a photo of").is_cut(["red circle"]) == [True]


def test_pictures_of_any_size_become_the_models_size():
    assert _encoder().preprocess(_pictures()).shape == (3, 3, 16, 16)


def test_it_judges_captions_in_a_metric():
    encoder = _encoder(prompt="a photo depicts")
    pictures, captions = _pictures(2), ["a red circle", "the dog on grass"]
    rows = (
        captions,
        [["a circle"], ["a dog"]],
        [{"key": str(i), "image": picture} for i, picture in enumerate(pictures)],
    )
    cosine = (encoder.encode_image(encoder.preprocess(pictures)) * encoder.encode_text(captions)).sum(1)
    metric = ClipScore(encoder)
    assert metric.score(*rows)["clip_score_mean"] == pytest.approx(float(2.5 * cosine.clamp(min=0).mean()), rel=1e-5)
    assert metric.provenance() == {"scorer": "CLIPModel", "prompt": "a photo depicts", "max_length": 12}


def test_a_picture_may_be_given_by_its_path(tmp_path):
    from PIL import Image

    picture = _pictures(1)[0]
    Image.fromarray(picture).save(tmp_path / "a picture.png")
    metric = ClipScore(_encoder())
    by_path = metric.score(["the dog"], [[]], [{"key": "1", "image": str(tmp_path / "a picture.png")}])
    assert by_path == pytest.approx(metric.score(["the dog"], [[]], [{"key": "1", "image": picture}]))


def test_a_saved_model_loads_from_its_folder(tmp_path):
    encoder = _encoder()
    encoder.model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    encoder.image_processor.save_pretrained(tmp_path)
    loaded = HFDualEncoder(str(tmp_path))
    assert loaded.name == str(tmp_path)
    assert torch.allclose(loaded.encode_text(["a dog"]), encoder.encode_text(["a dog"]), atol=1e-5)
    pixels = encoder.preprocess(_pictures())
    assert torch.allclose(loaded.encode_image(loaded.preprocess(_pictures())), encoder.encode_image(pixels), atol=1e-5)


def test_what_cannot_be_loaded_is_an_error_that_says_so(tmp_path):
    with pytest.raises(UsageError, match="no dual encoder at"):
        HFDualEncoder(str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="tokenizer and image_processor"):
        HFDualEncoder(_encoder().model)
    with pytest.raises(UsageError, match="get_image_features"):
        HFDualEncoder(torch.nn.Linear(2, 2), _tokenizer(), CLIPImageProcessor())
    with pytest.raises(UsageError, match="12 positions; got 13"):
        _encoder(max_length=13)
