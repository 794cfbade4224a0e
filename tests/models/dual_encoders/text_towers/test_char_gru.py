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


def test_diversity_penalty_is_the_cosine_of_the_heads_and_zero_for_one_head():
    tower = build("char_gru")  # two heads of width 12
    like, orthogonal = torch.zeros(12), torch.zeros(12)
    like[0], orthogonal[1] = 2.0, 3.0
    slanted = like + 2 * orthogonal / 3  # (2, 2): at 45 degrees
    pooled = torch.stack([torch.cat([like, other]) for other in (like, orthogonal, -like, slanted)])
    torch.testing.assert_close(tower.diversity_penalty(pooled), torch.tensor([1.0, 0.0, 0.0, math.sqrt(0.5)]))
    # with a margin of .5, distances of 0 and 1 - .7071 = .2929 fall short by .5 and .2071
    torch.testing.assert_close(tower.diversity_penalty(pooled, 0.5)[[0, 3]], torch.tensor([0.5, math.sqrt(0.5) - 0.5]))
    single = build("char_gru_two_layers")
    assert (single.diversity_penalty(torch.ones(3, single.width)) == 0).all()


def test_sizes_below_one_are_usage_errors():
    with pytest.raises(UsageError, match="heads"):
        CharGRU(heads=0)
