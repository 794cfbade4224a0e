"""Which module said each word of a caption, and where it looked."""

from dataclasses import replace

import pytest
import torch
from test_modular_captioner import batch_for, build

from capkit.decoding.config import Decoding
from capkit.models.captioners.word_modules import word_modules
from capkit.text.word_classes import MODULES


@pytest.fixture
def batch():
    features = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(2))
    return replace(batch_for(build()), pixels=None, features=features)


@torch.no_grad()
def test_looks_are_the_attention_of_the_visual_modules_by_their_weights(batch):
    model = build(blocks=2)
    block, seen = model.decoder.blocks[-1], []
    block.register_forward_pre_hook(lambda block, args: seen.append(args))
    context = model.encode(batch)
    weights, looks = model.weights_and_looks(context, batch.tokens)
    torch.testing.assert_close(weights, model.with_weights(context, batch.tokens[..., :-1])[1][..., -1, :])
    torch.testing.assert_close(looks.sum(-1), torch.ones(looks.shape[:-1]))
    place, row = 3, 5
    x, image, number, states, *_ = seen[place]
    given = torch.cat([states[2], image.image.repeat_interleave(len(x) // 8, 0), x], -1)
    query, _ = block.attend(given, (states[0], states[1]))
    expected, total = torch.zeros(4), 0.0
    captions = batch.tokens.shape[1]
    for look, name in zip(block.look, ("object", "relation", "attribute"), strict=True):
        keys = image.keys[number][("object", "relation", "attribute").index(name)][row // captions]
        scores = look.score(torch.tanh(keys + look.of_query(query[row])))[:, 0]
        weight = float(weights.flatten(0, 1)[row, place, MODULES.index(name)])
        expected, total = expected + weight * scores.softmax(0), total + weight
    torch.testing.assert_close(looks.flatten(0, 1)[row, place], expected / total, atol=1e-5, rtol=1e-4)
    assert not block.look[0]._forward_pre_hooks


@torch.no_grad()
def test_words_have_weights_and_a_cell_or_a_region(batch):
    model = build()
    samples = model.generate(model.encode(batch), Decoding(max_length=8))
    found = word_modules(model, model.encode(batch), samples)
    assert len(found) == 8 and any(found)
    for words, text in zip(found, samples.texts, strict=True):
        assert [word["word"] for word in words] == text[0].replace(",", " ").split()
    told = [word for words in found for word in words]
    assert all(abs(sum(word["weights"]) - 1) < 1e-3 for word in told)
    cells = ([0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0])
    for word in told:
        function = max(range(4), key=word["weights"].__getitem__) == MODULES.index("function")
        assert ("cell" in word) != function and word.get("cell", cells[0]) in cells
    mask = torch.ones(8, 4, dtype=torch.bool)
    mask[:, 1:] = False
    one = replace(batch, features_mask=mask)
    regions = word_modules(model, model.encode(one), model.generate(model.encode(one), Decoding(max_length=8)))
    assert {word.get("region", 0) for words in regions for word in words} == {0}
