"""CLIP's ResNets against a second implementation from their state dict, and against what is published of them."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from capkit.errors import UsageError
from capkit.models.encoders.modified_resnet import AttentionPool2d, Bottleneck, ModifiedResNet

TINY = dict(layers=(1, 2, 1, 1), stem=4, image_size=64, output_dim=6, num_heads=4)
RN101 = dict(layers=(3, 4, 23, 3), output_dim=512)
RN50X4 = dict(layers=(4, 6, 10, 6), stem=80, output_dim=640, image_size=288)


def tower(seed=0, **settings):
    """A small tower, all of whose numbers are random: BatchNorm's too, which start from 0, 1 and equal statistics."""
    torch.manual_seed(seed)
    made = ModifiedResNet(**(TINY | settings))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return made.eval()


def naive_grid(w, x, layers):
    """The released network, from its names alone."""

    def norm(name, x):
        return F.batch_norm(x, *(w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    def conv(name, x, stride=1):
        kernel = w[f"{name}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=(kernel.shape[-1] - 1) // 2)

    x = norm("bn1", conv("conv1", x, stride=2)).clamp(min=0)
    x = norm("bn2", conv("conv2", x)).clamp(min=0)
    x = F.avg_pool2d(norm("bn3", conv("conv3", x)).clamp(min=0), 2)
    for stage, blocks in enumerate(layers, start=1):
        for block in range(blocks):
            name, halved = f"layer{stage}.{block}", stage > 1 and block == 0
            out = norm(f"{name}.bn1", conv(f"{name}.conv1", x)).clamp(min=0)
            out = norm(f"{name}.bn2", conv(f"{name}.conv2", out)).clamp(min=0)
            if halved:
                out = F.avg_pool2d(out, 2)
            out = norm(f"{name}.bn3", conv(f"{name}.conv3", out))
            if block == 0:
                x = F.avg_pool2d(x, 2) if halved else x
                x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x))
            x = (out + x).clamp(min=0)
    return x


def naive_pool(w, grid, heads):
    """Attention of the mean over mean and cells, head by head and cell by cell."""
    cells = grid.flatten(2).transpose(1, 2)
    tokens = torch.cat([cells.mean(1, keepdim=True), cells], 1) + w["positional_embedding"]
    q, k, v = (tokens @ w[f"{name}_proj.weight"].T + w[f"{name}_proj.bias"] for name in "qkv")
    size = tokens.shape[-1] // heads
    rows = []
    for image in range(len(tokens)):
        heard = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = torch.stack([(q[image, 0, part] * key).sum() / math.sqrt(size) for key in k[image, :, part]])
            heard.append((scores.softmax(0)[:, None] * v[image, :, part]).sum(0))
        rows.append(torch.cat(heard) @ w["c_proj.weight"].T + w["c_proj.bias"])
    return torch.stack(rows)


@pytest.mark.parametrize("output", ["grid", "pooled"])
@pytest.mark.parametrize("batch", [1, 3])
def test_equal_to_the_released_network_forward_and_gradient(output, batch):
    made = tower(output=output).double()
    pixels = torch.randn(batch, 3, 64, 64, dtype=torch.float64)
    theirs = {name: value.detach().clone() for name, value in made.state_dict().items()}
    for name, _ in made.named_parameters():
        theirs[name].requires_grad_()
    grid = naive_grid(theirs, pixels, TINY["layers"])
    pooling = {name.removeprefix("attnpool."): value for name, value in theirs.items() if "attnpool" in name}
    expected = grid.flatten(2).transpose(1, 2) if output == "grid" else naive_pool(pooling, grid, heads=4)[:, None]
    out = made(pixels)
    torch.testing.assert_close(out, expected)
    assert out.shape == (batch, 4 if output == "grid" else 1, made.width)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, msg=name)


def test_attention_pooling_of_equal_queries_is_a_mean():
    # With q = 0 all weights are 1 / 5; with v and c the identity and no positions the output is the mean of the mean
    # and the four cells, which is the cells' mean: (1 + 2 + 3 + 6) / 4 = 3, and twice that in the second channel.
    pool = AttentionPool2d(grid=2, width=2, num_heads=1, output_dim=2)
    with torch.no_grad():
        for part in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
            part.weight.copy_(torch.eye(2))
            part.bias.zero_()
        pool.q_proj.weight.zero_()
        pool.positional_embedding.zero_()
    cells = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    torch.testing.assert_close(pool(torch.stack([cells, 2 * cells])[None]), torch.tensor([[3.0, 6.0]]))


