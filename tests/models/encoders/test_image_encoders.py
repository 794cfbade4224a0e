import pytest
import torch
import torchvision
from transformers import CLIPConfig, CLIPModel

from capkit.errors import UsageError
from capkit.models.encoders.image import EfficientNetLite0, HFImageEncoder, SmallCNN, TorchvisionEncoder, pooled_tokens

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VISION = SIZES | {"image_size": 32, "patch_size": 16}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "image_size": 32, "patch_size": 4}
CONFIGS = [
    ({"model_type": "vit", **VISION}, "tokens", (5, 16)),
    ({"model_type": "vit", **VISION}, "pooled", (1, 16)),
    ({"model_type": "clip_vision_model", **VISION}, "tokens", (5, 16)),
    ({"model_type": "clip_vision_model", "projection_dim": 12, **VISION}, "projected", (1, 12)),
    ({"model_type": "siglip_vision_model", **VISION}, "tokens", (4, 16)),
    ({"model_type": "dinov2", **VISION}, "tokens", (5, 16)),
    ({"model_type": "swin", **SWIN}, "tokens", (16, 16)),
    ({"model_type": "swin", **SWIN}, "pooled", (1, 16)),
    (
        {"model_type": "resnet", "hidden_sizes": [8, 8, 8, 16], "embedding_size": 8, "depths": [1] * 4},
        "tokens",
        (1, 16),
    ),
]


def assert_frozen(encoder, pixels):
    """Nothing changes in training mode: no gradient, no dropout, no moved statistics."""
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    expected = encoder.eval()(pixels)
    encoder.train()
    out = encoder(pixels)
    assert torch.equal(out, expected)
    assert not out.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize(("config", "output", "shape"), CONFIGS)
def test_vision_models_from_configs_give_tokens_of_their_width(config, output, shape):
    encoder = HFImageEncoder(config=config, output=output)
    tokens = encoder(torch.randn(2, 3, 32, 32))
    assert tokens.shape == (2, *shape)
    assert encoder.width == shape[1]
    tokens.square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in encoder.parameters())


def test_frozen_vision_model_stays_as_it_is():
    config = {"model_type": "vit", "hidden_dropout_prob": 0.5, **VISION}
    assert_frozen(HFImageEncoder(config=config, frozen=True), torch.randn(2, 3, 32, 32))


def test_clip_folder_gives_the_vision_half_of_clip(tmp_path):
    torch.manual_seed(0)
    text = SIZES | {"vocab_size": 30, "max_position_embeddings": 8}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)).eval()
    clip.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    vision = clip.vision_model(pixels)
    for output, expected in (
        ("tokens", vision.last_hidden_state),
        ("pooled", vision.pooler_output[:, None]),
        ("projected", clip.visual_projection(vision.pooler_output)[:, None]),
    ):
        encoder = HFImageEncoder(name=str(tmp_path), output=output).eval()
        torch.testing.assert_close(encoder(pixels), expected)
        assert encoder.width == expected.shape[-1]
    assert HFImageEncoder(name=str(tmp_path), pretrained=False)(pixels).shape == vision.last_hidden_state.shape


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "name or a config"),
        ({"config": {"model_type": "vit"}, "output": "grid"}, "tokens, pooled or projected"),
        ({"config": {"hidden_size": 16}}, "model_type"),
        ({"config": {"model_type": "vitt"}}, "vitt"),
        ({"config": {"model_type": "vit", **VISION}, "output": "projected"}, "CLIP"),
        ({"name": "/nowhere/at/all"}, "image encoder '/nowhere/at/all'"),
    ],
)
def test_wrong_vision_models_are_usage_errors(wrong, words):
    with pytest.raises(UsageError, match=words):
        HFImageEncoder(**wrong)


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("mobilenet_v3_small", 576)])
def test_torchvision_trunk_ends_in_its_last_grid(name, width):
    encoder = TorchvisionEncoder(name)
    tokens = encoder(torch.randn(2, 3, 64, 96))
    assert tokens.shape == (2, 2 * 3, width)  # stride 32, rows first
    assert encoder.width == width


def test_torchvision_tokens_pooled_and_classified_are_the_classifier():
    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18").eval()
    classifier = torchvision.models.resnet18().eval()
    classifier.load_state_dict(classifier.state_dict() | renamed_trunk(encoder, classifier))
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(classifier.fc(encoder(pixels).mean(1)), classifier(pixels))


def renamed_trunk(encoder, classifier):
    names = [key for key, _ in classifier.named_children() if key not in ("avgpool", "fc")]
    state = encoder.trunk.state_dict()
    return {f"{names[int(key.split('.')[0])]}.{key.split('.', 1)[1]}": value for key, value in state.items()}


def test_frozen_torchvision_encoder_keeps_its_batch_statistics():
    assert_frozen(TorchvisionEncoder("resnet18", frozen=True), 5 + torch.randn(2, 3, 64, 64))


