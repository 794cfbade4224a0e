import math

import pytest
import torch
from text_tower_examples import TEXTS, build, embed

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU, VectorialAttention


def test_vectorial_attention_of_a_worked_example():
    attention = VectorialAttention(2, 1)
    with torch.no_grad():
        attention.w1.weight.copy_(torch.tensor([[1.0, 0.0]]))
        attention.w2.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        attention.w1.bias.zero_(), attention.w2.bias.zero_()
    states = torch.tensor([[[math.atanh(0.5), 3.0], [math.atanh(-0.5), 5.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    # scores: dimension 0 has .5 and -.5, dimension 1 has -.5 and .5; e^.5 / (e^.5 + e^-.5) = sigmoid(1) = .73106
    sigmoid = 1 / (1 + math.exp(-1))
    expected = [sigmoid * math.atanh(0.5) - (1 - sigmoid) * math.atanh(0.5), (1 - sigmoid) * 3 + sigmoid * 5]
    torch.testing.assert_close(attention(states, mask), torch.tensor([expected]))
    weights = attention.weights(states, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 2))
    assert (weights[0, 2] == 0).all()


def test_packing_equals_a_loop_over_texts_without_padding():
    tower = build("char_gru")
    naive = []
    with torch.no_grad():
        for text in TEXTS:
            tokens, _ = tower.tokenize([text])
            states, _ = tower.gru(tower.embed(tokens))
            naive.append(torch.cat([h(states, torch.ones_like(tokens).bool()) for h in tower.heads], dim=1))
    torch.testing.assert_close(embed(tower, TEXTS), torch.cat(naive), atol=1e-6, rtol=1e-5)


def test_the_papers_sizes():
    tower = CharGRU(heads=2)
    assert tower.width == 2 * 1024 * 2
    assert tower.embed.weight.shape == (101, 20)  # string.printable has 100; 0 is padding and unknown
    assert tower.heads[0].w1.weight.shape == (128, 2048) and tower.heads[0].w2.weight.shape == (2048, 128)


def test_unknown_characters_are_all_read_alike():
    first, second = embed(build("char_gru"), ["a \u00e9 b", "a \u4e2d b"])
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
    assert (first - embed(build("char_gru"), ["a e b"])[0]).abs().max() > 1e-2


def test_head_distances_of_a_worked_example():
    """Three heads over states of width 2 (one unit in each direction), one hidden unit each, and a padded position."""
    tower = CharGRU(hidden=1, heads=3, attention_hidden=1)
    big = math.log(3) / math.tanh(1)
    for head, (w1, w2) in zip(
        tower.heads, [([1.0, 0], [0.0, 0]), ([0.6, 0], [0.0, 0]), ([1.0, 0], [big, 0])], strict=True
    ):
        with torch.no_grad():
            head.w1.weight.copy_(torch.tensor([w1])), head.w2.weight.copy_(torch.tensor(w2)[:, None])
            head.w1.bias.zero_(), head.w2.bias.zero_()
    states = torch.tensor([[[1.0, 1.0], [0.0, -1.0], [7.0, 7.0]]])
    tower._states = lambda tokens, mask: states
    _, distances = tower.with_head_distances(torch.tensor([[5, 6, 0]]), torch.tensor([[True, True, False]]))
    # pairs 0-1, 0-2, 1-2. First layers (1, 0), (.6, 0), (1, 0)
    torch.testing.assert_close(distances["weights"], torch.tensor([[0.4, 0.0, 0.4]]))
    # attention of heads 0 and 1: 1/2, 1/2 in both dimensions; of head 2 in dimension 0: scores log 3 and 0, so 3/4, 1/4
    far = math.sqrt(2) / 4
    torch.testing.assert_close(distances["attention"], torch.tensor([[0.0, far, far]]))
    # pooled: (1/2, 0), (1/2, 0), (3/4, 0), together of norm sqrt(1/4 + 1/4 + 9/16) = 1.03078
    far = 0.25 / math.sqrt(17 / 16)
    torch.testing.assert_close(distances["embeddings"], torch.tensor([[0.0, far, far]]))


def naive_distances(tower, text):
    """The same of one text without padding, by loops over pairs of heads."""
    tokens, mask = tower.tokenize([text])
    states, _ = tower.gru(tower.embed(tokens))
    parts = [head(states, torch.ones_like(mask))[0] for head in tower.heads]
    norm = sum(part.square().sum() for part in parts).sqrt()
    found = {"weights": [], "attention": [], "embeddings": []}
    for i, first in enumerate(tower.heads):
        for j in range(i + 1, len(tower.heads)):
            second = tower.heads[j]
            found["weights"].append((first.w1.weight - second.w1.weight).square().sum().sqrt())
            apart = [head.w2(torch.tanh(head.w1(states[0]))).softmax(0) for head in (first, second)]
            found["attention"].append((apart[0] - apart[1]).square().sum().sqrt())
            found["embeddings"].append(((parts[i] - parts[j]) / norm).square().sum().sqrt())
    return {kind: torch.stack(values) for kind, values in found.items()}


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("texts", [["red"], [text for text in TEXTS if text]])
def test_head_distances_equal_a_loop_over_texts_forward_and_gradient(heads, texts):
    torch.manual_seed(0)
    tower = CharGRU(hidden=3, heads=heads, attention_hidden=4, max_length=40)
    tokens, mask = tower.tokenize(texts)
    padded = torch.nn.functional.pad(tokens, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
    pooled, distances = tower.with_head_distances(*padded)
    torch.testing.assert_close(pooled, tower(tokens, mask))
    naive = [naive_distances(tower, text) for text in texts]
    for kind, found in distances.items():
        expected = torch.stack([of_text[kind] for of_text in naive])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(gradients(found, tower), gradients(expected, tower), atol=1e-4, rtol=1e-3)


def gradients(values, tower):
    everything = list(tower.parameters())
    unused = sum(0 * parameter.sum() for parameter in everything)
    return torch.autograd.grad(values.sum() + unused, everything, retain_graph=True)


def test_equal_heads_are_at_distance_zero_and_have_a_finite_gradient():
    tower = CharGRU(hidden=3, heads=2, attention_hidden=4)
    tower.heads[1].load_state_dict(tower.heads[0].state_dict())
    _, distances = tower.with_head_distances(*tower.tokenize(["a red circle"]))
    for distance in distances.values():
        assert distance.tolist() == [[0.0]]
    sum(distance.sum() for distance in distances.values()).backward()
    assert all(p.grad.isfinite().all() for p in tower.parameters() if p.grad is not None)


def test_sizes_below_one_are_usage_errors():
    with pytest.raises(UsageError, match="heads"):
        CharGRU(heads=0)
