"""What holds for every dual encoder that can be trained: our two towers and transformers' whole ones."""

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from capkit.errors import UsageError
from capkit.models.dual_encoders.base import CacheableEncoder, DualEncoder
from capkit.models.dual_encoders.hf_two_tower import HFTwoTower
from capkit.models.dual_encoders.logit_scale import LogitScale
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU
from capkit.models.dual_encoders.trainable import text_ids
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import SmallCNN
from capkit.models.tuning.policy import Tuning
from capkit.testing.models import CAPTIONS, HF_CONFIGS, batch_for, hf_two_tower, tokenizer, two_tower
from capkit.types import BoundedModule, CaptionBatch

BUILDERS = {"two_tower": two_tower, **{name: (lambda name=name: hf_two_tower(name)) for name in HF_CONFIGS}}


WORDS = ["a", "red", "blue", "circle", "square", "left", "of"]


def tokenizer_of(vocabulary):
    """A tokenizer of these words, whose places are their ids."""
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture(params=BUILDERS)
def model(request):
    return BUILDERS[request.param]().eval()


def test_every_caption_becomes_a_row_that_knows_its_image(model):
    pairs = model(batch_for(model))
    assert pairs.owners.tolist() == pairs.image_ids[[0, 0, 1, 2, 2]].tolist()
    assert len(set(pairs.image_ids.tolist())) == 3
    norms = torch.cat([pairs.images, pairs.texts]).norm(dim=1)
    assert norms.tolist() == pytest.approx([1] * 8, abs=1e-5)


def test_equal_captions_share_an_id_and_an_embedding(model):
    pairs = model(batch_for(model))
    ids = pairs.text_ids.tolist()
    assert ids[0] == ids[3] and len(set(ids)) == 4
    assert torch.allclose(pairs.texts[0], pairs.texts[3], atol=1e-6)


def test_every_trainable_parameter_gets_a_gradient(model):
    pairs = model(batch_for(model))
    bias = 0.0 if pairs.logit_bias is None else pairs.logit_bias
    (pairs.images[[0, 0, 1, 2, 2]] * pairs.texts * pairs.logit_scale + bias).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_judging_and_training_see_the_same_text(model):
    texts = [text for captions in CAPTIONS for text in captions]
    assert torch.allclose(model.encode_text(texts), model(batch_for(model)).texts, atol=1e-5)


def test_it_is_a_judge_and_its_embeddings_can_be_kept(model):
    assert isinstance(model, DualEncoder) and isinstance(model, CacheableEncoder)
    assert not model.encode_text(["red"]).requires_grad
    assert model.encode_text([]).shape == (0, model.embed_dim)


def test_embeddings_are_the_projection_of_what_the_image_tower_pools(model):
    pixels = torch.randn(2, 3, 32, 32)
    pooled = model.eval().encode_pooled(pixels)
    projected = torch.nn.functional.normalize(model.image_projection(pooled), dim=-1)
    assert torch.allclose(model.encode_image(pixels), projected, atol=1e-5)
    assert not pooled.requires_grad


def test_patches_have_unit_norm_and_the_width_of_the_space(model):
    patches = model.encode_patches(torch.randn(2, 3, 32, 32))
    assert patches.shape[0] == 2 and patches.shape[2] == model.embed_dim
    assert patches.norm(dim=-1).flatten().tolist() == pytest.approx([1] * patches.shape[0] * patches.shape[1], abs=1e-4)


def test_a_batch_without_captions_is_refused(model):
    with pytest.raises(UsageError, match="expected captions"):
        model(CaptionBatch(["a"], torch.zeros(1, 3, 32, 32)))


@pytest.mark.parametrize("model_type", HF_CONFIGS)
def test_features_are_those_of_transformers(model_type):
    model = hf_two_tower(model_type, tokenizer=tokenizer_of(["<pad>", "<bos>", "<unk>", "<eos>", *WORDS])).eval()
    batch = batch_for(model, [["a red circle"], ["red"], ["a blue square left of a red circle"]])
    pairs = model(batch)
    network = model.plain_network()
    reads_mask = model_type in ("align", "chinese_clip", "altclip")
    mask = {"attention_mask": batch.mask[:, 0].long()} if reads_mask else {}
    with torch.no_grad():
        texts = network.get_text_features(input_ids=batch.tokens[:, 0], **mask).pooler_output
        images = network.get_image_features(pixel_values=batch.pixels).pooler_output.flatten(1)
    assert torch.allclose(torch.nn.functional.normalize(texts, dim=-1), pairs.texts, atol=1e-5)
    assert torch.allclose(torch.nn.functional.normalize(images, dim=-1), pairs.images, atol=1e-5)


@pytest.mark.parametrize("model_type", ["clip", "siglip", "align"])
def test_the_exported_network_has_the_learned_scale(model_type):
    model = hf_two_tower(model_type, tokenizer=tokenizer_of(["<pad>", "<bos>", "<unk>", "<eos>", *WORDS]))
    with torch.no_grad():
        model.scale.log_scale.fill_(math.log(3.0))
    network = model.plain_network()
    learned = 1 / network.temperature if model_type == "align" else network.logit_scale.exp()
    assert float(learned) == pytest.approx(3.0, rel=1e-6)


def test_a_type_that_is_no_dual_encoder_is_refused():
    with pytest.raises(UsageError, match="expected a model_type of"):
        HFTwoTower(config={"model_type": "bert", "text_config": {}}, tokenizer=tokenizer())


