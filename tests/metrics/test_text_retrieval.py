import pytest
import torch
from torch.nn.functional import one_hot

from capkit.errors import UsageError
from capkit.metrics.text_retrieval import TextRetrieval, text_retrieval_ranks


class LetterEncoder:
    """Counts letters: "ab" lies between "a" and "b", and equal letters are equal vectors."""

    name, max_length = "letters", 64

    def encode_text(self, texts):
        codes = [torch.tensor([ord(letter) - ord("a") for letter in text or "z"]) for text in texts]
        return torch.stack([torch.nn.functional.normalize(one_hot(code, 26).sum(0).float(), dim=0) for code in codes])

    def to(self, device):
        return self


def _score(predictions, references, **kwargs):
    return TextRetrieval(LetterEncoder(), **kwargs).score(predictions, references, [{}] * len(predictions))


def test_captions_equal_to_a_reference_score_one():
    numbers = _score(["a", "b", "c"], [["a", "ab"], ["bc", "b"], ["c"]], at=(1, 2))
    assert numbers == {"text_pool": 3, "text_r1": 1, "text_r2": 1}


def test_a_constant_caption_scores_one_over_the_pool():
    references = [[letter, letter + "z"] for letter in "abcdefghij"]
    numbers = _score(["q"] * 10, references, at=(1, 5))  # as far from every reference
    assert numbers["text_r1"] == pytest.approx(1 / 10)
    assert numbers["text_r5"] == pytest.approx(1 / 2)


def test_the_constant_caption_of_one_image_scores_that_image_only():
    assert _score(["a"] * 4, [["a"], ["b"], ["c"], ["d"]], at=(1,))["text_r1"] == pytest.approx(1 / 4)


def test_an_image_counts_once_and_by_its_best_reference():
    # image 1 has ten references near "a", image 0 one exact: it still ranks first
    numbers = _score(["a", "b"], [["a", "q"], ["ab"] * 10], at=(1,))
    assert numbers["text_r1"] == pytest.approx(1.0)
    numbers = _score(["a", "a"], [["a", "q"], ["ab"] * 10], at=(1, 2))
    assert numbers["text_r1"] == pytest.approx(0.5)
    assert numbers["text_r2"] == 1  # ten references of one image take one place


def test_images_with_the_same_reference_share_the_hit():
    assert _score(["a", "a", "c"], [["a"], ["a"], ["c"]], at=(1,))["text_r1"] == pytest.approx((0.5 + 0.5 + 1) / 3)


@pytest.mark.parametrize("count, captions", [(1, 1), (2, 3), (17, 17), (13, 29)])
def test_blocks_equal_the_naive_ranking(monkeypatch, count, captions):
    random = torch.Generator().manual_seed(count)
    predictions, own = torch.randn(captions, 5, generator=random), torch.arange(captions) % count
    sizes = torch.randint(1, 5, (count,), generator=random)
    owner = torch.arange(count).repeat_interleave(sizes)
    references = torch.randn(len(owner), 5, generator=random)
    monkeypatch.setattr("capkit.metrics.text_retrieval._BLOCK_ELEMENTS", 3 * len(owner))
    ranks = text_retrieval_ranks(predictions, references, own, owner).expected().tolist()
    cosine = torch.nn.functional.cosine_similarity(predictions[:, None], references[None], dim=-1)
    for i in range(captions):
        best = torch.stack([cosine[i, owner == image].max() for image in range(count)])
        assert ranks[i] == 1 + int((best > best[own[i]]).sum())


def test_rows_of_one_image_stand_in_the_pool_once():
    metric = TextRetrieval(LetterEncoder(), at=(1,), confidence=0.9)
    rows = [("a", ["a"], "1"), ("b", ["a"], "1"), ("b", ["b"], "2"), ("b", ["b"], "2")]  # the last one is a repeat
    predictions, references, keys = (list(column) for column in zip(*rows, strict=True))
    numbers = metric.score(predictions, references, [{"key": key} for key in keys])
    assert numbers["text_pool"] == 2
    assert numbers["text_r1"] == pytest.approx(2 / 3)  # "b" for image 1 misses
    assert (numbers["text_r1_low"], numbers["text_r1_high"]) == (0.5, 1)  # images score 1/2 and 1


def test_order_of_rows_changes_nothing():
    metric = TextRetrieval(LetterEncoder(), at=(1, 2))
    rows = [("ab", ["a", "c"]), ("b", ["b"]), ("cd", ["de", "d"]), ("e", ["a"])]
    forward = metric.score(*(list(column) for column in zip(*rows, strict=True)), [{}] * 4)
    backward = metric.score(*(list(column) for column in zip(*rows[::-1], strict=True)), [{}] * 4)
    assert forward == pytest.approx(backward)


def test_intervals_hold_the_number():
    references = [[letter] for letter in "abcdefghijkl"]
    numbers = _score(list("abcdefxxxxxx"), references, at=(1,), confidence=0.95)
    assert numbers["text_r1_low"] < numbers["text_r1"] < numbers["text_r1_high"]


def test_the_state_gives_the_same_numbers_as_score():
    metric = TextRetrieval(LetterEncoder())
    metric.update(["a", "b"], [["a"], ["c"]], [{"key": "1"}, {"key": "2"}])
    metric.update(["c"], [["c", "d"]], [{"key": "3"}])
    assert metric.compute() == pytest.approx(_score(["a", "b", "c"], [["a"], ["c"], ["c", "d"]]))
    assert metric.provenance()["scorer"] == "letters"


def test_an_image_without_references_is_an_error():
    with pytest.raises(UsageError, match="none for 1 images"):
        _score(["a", "b"], [["a"], []])


def test_impossible_arguments_are_errors():
    with pytest.raises(UsageError, match="expected at to list"):
        TextRetrieval(LetterEncoder(), at=())
    with pytest.raises(UsageError, match="confidence"):
        TextRetrieval(LetterEncoder(), confidence=95.0)
