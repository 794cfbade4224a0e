"""Which weights train, by name and by gradient, for towers of several kinds."""

import pytest
import torch
from torch import nn

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.encoders.image import HFImageEncoder, SmallCNN, TorchvisionEncoder
from capkit.models.tuning.frozen import eval_frozen
from capkit.models.tuning.layers import after_blocks_of, blocks_of
from capkit.models.tuning.policy import MODES, Tuning
from capkit.text.tokenizers import word_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
VISION = {**SIZES, "image_size": 32, "patch_size": 16}
TEXTS = ["a red circle left of a blue square", "one star"]


def text_tower(model_type, pooling):
    config = {"model_type": model_type, "max_position_embeddings": 20, **SIZES}
    return HFTextTower(config=config, tokenizer=word_tokenizer(TEXTS), pooling=pooling)


def vision(model_type, **settings):
    return HFImageEncoder(config={"model_type": model_type, **VISION, **settings})


BUILD = {
    "clip_text": lambda: text_tower("clip_text_model", "eos"),
    "bert": lambda: text_tower("bert", "cls"),
    "clip_vision": lambda: vision("clip_vision_model"),
    "char_gru": lambda: CharGRU(hidden=5, attention_hidden=4),
}


def with_projection(tower):
    """A tower with the projection that a dual encoder gives it."""
    torch.manual_seed(0)
    model = nn.Module()
    model.tower, model.projection = tower, nn.Linear(tower.width, 4, bias=False)
    return model


def built(name):
    torch.manual_seed(0)
    return with_projection(BUILD[name]())


def output(model):
    if hasattr(model.tower, "tokenize"):
        return model.projection(model.tower(*model.tower.tokenize(TEXTS)))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return model.projection(model.tower(pixels)[:, 1:].mean(1))  # not the class token alone


def names_with_gradient(model):
    """After two steps: an adapter's A has a zero gradient while its B is zero."""
    generator = torch.Generator().manual_seed(0)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        assert not output(model).requires_grad
        return set()
    for _ in range(2):
        out = output(model)
        model.zero_grad()
        (out * torch.randn(out.shape, generator=generator)).sum().backward()
        torch.optim.SGD(trainable, lr=0.1).step()
    return {name for name, p in model.named_parameters() if p.grad is not None and (p.grad != 0).any()}


def names(model, *parts):
    return {name for name, _ in model.named_parameters() if any(part in name for part in parts)}


# The key's bias shifts all scores of a query alike: its gradient is zero but for rounding.
KEY_BIAS = {"clip_text": "k_proj.bias", "bert": "key.bias", "clip_vision": "k_proj.bias", "char_gru": "no such part"}
UNREAD = {
    "clip_text": (),
    "bert": ("pooler",),
    "clip_vision": ("post_layernorm",),
    "char_gru": (),
}


def trained(model, name, *parts):
    return names(model, "projection.", *parts) - names(model, *UNREAD[name], KEY_BIAS[name])


def with_gradient(model, name):
    return names_with_gradient(model) - names(model, KEY_BIAS[name])


def trainable(model, name):
    return {n for n, p in model.named_parameters() if p.requires_grad} - names(model, KEY_BIAS[name])


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("mode", ["frozen", "head", "projection", "full"])
def test_exactly_these_weights_get_gradients(name, mode):
    model = built(name)
    Tuning(mode).apply(model.tower, [model.projection])
    expected = {
        "frozen": set(),
        "head": set(),
        "projection": {"projection.weight"},
        "full": trained(model, name, "tower."),
    }[mode]
    assert trainable(model, name) == expected
    assert with_gradient(model, name) == expected


LAST_TWO = {
    "clip_text": ("encoder.layers.1.", "encoder.layers.2.", "final_layer_norm"),
    "bert": ("encoder.layer.1.", "encoder.layer.2."),
    "clip_vision": ("encoder.layers.1.", "encoder.layers.2."),
}


@pytest.mark.parametrize("name", LAST_TWO)
def test_last_n_trains_the_last_layers_what_follows_them_and_the_projection(name):
    model = built(name)
    Tuning("last_n", n=2).apply(model.tower, [model.projection])
    expected = trained(model, name, *LAST_TWO[name])
    assert len(expected) > 20
    assert trainable(model, name) == expected
    assert with_gradient(model, name) == expected


ADAPTED = {"clip_text": ("q_proj", "v_proj"), "bert": ("query", "value"), "clip_vision": ("q_proj", "v_proj")}


@pytest.mark.parametrize("name", ADAPTED)
def test_lora_trains_the_adapters_of_query_and_value_and_the_projection(name):
    model = built(name)
    Tuning("lora", rank=2).apply(model.tower, [model.projection])
    expected = {"projection.weight"} | names(model, "lora_A", "lora_B")
    assert len(expected) == 1 + 3 * 2 * 2  # three layers, two targets, A and B
    adapted = {name.split(".lora_")[0].split(".")[-1] for name in expected if "lora" in name}
    assert adapted == set(ADAPTED[name])
    assert trainable(model, name) == expected
    assert with_gradient(model, name) == expected


@pytest.mark.parametrize("name", ADAPTED)
def test_a_new_adapter_changes_no_output(name):
    model = built(name).eval()
    with torch.no_grad():
        before = output(model)
        Tuning("lora", alpha=100).apply(model.tower, [model.projection])
        torch.testing.assert_close(output(model.eval()), before, atol=0, rtol=0)