def test_trainable_torchvision_encoder_moves_its_batch_statistics():
    encoder = TorchvisionEncoder("resnet18").train()
    before = encoder.trunk[1].running_mean.clone()
    encoder(5 + torch.randn(2, 3, 64, 64)).sum().backward()
    assert not torch.equal(encoder.trunk[1].running_mean, before)
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "resnet81"}, "did you mean 'resnet"),
        ({"name": "resnet18", "weights": "NOPE"}, "weights=NOPE"),
        ({"name": "regnet_y_400mf"}, "regnet_y_400mf has none"),
        ({"name": "swin_t"}, "swin_t does not end"),
    ],
)
def test_wrong_torchvision_encoders_are_usage_errors(wrong, words):
    with pytest.raises(UsageError, match=words):
        TorchvisionEncoder(**wrong)


def test_small_cnn_gives_its_grid_rows_first_at_its_width():
    encoder = SmallCNN(image_size=32, channels=(4, 8), blocks=(1, 1), width=10)
    tokens = encoder(torch.randn(3, 3, 32, 32))
    assert tokens.shape == (3, 64, 10)
    tokens.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_small_cnn_encodes_an_image_alike_in_any_batch_in_training_mode():
    encoder = SmallCNN(image_size=32, channels=(4, 8), blocks=(1, 1), width=10).train()
    pixels = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(encoder(pixels)[:2], encoder(pixels[:2]))


def test_small_cnn_knows_where_a_thing_is():
    encoder = SmallCNN(image_size=32, channels=(4, 8), blocks=(0, 0), width=10)
    blank = torch.zeros(1, 3, 32, 32)
    tokens = encoder(blank)[0]
    assert not torch.allclose(tokens[9], tokens[18])  # same content, other place


def test_without_a_width_the_tokens_of_equal_things_are_equal_wherever_they_stand():
    encoder = SmallCNN(image_size=32, channels=(4, 8), blocks=(0, 0), width=None, kernel=5)
    picture = torch.zeros(2, 3, 32, 32)
    picture[0, :, 8:12, 8:12] = picture[1, :, 16:20, 12:16] = 1.0  # moved by two tokens down, one to the right
    first, second = (tokens.view(8, 8, 8) for tokens in encoder(picture))
    assert encoder.width == 8 and not torch.allclose(first[2, 2], first[4, 4])
    torch.testing.assert_close(second[3:7, 2:6], first[1:5, 1:5])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channels": (4, 8), "blocks": (1,)}, "per stage"),
        ({"kernel": 4}, "odd kernel"),
        ({"image_size": 60}, "divisible by 8"),
    ],
)
def test_wrong_small_cnns_are_usage_errors(wrong, words):
    with pytest.raises(UsageError, match=words):
        SmallCNN(**wrong)


def test_small_cnn_refuses_pictures_of_another_size():
    with pytest.raises(UsageError, match="image_size"):
        SmallCNN(image_size=32)(torch.zeros(1, 3, 64, 64))


def test_efficientnet_lite0_grid_and_frozen():
    encoder = EfficientNetLite0(weights=None)
    pixels = torch.randn(1, 3, 224, 224)
    assert encoder(pixels).shape == (1, 49, 1280)
    assert encoder.width == 1280
    assert_frozen(encoder, pixels)


def test_efficientnet_lite0_weights_of_the_package_see_a_daisy():
    datasets = pytest.importorskip("sklearn.datasets")
    encoder = EfficientNetLite0()
    photo = torch.from_numpy(datasets.load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None] / 255
    pixels = torch.nn.functional.interpolate(photo[..., 100:420], (224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        logits = encoder.model._fc(encoder((pixels - 0.498) / 0.502).mean(1))
    assert logits.argmax().item() == 985  # "daisy" in ImageNet's list


def test_missing_efficientnet_weights_are_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        EfficientNetLite0(weights=str(tmp_path / "none.pth"))


def test_pooled_tokens_by_hand():
    """A class token and a grid of 4 x 4 cells, numbered row by row: squares 0, 1, 4, 5 and so on, of mean 2.5 ..."""
    tokens = torch.tensor([-9.0, *range(16)])[None, :, None]
    assert pooled_tokens(tokens, 2)[0, :, 0].tolist() == [-9.0, 2.5, 4.5, 10.5, 12.5]
    assert pooled_tokens(tokens[:, 1:], 4)[0, :, 0].tolist() == [7.5]
    with pytest.raises(UsageError, match="pool=3: expected a grid of patches that it divides, got 4 x 4"):
        pooled_tokens(tokens, 3)


def test_an_encoder_pools_its_patches_and_keeps_its_class_token():
    config = {"model_type": "clip_vision_model", **VISION, "image_size": 64}
    torch.manual_seed(0)
    encoder = HFImageEncoder(config=config, pool=4).eval()
    pixels = torch.randn(2, 3, 64, 64)
    pooled = encoder(pixels)
    encoder.pool = 1
    tokens = encoder(pixels)
    assert pooled.shape == (2, 2, 16) and tokens.shape == (2, 17, 16)
    torch.testing.assert_close(pooled, torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], 1))
    with pytest.raises(UsageError, match="output=pooled is a single one; omit pool"):
        HFImageEncoder(config=config, output="pooled", pool=4)
