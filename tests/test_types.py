import torch

from capkit.types import CaptionBatch


def three() -> CaptionBatch:
    mask = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[1, 0, 0, 0]]], dtype=torch.bool)
    return CaptionBatch(
        keys=["a", "b", "c"],
        pixels=torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 2, 2),
        tokens=torch.arange(12).view(3, 1, 4),
        mask=mask,
        references=[["ra"], ["rb"], ["rc"]],
        conditions={"bin": torch.tensor([5, 6, 7])},
    )


def test_selecting_rows_takes_every_field_along():
    chosen = three().select([2, 0])
    assert chosen.keys == ["c", "a"] and chosen.references == [["rc"], ["ra"]]
    assert chosen.pixels[:, 0, 0, 0].tolist() == [2.0, 0.0]
    assert chosen.tokens[:, 0, 0].tolist() == [8, 0]
    assert chosen.conditions["bin"].tolist() == [7, 5]
    assert chosen.metadata == []


def test_a_slice_is_a_selection():
    assert three()[1:].keys == ["b", "c"] and len(three()[:1]) == 1


def test_trimming_drops_the_columns_that_are_padding_everywhere_and_no_other():
    assert three().trim().tokens.shape == (3, 1, 3)
    assert three().select([0]).trim().tokens.tolist() == [[[0, 1]]]
    assert CaptionBatch(["a"]).trim().tokens is None


def test_moving_a_batch_moves_its_tensors_and_keeps_the_rest():
    moved = three().to("meta")
    assert moved.tokens.device.type == moved.conditions["bin"].device.type == "meta"
    assert moved.keys == ["a", "b", "c"]


def test_negatives_are_trimmed_by_their_own_mask():
    batch = three()
    batch.negative_tokens = torch.arange(18).view(3, 1, 6)
    batch.negative_mask = torch.arange(6).expand(3, 1, 6) < 5
    trimmed = batch.trim()
    assert trimmed.tokens.shape == (3, 1, 3) and trimmed.negative_mask.shape == (3, 1, 5)
    assert trimmed.negative_tokens[1, 0].tolist() == [6, 7, 8, 9, 10]
    assert batch.select([2]).negative_tokens[0, 0, 0] == 12
