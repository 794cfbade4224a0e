"""Claims that hold for all text towers."""

import pickle

import pytest
import torch
from text_tower_examples import BAGS, BUILD, TEXTS, build, embed, words
from torch import nn

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.bag_of_words import BagOfWords
from capkit.models.dual_encoders.text_towers.base import TextTower
from capkit.models.dual_encoders.text_towers.ngrams import NGrams


@pytest.fixture(params=list(BUILD))
def tower(request):
    return build(request.param)


def pad(tokens, mask, by, pad_id=0):
    return nn.functional.pad(tokens, (0, by), value=pad_id), nn.functional.pad(mask, (0, by))


def test_a_tower_meets_the_protocol_and_gives_its_width(tower):
    assert isinstance(tower, TextTower)
    assert embed(tower, TEXTS).shape == (len(TEXTS), tower.width)
    assert embed(tower, TEXTS[:1]).shape == (1, tower.width)


def test_a_text_alone_has_the_vector_that_it_has_in_a_batch(tower):
    together = embed(tower, TEXTS)
    alone = torch.cat([embed(tower, [text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_more_padding_changes_nothing_whatever_its_ids(tower):
    tokens, mask = tower.tokenize(TEXTS[:3])
    with torch.no_grad():
        plain = tower(tokens, mask)
        by = min(4, tower.tokenize.max_length - tokens.shape[1])
        assert by > 0
        torch.testing.assert_close(tower(*pad(tokens, mask, by)), plain, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(tower(*pad(tokens, mask, by, pad_id=2)), plain, atol=1e-5, rtol=1e-4)


def test_texts_without_words_and_rows_without_tokens_have_finite_vectors_and_gradients(tower):
    tokens, mask = tower.tokenize(["", "a star"])
    mask[0] = False
    out = tower(tokens, mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in tower.parameters() if p.grad is not None)
    torch.testing.assert_close(out[1:], tower(*tower.tokenize(["a star"])), atol=1e-5, rtol=1e-4)
    tower.zero_grad()


def test_every_trainable_weight_gets_a_gradient_and_no_other(tower):
    generator = torch.Generator().manual_seed(0)
    out = tower(*tower.tokenize(TEXTS))
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    for name, parameter in tower.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    tower.zero_grad()


@pytest.mark.parametrize("name", [name for name in BUILD if name not in BAGS])
def test_order_counts(name):
    first, swapped = embed(build(name), TEXTS[:2])
    assert (first - swapped).abs().max() > 1e-3


@pytest.mark.parametrize("name", BAGS)
def test_a_bag_is_bit_equal_for_the_same_words_in_any_order(name):
    tower = build(name)
    tokens, mask = tower.tokenize(TEXTS[:1])
    with torch.no_grad():
        plain = tower(tokens, mask)
        for seed in range(5):
            order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(seed))
            assert torch.equal(tower(tokens[:, order], mask), plain)
    assert torch.equal(*embed(tower, TEXTS[:2]).split(1))


def test_tokenizing_is_picklable_and_the_copy_gives_the_same_ids(tower):
    copy = pickle.loads(pickle.dumps(tower.tokenize))
    for ours, theirs in zip(tower.tokenize(TEXTS), copy(TEXTS), strict=True):
        assert torch.equal(ours, theirs)


def test_a_long_text_is_cut_and_counted(tower):
    long = "a red star " * 30
    tokens, mask = tower.tokenize([long, "a star"])
    assert tokens.shape[1] == tower.tokenize.max_length and mask[0].all()
    assert tower.tokenize.is_cut([long, "a star"]) == [True, False]
    assert tower.tokenize.is_cut([]) == []
    assert embed(tower, [long]).isfinite().all()


def test_towers_without_layers_have_no_blocks():
    assert {name for name in BUILD if not build(name).blocks()} == {
        name for name in BUILD if not name.endswith(("_eos", "_cls", "_mean"))
    }


def test_towers_that_read_the_same_weights_differently_are_told_apart_in_print():
    """Cached embeddings are kept under a hash of a tower's print and weights."""
    assert str(BagOfWords(words(), counts="tf")) != str(BagOfWords(words(), counts="binary"))
    assert str(NGrams(orders=[1, 2])) != str(NGrams(orders=[2, 3]))
    assert "pooling=cls" in str(build("bert_cls"))


@pytest.mark.parametrize("name", ["bag_tf", "conv"])
def test_a_tower_of_words_needs_a_tokenizer(name):
    with pytest.raises(UsageError, match="tokenizer=word"):
        type(build(name))()
