"""The modular captioner: each controller by hand, weights, modules that are silenced, memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_captioners import batch_for, tiny_tokenizer

from capkit.errors import UsageError
from capkit.models.captioners.modular import ModularCaptioner, silence
from capkit.models.captioners.module_blocks import AdditiveAttention
from capkit.models.captioners.module_controllers import controller
from capkit.text.word_classes import MODULES

SIZES = {"feature_width": 4, "width": 8, "attention_width": 4, "num_heads": 2, "relation_layers": 1, "max_length": 24}


def build(**arguments):
    torch.manual_seed(0)
    model = ModularCaptioner(tiny_tokenizer(), **{**SIZES, **arguments}).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.5)
    return model


@pytest.fixture
def batch():
    batch = batch_for(build())
    features = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(2))
    return replace(batch, pixels=None, features=features)


def weights_of(model, batch):
    return model.with_weights(model.encode(batch), batch.tokens)[1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_lstm_controller_by_hand():
    """One input and one state of width 1; gates in torch's order: in, forget, cell, out."""
    control = controller("lstm", 1, 1, 1)
    gates, recurrent, choice = [0.1, 0.2, 0.3, 0.4], [0.5, -0.5, 1.0, -1.0], [1.0, 0.0, -1.0, 2.0]
    with torch.no_grad():
        control.cell.weight_ih.copy_(torch.tensor(gates)[:, None])
        control.cell.weight_hh.copy_(torch.tensor(recurrent)[:, None])
        control.cell.bias_ih.zero_(), control.cell.bias_hh.zero_()
        control.choose.weight.copy_(torch.tensor(choice)[:, None])
        control.choose.bias.zero_()
        weights, (hidden, cell) = control(torch.tensor([[2.0]]), [torch.tensor([[0.5]]), torch.tensor([[-1.0]])])
    i, f, g, o = (w * 2 + u * 0.5 for w, u in zip(gates, recurrent, strict=True))
    new_cell = sigmoid(f) * -1 + sigmoid(i) * np.tanh(g)
    new_hidden = sigmoid(o) * np.tanh(new_cell)
    scores = np.exp(np.array(choice) * new_hidden)
    assert float(cell) == pytest.approx(new_cell, abs=1e-6) and float(hidden) == pytest.approx(new_hidden, abs=1e-6)
    np.testing.assert_allclose(weights[0].numpy(), scores / scores.sum(), atol=1e-6)