def test_lora_of_named_targets_leaves_out_a_pooler_that_nothing_reads():
    model = built("bert")
    Tuning("lora", rank=2, targets=["dense", "query"]).apply(model.tower, [model.projection])
    adapters = names(model, "lora_")
    assert not [name for name in adapters if "pooler" in name]
    assert len(adapters) == 3 * 4 * 2  # attention.output.dense, intermediate.dense, output.dense and query of 3 layers
    assert names_with_gradient(model) == {"projection.weight"} | adapters


def test_lora_of_a_char_gru_adapts_its_attention():
    model = built("char_gru")
    Tuning("lora", rank=2, targets=["w1", "w2"]).apply(model.tower, [model.projection])
    assert names_with_gradient(model) == {"projection.weight"} | names(model, "lora_")
    assert len(names(model, "lora_")) == 4


def test_every_projection_given_is_frozen_or_trained():
    for mode, trains in (("head", False), ("projection", True)):
        tower, first, second = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        Tuning(mode).apply(tower, [first, second])
        assert first.weight.requires_grad == second.weight.requires_grad == trains
        assert not tower.weight.requires_grad


@pytest.mark.parametrize(
    "build, num_blocks, after",
    [
        (lambda: vision("vit"), 3, {"LayerNorm", "ViTPooler"}),
        (lambda: vision("siglip_vision_model"), 3, {"LayerNorm", "SiglipMultiheadAttentionPoolingHead"}),
        (lambda: vision("dinov2"), 3, {"LayerNorm"}),
        (lambda: text_tower("siglip_text_model", "eos"), 3, {"LayerNorm", "Linear"}),
        (lambda: text_tower("roberta", "mean"), 3, {"RobertaPooler"}),
        (lambda: text_tower("distilbert", "cls"), 3, set()),
        (lambda: TorchvisionEncoder("resnet18"), 6, set()),  # the stem's convolution and norm, four stages
        (lambda: TorchvisionEncoder("efficientnet_b0"), 9, set()),
        (lambda: SmallCNN(image_size=32), 4, {"Linear"}),  # three strides, one residual block
    ],
)
def test_layers_are_found_in_towers_of_many_kinds(build, num_blocks, after):
    tower = build()
    blocks = blocks_of(tower)
    assert len(blocks) == num_blocks
    assert {type(module).__name__ for module in after_blocks_of(tower)} == after
    Tuning("last_n", n=1).apply(tower)
    assert all(not p.requires_grad for block in blocks[:-1] for p in block.parameters())
    assert all(p.requires_grad for p in blocks[-1].parameters())


def test_the_blocks_given_are_those_that_count():
    tower = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    Tuning("last_n", n=1).apply(tower, [], [tower["b"], tower["a"]], [tower["norm"]])
    assert {name for name, p in tower.named_parameters() if p.requires_grad} == {
        "a.weight",
        "a.bias",
        "norm.weight",
        "norm.bias",
    }


def test_frozen_parts_are_in_eval_mode_and_keep_their_statistics():
    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18")
    Tuning("last_n", n=1).apply(encoder)
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder.train()
    eval_frozen(encoder)
    encoder(torch.randn(2, 3, 64, 64))
    moved = {name.split(".")[1] for name, b in encoder.named_buffers() if not torch.equal(b, before[name])}
    assert moved == {"7"}  # layer4
    assert not encoder.trunk[0].training and encoder.trunk[7].training


def test_eval_frozen_leaves_a_trainable_module_in_training_mode():
    model = built("bert").train()
    eval_frozen(model)
    assert all(m.training for n, m in model.named_modules() if "pooler" not in n)
    Tuning("projection").apply(model.tower, [model.projection])
    eval_frozen(model)
    assert not any(m.training for m in model.tower.modules()) and model.projection.training


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mode": "lorra"}, "did you mean 'lora'"),
        ({"mode": "last_n"}, "n=None"),
        ({"mode": "full", "n": 2}, "last_n"),
        ({"mode": "last_n", "n": 0}, "n: expected an integer of at least 1"),
        ({"mode": "full", "targets": ["query"]}, "mode=lora"),
        ({"mode": "lora", "rank": 0}, "rank"),
        ({"mode": "lora", "dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_settings_are_usage_errors(settings, message):
    with pytest.raises(UsageError, match=message):
        Tuning(**settings)


@pytest.mark.parametrize(
    "tuning, name, message",
    [
        (Tuning("last_n", n=4), "clip_text", "3 layers"),
        (Tuning("last_n", n=1), "char_gru", "CharGRU has none"),
        (Tuning("lora", targets=["query"]), "clip_text", "k_proj"),
        (Tuning("lora", targets=["q_proj", "query"]), "clip_text", "'query'"),
        (Tuning("lora"), "char_gru", "w1, w2"),
    ],
)
def test_a_tuning_that_matches_nothing_says_what_there_is(tuning, name, message):
    model = built(name)
    with pytest.raises(UsageError, match=message):
        tuning.apply(model.tower, [model.projection])


def test_a_projection_without_weights_cannot_be_tuned():
    with pytest.raises(UsageError, match="projection"):
        Tuning("projection").apply(nn.Linear(2, 2), [nn.Identity()])


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("frozen", "head", "projection")])
def test_a_tower_built_frozen_cannot_be_trained(mode):
    encoder = HFImageEncoder(config={"model_type": "vit", **VISION}, frozen=True)
    with pytest.raises(UsageError, match="frozen=false"):
        Tuning(mode, n=1 if mode == "last_n" else None).apply(encoder)


def test_two_lists_of_layers_are_a_usage_error_that_names_them():
    with pytest.raises(UsageError, match=r"first, second"):
        blocks_of(
            nn.ModuleDict({"first": nn.ModuleList([nn.Linear(1, 1)]), "second": nn.ModuleList([nn.Linear(1, 1)])})
        )