@pytest.mark.parametrize(
    ("settings", "parameters"), [({}, 38_316_896), (RN101, 56_259_936), (RN50X4, 87_137_080)], ids=["50", "101", "50x4"]
)
def test_as_many_parameters_as_the_released_towers(settings, parameters):
    with torch.device("meta"):
        made = ModifiedResNet(output="pooled", **settings)
    assert sum(p.numel() for p in made.parameters()) == parameters


def test_rn50_gives_49_cells_of_width_2048_or_an_embedding_of_1024():
    with torch.device("meta"):
        pixels = torch.zeros(2, 3, 224, 224)
        assert ModifiedResNet()(pixels).shape == (2, 49, 2048)
        assert ModifiedResNet(output="pooled")(pixels).shape == (2, 1, 1024)


def test_a_block_without_stride_starts_as_the_identity():
    x = torch.randn(2, 8, 5, 5).relu()
    assert torch.equal(Bottleneck(8, 2)(x), x)


def test_the_grid_takes_pictures_of_other_sizes_and_pooling_refuses_them():
    pixels = torch.randn(1, 3, 96, 64)
    assert tower()(pixels).shape == (1, 6, 128)
    with pytest.raises(UsageError, match=r"expected 4 cells, got 6; set image_size"):
        tower(output="pooled")(pixels)


def test_a_picture_is_encoded_without_regard_to_its_batch():
    made, pixels = tower(output="pooled"), torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(made(pixels)[[2, 0]], made(pixels[[2, 0]]))


def test_a_frozen_tower_keeps_its_statistics():
    made, pixels = tower(frozen=True), torch.randn(2, 3, 64, 64)
    expected = made(pixels)
    made.train()
    assert torch.equal(made(pixels), expected) and not made(pixels).requires_grad
    assert not any(module.training for module in made.modules())


class Whole(nn.Module):
    """CLIP's names around an image tower."""

    def __init__(self, visual):
        super().__init__()
        self.visual = visual
        self.text_projection = nn.Parameter(torch.zeros(2, 2))

    def forward(self, pixels):
        return self.visual.avgpool(self.visual.conv1(pixels))


def as_openai(source, path):
    torch.jit.trace(Whole(source).half(), torch.zeros(1, 3, 64, 64, dtype=torch.half), check_trace=False).save(path)


def as_open_clip(source, path):
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in Whole(source).state_dict().items()}}, path)


def as_bare_tower(source, path):
    torch.save(source.state_dict(), path)


def as_safetensors(source, path):
    save_file(Whole(source).state_dict(), path)


@pytest.mark.parametrize("output", ["grid", "pooled"])
@pytest.mark.parametrize(
    ("write", "name"),
    [(as_openai, "RN50.pt"), (as_open_clip, "open.pt"), (as_bare_tower, "t.pt"), (as_safetensors, "w.safetensors")],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_released_files_give_the_released_features(write, name, output, tmp_path):
    source, pixels = tower(seed=1, output="pooled"), torch.randn(2, 3, 64, 64)
    for value in source.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())  # what a file in half precision can hold
    expected = {"pooled": source(pixels)}
    source.attnpool, pooling = None, source.attnpool
    expected["grid"] = source(pixels)
    source.attnpool = pooling
    write(source, tmp_path / name)
    made = tower(weights=str(tmp_path / name), output=output)
    read = ModifiedResNet(**(TINY | dict(weights=str(tmp_path / name), output=output))).eval()
    torch.testing.assert_close(read(pixels), expected[output])
    assert not torch.allclose(made(pixels), expected[output]), "random BatchNorm did not change the output"


def test_files_of_other_networks_are_refused(tmp_path):
    torch.save(tower(stem=6).state_dict(), tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"holds other weights than this ModifiedResNet's.*set layers, stem"):
        ModifiedResNet(weights=str(tmp_path / "other.pt"), **TINY)
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(UsageError, match="expected a file of CLIP's weights"):
            ModifiedResNet(weights=str(tmp_path / name), **TINY)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UsageError, match="expected a file of CLIP's weights"):
        ModifiedResNet(weights=str(tmp_path / "text.pt"), **TINY)


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="output must be grid or pooled; got 'tokens'"):
        ModifiedResNet(output="tokens")
    with pytest.raises(UsageError, match="image_size divisible by 32"):
        ModifiedResNet(**TINY | {"image_size": 100})
    with pytest.raises(UsageError, match="width divisible by num_heads; got 128 and 3"):
        ModifiedResNet(**TINY | {"num_heads": 3, "output": "pooled"})
