"""What a picture adds to each token, of every captioner: by hand, by a naive loop, in any batch, behind any padding."""

import math

import pytest
import torch
from tiny_captioners import batch_for, build

from capkit.decoding.guided import LEAST
from capkit.models.captioners.picture_gains import picture_gains
from capkit.types import Context


def gains(captioner, batch):
    return picture_gains(captioner, captioner.encode(batch), batch.tokens, batch.mask)


class Table:
    """The next token by whether there is a picture, whatever the tokens before."""

    with_picture, without = torch.tensor([0.0, math.log(3.0)]), torch.tensor([5.0, 5.0])  # 1/4 and 3/4; 1/2 each

    def logprobs(self, context, tokens, mask):
        table = self.with_picture if context.states.any() else self.without
        return table.log_softmax(-1)[tokens[..., 1:]] * mask[..., 1:]


def test_a_gain_by_hand():
    """ln (1/4 / 1/2) and ln (3/4 / 1/2). The logits without a picture are both 5: their offset means nothing."""
    context = Context(torch.ones(1, 1, 2), None, ["0"])
    tokens, mask = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[True, True, True, False]]])
    expected = torch.tensor([[[math.log(0.5), math.log(1.5), 0.0]]])
    assert torch.allclose(picture_gains(Table(), context, tokens, mask), expected)


def test_what_is_impossible_without_the_picture_gains_a_finite_amount():
    table = Table()
    table.without = torch.tensor([-math.inf, 0.0])
    found = picture_gains(
        table, Context(torch.ones(1, 1, 2), None, ["0"]), torch.tensor([[[0, 0]]]), torch.ones(1, 1, 2).bool()
    )
    assert found.item() == pytest.approx(math.log(0.25) - LEAST)


@torch.no_grad()
def test_equals_a_naive_loop(captioner, batch):
    """Image by image, caption by caption, one token more at a time; both softmaxes are over the whole vocabulary."""
    found = gains(captioner, batch)
    for image in range(len(batch)):
        context = captioner.encode(batch[image : image + 1])
        blank = context.without_image()
        for k in range(batch.tokens.shape[1]):
            for place in range(1, batch.tokens.shape[2]):
                if not batch.mask[image, k, place]:
                    assert found[image, k, place - 1] == 0
                    continue
                start = batch.tokens[image : image + 1, k : k + 1, :place]
                token = batch.tokens[image, k, place]
                logits = [captioner(c, start, torch.ones_like(start).bool())[0, 0, -1] for c in (context, blank)]
                with_picture, without = (row[: captioner.vocab_size].log_softmax(-1)[token] for row in logits)
                assert torch.allclose(found[image, k, place - 1], with_picture - without, atol=2e-4)


@torch.no_grad()
def test_padding_is_not_attended(captioner, batch):
    found = gains(captioner, batch)
    batch.tokens = torch.nn.functional.pad(batch.tokens, (0, 5), value=3)
    batch.mask = torch.nn.functional.pad(batch.mask, (0, 5))
    longer = gains(captioner, batch)
    assert torch.allclose(longer[..., : found.shape[-1]], found, atol=1e-5) and not longer[..., found.shape[-1] :].any()


@torch.no_grad()
def test_gains_do_not_depend_on_the_batch(captioner, batch):
    found = gains(captioner, batch)
    rows = [5, 0, 3]
    assert torch.allclose(gains(captioner, batch.select(rows)), found[rows], atol=1e-5)


@torch.no_grad()
def test_another_picture_gains_other_amounts():
    captioner = build("encoder_decoder")
    batch = batch_for(captioner)
    found = gains(captioner, batch)
    batch.pixels = batch.pixels.roll(1, 0)
    assert (gains(captioner, batch) - found).abs().max() > 0.01
