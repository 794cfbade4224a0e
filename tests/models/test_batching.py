"""Texts in batches of few shapes: what pads a batch changes no embedding of it."""

import pytest
import torch

from capkit.models.batching import embed_distinct, fixed_shape
from capkit.testing import models as tiny

TEXTS = ["red", "a red circle", "a blue square left of a red circle", "one circle", ""]


@pytest.mark.parametrize("model_type", ["clip", "chinese_clip", "siglip"])
def test_a_batch_of_fixed_shape_has_the_embeddings_of_its_texts(model_type):
    model = tiny.hf_two_tower(model_type).eval()
    tokens, mask = model.tokenize(TEXTS)
    padded_tokens, padded_mask = fixed_shape(tokens, mask, model.max_length)
    with torch.no_grad():
        plain, padded = model.embed_texts(tokens, mask), model.embed_texts(padded_tokens, padded_mask)
    assert len(padded) == 8 and padded_tokens.shape[1] == min(-(-tokens.shape[1] // 8) * 8, model.max_length)
    torch.testing.assert_close(padded[: len(TEXTS)], plain, rtol=0, atol=2e-6)
    torch.testing.assert_close(padded[-1], plain[-1], rtol=0, atol=2e-6)  # the last text, repeated


def test_added_columns_are_no_tokens():
    tokens, mask = fixed_shape(torch.ones(3, 5, dtype=torch.long), torch.ones(3, 5, dtype=torch.bool), 77)
    assert tokens.shape == (8, 8) and mask.sum() == 8 * 5 and not mask[:, 5:].any()


def test_captions_of_a_run_meet_few_shapes():
    """384 captions less those that are equal, in batches of 256, up to 77 tokens long: 70 of 19,712 shapes."""
    empty = torch.zeros(256, 77, dtype=torch.bool)

    def shape(rows: int, columns: int) -> tuple[int, ...]:
        return tuple(fixed_shape(empty[:rows, :columns].long(), empty[:rows, :columns], 77)[1].shape)

    assert {shape(rows, 77)[0] for rows in range(1, 257)} == {8, 16, 32, 64, 128, 192, 256}
    assert {shape(256, columns)[1] for columns in range(1, 78)} == {*range(8, 73, 8), 77}


def test_equal_texts_are_embedded_once_and_all_get_their_row():
    asked: list[str] = []

    def embed(texts):
        asked.extend(texts)
        return torch.tensor([[float(len(text))] for text in texts])

    assert embed_distinct(["bb", "a", "bb", "ccc"], embed, 2).flatten().tolist() == [2, 1, 2, 3]
    assert asked == ["a", "bb", "ccc"]
