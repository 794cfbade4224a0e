"""ROUGE-L as the COCO tools compute it (Lin and Och 2004, beta 1.2), from longest common subsequences of words.

B images, P (prediction, reference) pairs, L and M words of the longest prediction and reference at hand.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from capkit.metrics.coco.corpus import Corpus
from capkit.metrics.coco.ngrams import Sentences
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # RougeL is in `collected`

_BETA = 1.2
_PAIRS_AT_ONCE = 4096  # pairs of similar length: little padding, and the arrays fit the cache


def rouge_l(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False, language: str = "en"
) -> float:
    """Mean ROUGE-L of the images, in 0 .. 1.

    `tokenized=True`: the texts are already words joined by spaces; else they are tokenized for `language`.
    """
    return float(rouge_l_scores(predictions, references, tokenized=tokenized, language=language).mean())


def rouge_l_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False, language: str = "en"
) -> Float[np.ndarray, " B"]:
    """ROUGE-L of each image: F-measure of the best precision and the best recall over its references.

    As in pycocoevalcap, words are separated by single spaces, so that an empty text is one empty word, and two empty
    texts score 1.
    """
    return rouge_l_scores_of(Corpus.from_texts(predictions, references, tokenized=tokenized, language=language))


def rouge_l_scores_of(corpus: Corpus) -> Float[np.ndarray, " B"]:
    images = corpus.by_single_spaces
    lengths = images.sentences.lengths
    reference = np.flatnonzero(images.is_reference)
    prediction = np.repeat(np.flatnonzero(~images.is_reference), images.num_references)
    common = longest_common_subsequence(images.sentences, prediction, reference)
    precision = np.maximum.reduceat(common / lengths[prediction], images.first_reference)
    recall = np.maximum.reduceat(common / lengths[reference], images.first_reference)
    denominator = recall + _BETA**2 * precision
    matched = denominator > 0
    return np.where(matched, (1 + _BETA**2) * precision * recall / np.where(matched, denominator, 1.0), 0.0)


def longest_common_subsequence(
    sentences: Sentences, left: Int[np.ndarray, " P"], right: Int[np.ndarray, " P"]
) -> Int[np.ndarray, " P"]:
    """Length in words of the longest common subsequence of each pair of sentences, given by index."""
    common = np.zeros(len(left), np.int64)
    order = np.lexsort((sentences.lengths[right], sentences.lengths[left]))
    for start in range(0, len(order), _PAIRS_AT_ONCE):
        pairs = order[start : start + _PAIRS_AT_ONCE]
        common[pairs] = _lcs(_columns(sentences, left[pairs], -1), _columns(sentences, right[pairs], -2))
    return common


def _columns(sentences: Sentences, rows: Int[np.ndarray, " P"], padding: int) -> Int[np.ndarray, "L P"]:
    """The given sentences as columns. Padding is negative, unlike word ids, and matches nothing."""
    lengths = sentences.lengths[rows]
    begin = np.cumsum(sentences.lengths)[rows] - lengths
    position = np.arange(lengths.max())[:, None]
    inside = position < lengths
    return np.where(inside, sentences.ids[np.where(inside, begin + position, 0)], padding)


def _lcs(left: Int[np.ndarray, "L P"], right: Int[np.ndarray, "M P"]) -> Int[np.ndarray, " P"]:
    """Dynamic programming by rows, for all pairs at once.

    A row of the table never decreases from left to right, so that taking the left neighbour's value is a running
    maximum. It is computed by doubling, since numpy's `accumulate` is ten times slower on short columns.
    """
    row = np.zeros((len(right) + 1, right.shape[1]), np.int32)
    for words in left:
        np.maximum(row[1:], row[:-1] + (right == words), out=row[1:])
        step = 1
        while step < len(row):
            np.maximum(row[step:], row[:-step], out=row[step:])
            step *= 2
    return row[-1].astype(np.int64)
