"""Rollouts cut and joined: every token, log-probability and support stays with its caption."""

import pytest
import torch

from capkit.decoding.truncation import pack
from capkit.train.rl.rollout import Rollout, concat_images, concat_samples, resize, trim
from capkit.types import CaptionBatch, Samples

VOCAB, PAD = 11, 0
LENGTHS = torch.tensor([[3, 5], [2, 2], [7, 4], [6, 3]])  # BOS and EOS included
COLUMNS = 8  # one more than the longest needs


def samples(lengths=LENGTHS, columns=COLUMNS, seed=0, truncated=True):
    generator = torch.Generator().manual_seed(seed)
    shape = (*lengths.shape, columns)
    mask = torch.arange(columns) < lengths[..., None]
    tokens = torch.randint(1, VOCAB, shape, generator=generator).masked_fill(~mask, PAD)
    logprobs = -torch.rand(*shape[:2], columns - 1, generator=generator).masked_fill(~mask[..., 1:], 0.0)
    support = pack(torch.rand(*shape[:2], columns - 1, VOCAB, generator=generator) < 0.5) if truncated else None
    texts = [[f"{seed}-{b}-{k}" for k in range(shape[1])] for b in range(shape[0])]
    ended = torch.rand(lengths.shape, generator=generator) < 0.5
    return Samples(texts, tokens, mask, ended, logprobs, support)


def captions(written):
    """Each caption with all that belongs to it, real positions only."""
    found = {}
    for b, texts in enumerate(written.texts):
        for k, text in enumerate(texts):
            real = written.mask[b, k]
            steps = real[1:]
            found[text] = (
                written.tokens[b, k][real].tolist(),
                bool(written.ended[b, k]),
                None if written.logprobs is None else written.logprobs[b, k][steps].tolist(),
                None if written.support is None else written.support[b, k][steps].tolist(),
            )
    return found


def test_trimming_drops_padding_alone():
    trimmed = trim(samples())
    assert trimmed.tokens.shape == (4, 2, 7)
    assert trimmed.support.shape[:3] == trimmed.logprobs.shape == (4, 2, 6)
    assert captions(trimmed) == captions(samples())


def test_widened_columns_are_padding_that_allows_every_token():
    wider = resize(samples(), 10, pad_token_id=9)
    assert captions(wider) == captions(samples())
    assert (wider.tokens[..., COLUMNS:] == 9).all()
    assert not wider.mask[..., COLUMNS:].any()
    assert (wider.logprobs[..., COLUMNS - 1 :] == 0).all()
    assert (wider.support[..., COLUMNS - 1 :, :] == 255).all()


def test_captions_of_nothing_but_bos_keep_one_token_to_predict():
    nothing = trim(samples(torch.ones(2, 1, dtype=torch.int64)))
    assert nothing.tokens.shape == (2, 1, 2)
    assert nothing.logprobs.shape == (2, 1, 1)


@pytest.mark.parametrize("truncated", [True, False])
def test_batches_of_unlike_width_are_joined_image_after_image(truncated):
    first = samples(truncated=truncated)
    second = samples(torch.tensor([[2, 9], [4, 4]]), columns=10, seed=1, truncated=truncated)
    joined = concat_images([first, second], PAD)
    assert joined.texts == first.texts + second.texts
    assert joined.tokens.shape == (6, 2, 10)
    assert (joined.support is None) is not truncated
    assert captions(joined) == captions(first) | captions(second)


def test_one_batch_joined_is_itself():
    assert captions(concat_images([samples()], PAD)) == captions(samples())


def test_samples_beside_others_stand_in_their_images_rows():
    greedy = samples(torch.tensor([[4], [9], [2], [3]]), columns=9, seed=1, truncated=False)
    both = concat_samples(samples(), greedy, PAD)
    assert both.texts == [[f"0-{b}-0", f"0-{b}-1", f"1-{b}-0"] for b in range(4)]
    assert both.tokens.shape == (4, 3, 9)
    assert both.logprobs is both.support is None
    found = captions(both)
    for text, (tokens, ended, *_) in (captions(samples()) | captions(greedy)).items():
        assert found[text][:2] == (tokens, ended)


def rollout():
    written = samples()
    batch = CaptionBatch(keys=list("abcd"), features=torch.arange(4.0)[:, None, None].expand(4, 1, 2))
    learned = written.mask[..., 1:].clone()
    learned[2, 1] = False
    return Rollout(batch, written, learned, torch.arange(8.0).view(4, 2))


@pytest.mark.parametrize("size", [None, 1, 2, 3, 4, 9])
def test_parts_hold_every_caption_once_with_what_belongs_to_it(size):
    whole = rollout()
    expected = captions(whole.samples)
    seen = {}
    for part in whole.parts(size):
        assert len(part.batch) <= (size or 4)
        seen |= captions(part.samples)
        for row, key in enumerate(part.batch.keys):
            image = "abcd".index(key)
            assert part.samples.texts[row] == whole.samples.texts[image]
            assert part.batch.features[row, 0, 0] == image
            assert torch.equal(part.advantages[row], whole.advantages[image])
            width = part.loss_mask.shape[-1]
            assert torch.equal(part.loss_mask[row], whole.loss_mask[image, :, :width])
            assert not whole.loss_mask[image, :, width:].any()
    assert seen == expected


def test_parts_are_cut_to_their_longest_and_images_of_like_length_stand_together():
    parts = list(rollout().parts(2))
    assert [part.batch.keys for part in parts] == [["b", "a"], ["d", "c"]]
    assert [part.samples.tokens.shape[-1] for part in parts] == [5, 7]


def test_a_rollout_in_one_part_keeps_its_order():
    (part,) = rollout().parts(None)
    assert part.batch.keys == list("abcd")