def test_the_attending_controller_by_hand():
    """Width 2 and one head, all maps the identity, no feed-forward: what is attended to are past steps, zeros first."""
    control = controller("self_attention", 2, 2, 1).eval()
    identity, embeddings = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.zero_()
        control.query.weight.copy_(identity)
        control.attention.in_proj_weight.copy_(torch.cat([identity] * 3))
        control.attention.out_proj.weight.copy_(identity)
        control.norm.weight.fill_(1.0), control.last_norm.weight.fill_(1.0)
        control.choose.weight.copy_(embeddings)
        control.embeddings.copy_(embeddings)
        inputs = torch.tensor([[1.0, 3.0]])
        first, states = control(inputs, control.start(1, inputs))
        second, later = control(inputs, states)

    def normed(x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    def chosen(attended):
        once = normed(np.array([1.0, 3.0]) + attended)
        scores = np.exp(embeddings.numpy() @ normed(once))
        return scores / scores.sum()

    np.testing.assert_allclose(first[0].numpy(), chosen(np.zeros(2)), atol=1e-5)
    past = chosen(np.zeros(2)) @ embeddings.numpy()
    np.testing.assert_allclose(states[0][0].numpy(), [[0, 0], past], atol=1e-5)
    likes = np.exp(np.array([0.0, np.array([1.0, 3.0]) @ past]) / np.sqrt(2))
    np.testing.assert_allclose(second[0].numpy(), chosen(likes[1] / likes.sum() * past), atol=1e-5)
    assert later[0].shape == (1, 3, 2)


def test_additive_attention_is_the_naive_one_and_masks_before_its_softmax():
    torch.manual_seed(0)
    attention = AdditiveAttention(3, 2)
    regions, query = torch.randn(2, 4, 3), torch.randn(2, 2, 3)
    mask = torch.tensor([[True] * 4, [True, False, True, False]])
    found = attention(query, attention.of_regions(regions), regions, mask)
    for image in range(2):
        for caption in range(2):
            places = [place for place in range(4) if mask[image, place]]
            scores = torch.stack(
                [
                    attention.score(
                        torch.tanh(attention.of_regions(regions[image, p]) + attention.of_query(query[image, caption]))
                    )[0]
                    for p in places
                ]
            )
            expected = scores.softmax(0) @ regions[image, places]
            torch.testing.assert_close(found[image, caption], expected)


@pytest.mark.parametrize("kind", ["lstm", "self_attention", "uniform"])
@torch.no_grad()
def test_weights_sum_to_one_in_every_block(kind, batch):
    weights = weights_of(build(controller=kind, blocks=2), batch)
    assert weights.shape == (*batch.tokens.shape, 2, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-6, rtol=0)
    spread = weights.flatten(0, 3).std(0).max()
    assert spread == 0 if kind == "uniform" else spread > 0.01


@pytest.mark.parametrize("kind", ["lstm", "self_attention"])
@torch.no_grad()
def test_the_controller_hears_the_output_of_each_visual_module_in_its_place(kind, batch):
    model, said, heard = build(controller=kind, blocks=1), [], []
    block = model.decoder.blocks[0]
    for look in block.look:
        look.register_forward_hook(lambda _, args, out: said.append(out.flatten(0, 1)))
    block.controller.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    model.with_weights(model.encode(batch), batch.tokens[..., :1])
    assert len({float(out.sum()) for out in said}) == 3
    torch.testing.assert_close(heard[0][:, 3 * model.width :], torch.cat(said, -1), atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["lstm", "self_attention"])
@torch.no_grad()
def test_states_follow_beams_that_leave_their_row(kind, batch):
    """Three beams of each image: one goes on twice, one ends; scores are those of the tokens read anew."""
    model = build(controller=kind, blocks=2, memory=[5, 6])
    context, cache = model.encode(batch), model.start(model.encode(batch), 10)
    draw = torch.Generator().manual_seed(4)
    read = torch.randint(model.vocab_size, (24, 3), generator=draw)
    following = torch.randint(model.vocab_size, (24, 1), generator=draw)
    model.step(context, read, cache)
    order = (3 * torch.arange(8)[:, None] + torch.tensor([2, 0, 0])).flatten()
    cache.reorder_cache(order)
    found = model.step(context, following, cache)
    tokens = torch.cat([read[order], following], 1)
    expected = model.head(model._hidden(context, tokens.view(8, 3, 4)))[:, :, -1].flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_speaks_by_its_weight_alone(name, batch):
    """With no weight it changes no word and gets no gradient; silenced, neither; with its weight it does both."""
    model = build(blocks=1)
    block = model.decoder.blocks[0]
    part = block.function if name == "function" else block.look[("object", "relation", "attribute").index(name)]
    block.controller.register_forward_hook(lambda _, args, out: (out[0] * without, out[1]))
    silent = torch.ones(4)
    silent[MODULES.index(name)] = 0.0

    def gradient():
        model.zero_grad()
        hidden = model._hidden(model.encode(batch), batch.tokens)
        hidden.sum().backward()
        weights = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        return hidden.detach(), max((float(weight.abs().max()) for weight in weights), default=0.0)

    # What the controller hears of it is another way: here it hears nothing.
    width = model.width
    with torch.no_grad():
        block.controller.cell.weight_ih[:, 3 * width :] = 0.0
    without = torch.ones(4)
    spoken, moved = gradient()
    without = silent
    unheard, unmoved = gradient()
    assert moved > 0 == unmoved
    without, model.zero_module = torch.ones(4), name
    silenced, unmoved = gradient()
    assert unmoved == 0
    torch.testing.assert_close(silenced, unheard)
    assert not torch.allclose(spoken, silenced, atol=1e-4)


def test_a_memory_is_asked_trained_and_begins_with_a_file(tmp_path, batch):
    values = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.save(tmp_path / "kg.npy", values)
    torch.manual_seed(0)
    model = ModularCaptioner(tiny_tokenizer(), **SIZES, memory=[5, 6], memory_file=str(tmp_path / "kg.npy")).eval()
    np.testing.assert_array_equal(model.state_dict()["decoder.memory"].numpy(), values)
    model._hidden(model.encode(batch), batch.tokens).sum().backward()
    assert model.decoder.memory.grad.abs().max() > 0
    drawn = ModularCaptioner(tiny_tokenizer(), **SIZES, memory=[5, 6]).decoder.memory
    assert drawn.min() >= 0 and drawn.max() < 0.01
    for wrong in (np.full((5, 6), np.nan), np.full((5, 6), "a")):
        np.save(tmp_path / "kg.npy", wrong)
        with pytest.raises(UsageError, match=r"kg\.npy: expected finite numbers"):
            build(memory=[5, 6], memory_file=str(tmp_path / "kg.npy"))


@torch.no_grad()
def test_attributes_are_seen_by_their_module_alone_and_padding_is_not(batch):
    """Regions of image i are all but the last i % 3."""
    model = build(attribute_width=3)
    seen = torch.arange(5) < 5 - torch.arange(8)[:, None] % 3
    attributes = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(3))
    own = replace(batch, features_mask=seen, attribute_features=attributes)
    states = model.encode(own).states.unflatten(-1, (3, -1))
    torch.testing.assert_close(states[..., 2, :], model.regions.attribute(attributes))
    torch.testing.assert_close(states[..., 0, :], model.regions.object(batch.features))
    hidden = model._hidden(model.encode(own), batch.tokens)
    noise = attributes.masked_fill(~seen[..., None], 3.0)
    torch.testing.assert_close(
        model._hidden(model.encode(replace(own, attribute_features=noise)), batch.tokens), hidden
    )
    others = model.encode(replace(own, attribute_features=attributes.flip(1)))
    assert not torch.allclose(model._hidden(others, batch.tokens), hidden, atol=1e-4)


