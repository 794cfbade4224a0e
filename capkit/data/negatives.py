"""Edited captions as negative examples for a grammar head (Cho et al. 2022, arXiv 2205.13115)."""

from collections.abc import Iterable

from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from capkit.text.corruption import Edits, vocabulary_of

_NO_TOKEN = -1


class EditedCaptions:
    """One random edit of each training caption (`capkit/text/corruption.py`).

    Drawn by (seed, epoch, image, caption number). Inserted and swapped words come from the vocabulary of the training
    captions, to which the data module fits it.
    """

    def __init__(self) -> None:
        self._edits: Edits | None = None

    def fit(self, captions: Iterable[str]) -> None:
        """Build the vocabulary from these captions, unless there is one."""
        if self._edits is None:
            self._edits = Edits(vocabulary_of(captions))

    def __call__(self, captions: list[str], key: tuple[int, int, int]) -> list[str]:
        """Edit each caption of one image; `key` is (seed, epoch, index)."""
        assert self._edits is not None, "fit comes first"
        return [self._edits.draw(caption, *key, k).text for k, caption in enumerate(captions)]


def without_unchanged(
    negative_tokens: Int[Tensor, "B K J"],
    negative_mask: Bool[Tensor, "B K J"],
    tokens: Int[Tensor, "B K L"],
    mask: Bool[Tensor, "B K L"],
) -> Bool[Tensor, "B K J"]:
    """Clear the mask of negatives whose tokens equal those of their caption.

    Their texts always differ, but tokens may not: the edit can be beyond `max_length`, and unknown words share one
    token. Such a row would label a true caption as wrong.
    """
    length = max(tokens.shape[-1], negative_tokens.shape[-1])
    rows = [
        pad(ids.masked_fill(~real, _NO_TOKEN), (0, length - ids.shape[-1]), value=_NO_TOKEN)
        for ids, real in ((negative_tokens, negative_mask), (tokens, mask))
    ]
    return negative_mask & (rows[0] != rows[1]).any(-1, keepdim=True)
