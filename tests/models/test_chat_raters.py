"""Chat models of every family as raters: the state that is read, what of them trains, exports."""

import shutil

import numpy as np
import pytest
import torch
from tiny_chat_models import CAPTIONS, CONFIGS, SIDE, asked, followed, photos
from tiny_chat_models import build as chat_model
from tiny_raters import build, pictures
from transformers import AutoModelForImageTextToText

from capkit.checkpoint.exported import export
from capkit.checkpoint.raters import load_rater
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.raters.chat_rater import ChatRater
from capkit.types import CaptionBatch

TEXTS = [text for own in CAPTIONS for text in own]


def squares(size=SIDE, **settings):
    return ImageTransform(**{"size": size, "mean": [0.5] * 3, "std": [0.5] * 3, **settings})


def rater_of(family):
    torch.manual_seed(0)
    captioner = chat_model(family)
    trained = [(parameter, parameter.requires_grad) for parameter in captioner.parameters()]
    model = ChatRater(captioner, squares(), hidden_width=8).eval()
    for parameter, was in trained:  # the captioner is shared by tests
        parameter.requires_grad_(was)
    return model


@pytest.mark.parametrize("family", CONFIGS)
def test_the_state_at_the_end_of_a_caption_is_that_of_the_model_in_transformers(family):
    """One row at a time, by transformers' processor; longer captions beside it and padding change nothing."""
    model, owners = rater_of(family), [0, 0, 1, 1, 2, 2]
    scores = model.rate(model.preprocess(list(photos().numpy())), owners, TEXTS)
    for score, owner, text in zip(scores, owners, TEXTS, strict=True):
        ids = torch.tensor(
            [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
        )
        inputs = followed(asked(model.captioner, photos()[owner]), ids)
        with torch.no_grad():
            states = model.captioner.model.model(**inputs).last_hidden_state
            torch.testing.assert_close(model.head(states[0, -1])[0], score, rtol=1e-4, atol=1e-4)
    assert scores.unique().numel() == len(TEXTS)


@pytest.mark.parametrize(("share", "frozen_layers"), [(0.0, 0), (0.5, 2), (0.7, 2), (1.0, 4)])
def test_the_lower_layers_of_the_language_model_are_frozen(share, frozen_layers):
    model = build("chat", frozen_share=share)
    language = model.captioner.model.model.language_model
    trains = [all(parameter.requires_grad for parameter in layer.parameters()) for layer in language.layers]
    assert trains == [False] * frozen_layers + [True] * (4 - frozen_layers)
    assert language.embed_tokens.weight.requires_grad == (share == 0)
    assert language.norm.weight.requires_grad == (share < 1)
    assert not any(p.requires_grad for p in model.captioner.image_encoder.tower.parameters())  # as freeze says
    assert not model.captioner.model.lm_head.weight.requires_grad
    assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_a_tower_that_trains_is_frozen_from_below_too():
    layers = build("chat", freeze=(), frozen_share=0.5).captioner.image_encoder.blocks()
    trains = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    assert trains == [False, False, True, False]  # LLaVA reads the layer before the last


def test_adapters_train_with_the_head_alone():
    model = build("chat", lora={"rank": 2})
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names and all("lora_" in name or name.startswith("_head") for name in names)
    assert sum("lora_A" in name for name in names) == 2 * 4  # queries and values of all layers


def backward(model, pixels):
    tokens, mask, _ = model.encode([["a red circle"], ["star"]])
    model(CaptionBatch(["0", "1"], pixels=pixels[:2], tokens=tokens, mask=mask)).sum().backward()


def without_gradient(model):
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("family", CONFIGS)
def test_every_weight_of_every_family_that_trains_gets_a_gradient(family):
    """DDP waits for each; PaliGemma embeds tokens by the weights of its head."""
    captioner = chat_model.__wrapped__(family)
    model = ChatRater(captioner, squares(), hidden_width=8, frozen_share=0.0)
    backward(model, model.preprocess(list(photos().numpy())))
    assert without_gradient(model) == [] and any(p.requires_grad for p in captioner.image_encoder.tower.parameters())


def test_every_weight_that_trains_gets_a_gradient_whatever_is_frozen():
    for settings in ({}, {"frozen_share": 0.0}, {"freeze": ()}, {"lora": {"rank": 2}}):
        model = build("chat", **settings)
        backward(model, model.preprocess(pictures(2)))
        assert without_gradient(model) == []


def test_a_caption_that_is_cut_is_read_to_its_last_token():
    model = build("chat").requires_grad_(False).eval()
    pixels = model.preprocess(pictures(1))
    room = model.max_length - 1  # BOS
    cut, whole = "red " * room + "star", "red " * room
    assert model.tokenize.is_cut([cut, whole, "red " * (room - 1)]) == [True, True, False]
    assert model.rate(pixels, [0], [cut]) == model.rate(pixels, [0], [whole])


def test_pictures_of_another_form_are_refused():
    captioner = chat_model("llava")
    with pytest.raises(UsageError, match="expected the transform of its pictures, got null"):
        ChatRater(captioner)
    for settings in ({"size": 32}, {"mean": [0.4] * 3}, {"std": [0.2] * 3}):
        with pytest.raises(UsageError, match=r"pictures of 28 x 28 pixels, normalised by \.5 and \.5.*data\.transform"):
            ChatRater(captioner, squares(**settings))
    with pytest.raises(UsageError, match="expected a chat model, got Linear"):
        ChatRater(torch.nn.Linear(1, 1), squares())
    with pytest.raises(UsageError, match="reads pixels, got cached features"):
        build("chat").about_features()


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["plain", "adapters"])
def test_an_exported_rater_is_read_without_the_model_it_came_from(tmp_path, lora):
    named = chat_model("llava")
    named.model.save_pretrained(tmp_path / "chat")
    named.processor.save_pretrained(tmp_path / "chat")
    settings = {"name": str(tmp_path / "chat"), "question": "near the red star ?", "max_length": 40, "lora": lora}
    model = ChatRater(ChatVLM(**settings), squares(), hidden_width=8, frozen_share=0.5).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.25)
    node = {
        "_target_": "capkit.models.raters.chat_rater.ChatRater",
        "captioner": {"_target_": "capkit.models.captioners.chat_vlm.ChatVLM", **settings},
        "hidden_width": 8,
        "transform": {
            "_target_": "capkit.data.transforms.ImageTransform", "size": SIDE, "mean": [0.5] * 3, "std": [0.5] * 3,
        },
    }  # fmt: skip
    export(model, tmp_path / "out", node, {"seed": 0})
    shutil.rmtree(tmp_path / "chat")
    again = load_rater(str(tmp_path / "out"))
    given = (list(photos().numpy()), [0, 0, 1, 1, 2, 2], TEXTS)
    scores, found = (one.rate(one.preprocess(given[0]), *given[1:]) for one in (model, again))
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-5)
    assert scores.std() > 1e-3
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "captioner")
