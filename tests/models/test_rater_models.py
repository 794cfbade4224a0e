"""Raters of both kinds: scores belong to picture and caption alone, and what of a rater trains."""

import pytest
import torch
from tiny_raters import NAMES, TOKENIZER, build, dual_encoder, frozen, pictures, transform

from capkit.errors import UsageError
from capkit.models.raters.blip_rater import BlipRater
from capkit.models.raters.dual_encoder_rater import DualEncoderRater
from capkit.types import CaptionBatch

TEXTS = ["a red circle", "the blue square is left of one small green star .", "star", "a", "", "red red red"]


def batch_of(model, captions):
    tokens, mask, _ = model.encode(captions)
    pixels = model.preprocess(pictures(len(captions)))
    return CaptionBatch([str(i) for i in range(len(captions))], pixels=pixels, tokens=tokens, mask=mask)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_does_not_depend_on_what_else_is_in_the_batch(name):
    model = frozen(name)
    pixels = model.preprocess(pictures(3))
    owners = [0, 1, 2, 0, 1, 2]
    together = model.rate(pixels, owners, TEXTS)
    alone = [model.rate(pixels[row : row + 1], [0], [text])[0] for row, text in zip(owners, TEXTS, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))
    order = [5, 2, 0, 4, 1, 3]
    turned = model.rate(pixels.flip(0), [2 - owners[i] for i in order], [TEXTS[i] for i in order])
    torch.testing.assert_close(turned, together[order])
    assert together.unique().numel() == len(TEXTS)


@pytest.mark.parametrize("name", NAMES)
def test_small_batches_give_the_scores_of_large_ones(name):
    model = frozen(name)
    pixels = model.preprocess(pictures(2))
    whole = model.rate(pixels, [0, 1, 0, 1, 0, 1], TEXTS)
    size, model.batch_size = model.batch_size, 1
    torch.testing.assert_close(model.rate(pixels, [0, 1, 0, 1, 0, 1], TEXTS), whole)
    model.batch_size = size


@pytest.mark.parametrize("name", NAMES)
def test_a_training_batch_has_the_scores_of_the_texts(name):
    model = frozen(name)
    captions = [["a red circle", "star"], ["the blue square is left of one small green star ."]]
    batch = batch_of(model, captions)
    scores = model(batch)
    given = model.rate(batch.pixels, [0, 0, 1], [text for own in captions for text in own])
    torch.testing.assert_close(scores[batch.mask.any(-1)], given)
    assert scores.shape == (2, 2) and scores[1, 1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_another_picture_changes_the_score(name):
    model = frozen(name)
    scores = model.rate(model.preprocess(pictures(2)), [0, 1], ["a red circle"] * 2)
    assert (scores[0] - scores[1]).abs() > 1e-3


def test_the_embeddings_enter_with_their_product_and_difference():
    """The head gets [i; t; i t; |i - t|] of vectors of length sqrt(D)."""
    model, seen = frozen("dual_encoder"), []
    handle = model.head[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = model.preprocess(pictures(1))
    model.rate(pixels, [0], ["a red circle"])
    handle.remove()
    image = model.encoder.encode_image(pixels) * 12**0.5
    text = model.encoder.encode_text(["a red circle"]) * 12**0.5
    torch.testing.assert_close(seen[0], torch.cat([image, text, image * text, (image - text).abs()], 1))


@pytest.mark.parametrize(("share", "frozen_layers"), [(0.0, 0), (0.5, 2), (0.7, 2), (0.75, 3), (1.0, 4)])
def test_the_lower_layers_are_frozen_with_what_stands_before_them(share, frozen_layers):
    model = build("blip", frozen_share=share)
    for tower, layers in (
        (model.image_encoder, model.image_encoder.encoder.layers),
        (model.text_encoder, model.text_encoder.encoder.layer),
    ):
        trains = [all(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
        assert trains == [False] * frozen_layers + [True] * (4 - frozen_layers)
        assert all(parameter.requires_grad == (share == 0) for parameter in tower.embeddings.parameters())
    assert all(p.requires_grad == (share < 1) for p in model.image_encoder.post_layernorm.parameters())
    assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_towers_that_train_are_frozen_from_below_and_the_logit_scale_is_not_trained():
    model = build("dual_encoder", frozen_share=0.5)
    first, second = model.encoder.text_tower.blocks()
    assert not any(p.requires_grad for p in first.parameters()) and all(p.requires_grad for p in second.parameters())
    assert not any(p.requires_grad for p in model.encoder.scale.parameters())


def test_adapters_alone_train_in_the_part_that_has_them():
    model = build("blip", lora={"text_encoder": {"rank": 2}}, frozen_share=1.0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name or name.startswith("_head") for name in trained)
    assert any("crossattention" in name for name in trained)


def test_what_cannot_be_a_rater_is_told():
    with pytest.raises(UsageError, match=r"without a transform; set model.encoder.transform"):
        DualEncoderRater(dual_encoder(transform=None))
    with pytest.raises(UsageError, match="expected a dual encoder that capkit trains, got Linear"):
        DualEncoderRater(torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match=r"frozen already; set model\.frozen_share=0"):
        DualEncoderRater(dual_encoder().requires_grad_(False), frozen_share=0.7)
    with pytest.raises(UsageError, match="expected a name or a config"):
        BlipRater(transform=transform())
    with pytest.raises(UsageError, match="expected the transform of its pictures"):
        BlipRater(config={}, tokenizer=TOKENIZER)
    with pytest.raises(UsageError, match="expected parts image_encoder and text_encoder, got 'lm'"):
        build("blip", lora={"lm": {}})
    model = build("blip")
    with pytest.raises(UsageError, match="expected captions in every batch"):
        model(CaptionBatch(["0"], pixels=model.preprocess(pictures(1))))
    with pytest.raises(UsageError, match="reads pixels, got cached features"):
        model.about_features()