def test_attributes_that_are_missing_unread_or_of_another_width_are_told(batch):
    given = replace(batch, attribute_features=torch.zeros(8, 5, 3))
    for width, own, got in ((None, given, "got 3; leave data.attribute_features out"), (3, batch, "got none; set data"),
                            (4, given, r"got 3; set model\.attribute_width=3")):  # fmt: skip
        with pytest.raises(UsageError, match=got):
            build(attribute_width=width).encode(own)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"controller": "lsmt"}, "there is no 'lsmt'; did you mean 'lstm'"),
        ({"zero_module": "attributes"}, "there is no 'attributes'; did you mean 'attribute'"),
        ({"num_heads": 3}, "num_heads=3: expected a divisor of width, 8"),
        ({"memory": [5]}, r"expected \[slots, width\], got \[5\]"),
        ({"memory_file": "kg.npy"}, r"expected model\.memory=\[SLOTS,WIDTH\] too, got null"),
        ({"memory": [5, 6], "memory_file": "kg.npy"}, "kg.npy"),
    ],
)
def test_wrong_settings_are_told(arguments, problem):
    with pytest.raises(UsageError, match=problem):
        build(**arguments)


def test_a_module_of_a_trained_captioner_is_silenced():
    model = build()
    silence(model, "relation")
    assert model.zero_module == "relation"
    with pytest.raises(UsageError, match="zero_module=relation: expected a checkpoint of model=modular, got Linear"):
        silence(torch.nn.Linear(1, 1), "relation")


@torch.no_grad()
def test_a_step_of_the_lstm_costs_the_same_at_any_place_and_one_that_attends_grows(batch):
    for kind, grows in (("lstm", False), ("self_attention", True)):
        model = build(controller=kind)
        context = model.encode(batch)
        cache, sizes = model.start(context, 10), []
        for _ in range(4):
            model.step(context, torch.ones(8, 1, dtype=torch.long), cache)
            sizes.append(sum(state.numel() for state in cache.states))
        assert (sizes[3] > sizes[0]) == grows and cache.get_seq_length() == 4