def test_cached_image_embeddings_take_the_place_of_pixels():
    model = hf_two_tower("clip", tune_image=Tuning("frozen"), cached_images=True).eval()
    batch = batch_for(model)
    cached = model.encode_image(batch.pixels)
    batch.features, batch.pixels = cached[:, None], None
    assert torch.allclose(model(batch).images, cached, atol=1e-6)


def test_cached_images_want_a_frozen_image_tower():
    with pytest.raises(UsageError, match="tune_image"):
        hf_two_tower("clip", cached_images=True)


@pytest.mark.parametrize("model_type", ["clip", "clipseg", "metaclip_2"])
def test_a_text_is_read_at_its_end_whatever_id_eos_has(model_type):
    """Where EOS has the id 2, transformers would read "zebra a" and "zebra red" at the word of the highest id."""
    words = tokenizer_of(["<pad>", "<bos>", "<eos>", "<unk>", "a", "red", "zebra"])
    model = hf_two_tower(model_type, tokenizer=words).eval()
    first, second = model.encode_text(["zebra a", "zebra red"])
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_prompt_stands_before_every_caption_and_nowhere_else():
    plain, prompted = two_tower(), two_tower(prompt="a blue")
    assert torch.equal(prompted.encode_text(["circle"]), plain.encode_text(["a blue circle"]))
    assert prompted.encode([["circle"]])[0].tolist() == plain.encode([["a blue circle"]])[0].tolist()


def test_text_ids_do_not_depend_on_padding_and_tell_orders_apart():
    tokens = torch.tensor([[1, 5, 6, 2], [1, 6, 5, 2]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    padded = torch.nn.functional.pad(tokens, (0, 3), value=9), torch.nn.functional.pad(mask, (0, 3))
    assert text_ids(tokens, mask).tolist() == text_ids(*padded).tolist()
    assert len(set(text_ids(tokens, mask).tolist())) == 2


def test_what_embeddings_depend_on_changes_with_weights_and_prompt_of_that_side_alone():
    model = two_tower()
    image, text = model.fingerprint_fields("image"), model.fingerprint_fields("text")
    assert two_tower(prompt="a photo of").fingerprint_fields("image") == image
    assert two_tower(prompt="a photo of").fingerprint_fields("text") != text
    with torch.no_grad():
        next(model.text_tower.parameters()).add_(1e-3)
    assert model.fingerprint_fields("image") == image and model.fingerprint_fields("text") != text


@pytest.mark.parametrize(("pooling", "pooled"), [("mean", [1, 2]), ("max", [4, 3]), ("first", [4, 0])])
def test_image_tokens_are_pooled_over_the_image(pooling, pooled):
    tokens = torch.tensor([[[4.0, 0.0], [-1.0, 3.0], [0.0, 3.0]]])  # (1 3 2)
    model = TwoTower(two_tower().text_tower, feature_width=2, embed_dim=2, pooling=pooling, image_projection="none")
    found = model.embed_images(CaptionBatch(["k"], features=tokens))
    torch.testing.assert_close(found, torch.tensor([pooled]) / math.hypot(*pooled))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_a_character_gru_says_how_far_apart_its_heads_are(heads):
    tower = CharGRU(embedding=4, hidden=3, attention_hidden=2, heads=heads)
    model = TwoTower(tower, SmallCNN(image_size=32, channels=(8, 16), blocks=(0, 0), width=16), embed_dim=8)
    pairs = model(batch_for(model))
    kinds = {"weights", "attention", "embeddings"} if heads > 1 else set()
    assert set(pairs.extras) == {f"head_distance_{kind}" for kind in kinds}
    assert all(distance.shape == (5, heads * (heads - 1) // 2) for distance in pairs.extras.values())


def test_frozen_towers_stay_in_eval_mode_while_the_rest_trains():
    model = hf_two_tower("align", tune_image=Tuning("frozen")).train()
    assert not model.image_tower.training and model.text_tower.training
    before = model.fingerprint_fields("image")
    model(batch_for(model))
    assert model.fingerprint_fields("image") == before, "BatchNorm keeps its statistics"


def test_pictures_of_any_size_are_read_by_the_data_transform():
    model = two_tower()
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    assert model.preprocess([picture, picture]).shape == (2, 3, 32, 32)


def test_the_scale_never_passes_its_maximum_and_leaves_it_again():
    scale = LogitScale(start=99.0, maximum=100.0)
    optimizer = torch.optim.SGD(scale.parameters(), lr=1.0)
    (-scale()[0]).backward()
    optimizer.step()
    assert float(scale()[0]) == pytest.approx(100.0, rel=1e-5)
    optimizer.zero_grad()
    (scale()[0] * 0.01).backward()
    optimizer.step()
    assert float(scale()[0]) < 50


def test_the_scale_declares_its_bound_to_strategies_that_update_copies_of_it():
    scale = LogitScale(maximum=100.0)
    assert isinstance(scale, BoundedModule) and scale.parameter_bounds() == {"log_scale": (-math.inf, math.log(100.0))}


@pytest.mark.parametrize("start", [0.0, 101.0])
def test_a_scale_outside_its_bounds_is_refused(start):
    with pytest.raises(UsageError, match="logit_scale"):
        LogitScale(start)
