"""CIDEr as the COCO tools compute it, which is CIDEr-D (Vedantam et al. 2015, section 5: clipped counts and a Gaussian
penalty on the length difference, sigma 6), times 10.

B images, K candidates per image, R references of all images, P (candidate, reference) pairs that share an n-gram.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from capkit.errors import UsageError
from capkit.metrics.coco.corpus import Corpus, ImageSentences
from capkit.metrics.coco.document_frequencies import WORDS, DocumentFrequencies, images_with_gram
from capkit.metrics.coco.ngrams import MAX_ORDER, VOCABULARY, NgramCounts, starts_of_runs
from capkit.text.checked import ScoreWarning
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # Cider is in `collected`

SIGMA = 6.0


def cider(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenized: bool = False,
    language: str = "en",
    document_frequencies: DocumentFrequencies | None = None,
) -> float:
    """Mean CIDEr-D of the images, in 0 .. 10 (papers print it times 100).

    Document frequencies come from `references`, unless a saved corpus is given. If they carry no information (a single
    image, or all references alike), the result is 0 and a ScoreWarning says why. `tokenized=True`: the texts are
    already words joined by spaces; else they are tokenized for `language`.
    """
    corpus = Corpus.from_texts(predictions, references, tokenized=tokenized, language=language)
    return float(cider_scores_of(corpus, document_frequencies).mean())


cider_d = cider  # the same: the COCO tools' "CIDEr" always was CIDEr-D


def cider_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenized: bool = False,
    language: str = "en",
    document_frequencies: DocumentFrequencies | None = None,
) -> Float[np.ndarray, " B"]:
    """CIDEr-D of each image, in 0 .. 10."""
    corpus = Corpus.from_texts(predictions, references, tokenized=tokenized, language=language)
    return cider_scores_of(corpus, document_frequencies)


def cider_scores_of(corpus: Corpus, document_frequencies: DocumentFrequencies | None = None) -> Float[np.ndarray, " B"]:
    if document_frequencies is None:
        scores = cider_d_from_ids(corpus.by_whitespace)[:, 0]
        if not scores.any() and not _has_idf(corpus.by_whitespace):
            _warn_of_no_idf(len(scores))
        return scores
    if document_frequencies.units != WORDS:
        raise UsageError(
            f"cider: expected document frequencies of {WORDS!r} (PTB words without EOS), got "
            f"{document_frequencies.units!r}; build them with DocumentFrequencies.from_references"
        )
    hashes = VOCABULARY.hashes()[corpus.by_whitespace.sentences.ids]
    return cider_d_from_ids(corpus.by_whitespace, document_frequencies, hashes)[:, 0]


def cider_d_from_ids(
    images: ImageSentences,
    document_frequencies: DocumentFrequencies | None = None,
    hashes: Int[np.ndarray, " W"] | None = None,
) -> Float[np.ndarray, "B K"]:
    """CIDEr-D of K candidates per image from word ids: the numpy core of metric and reward.

    Without `document_frequencies`, the images' own references are the corpus, as in pycocoevalcap. With them, `hashes`
    holds the hash of every word. `cider_d_padded` is the torch version.
    """
    num_images, num_candidates = len(images.num_references), images.num_candidates
    image = np.repeat(np.arange(num_images), images.num_references)  # of each reference
    similarity = np.zeros((len(image), num_candidates))
    for counts in images.ngrams:
        if document_frequencies is None:
            idf = np.log(float(num_images)) - np.log(np.maximum(images_with_gram(images, counts), 1))
        else:
            assert hashes is not None
            idf = document_frequencies.idf(counts.keys(hashes))
        similarity += _similarity(images, counts, idf)
    bigrams = images.sentences.num_bigrams  # pycocoevalcap's "length" is the number of bigrams, not of words
    candidate_length = bigrams[~images.is_reference].reshape(num_images, num_candidates)
    difference = candidate_length[image] - bigrams[images.is_reference][:, None].astype(np.float64)
    similarity *= np.exp(-(difference**2) / (2 * SIGMA**2))
    mean = np.add.reduceat(similarity, images.first_reference) / images.num_references[:, None]
    return 10 / MAX_ORDER * mean


def _has_idf(images: ImageSentences) -> bool:
    """Whether any n-gram occurs in the references of some images but not of others; else all have idf log 1 = 0."""
    num_images = len(images.num_references)
    frequencies = (images_with_gram(images, counts) for counts in images.ngrams)
    return any(bool(((found > 0) & (found < num_images)).any()) for found in frequencies)


def _warn_of_no_idf(num_images: int) -> None:
    if num_images == 1:
        cause = (
            "one image gives no document frequencies: each of its n-grams is in 1 of 1 images, with weight log 1 = 0"
        )
    else:
        cause = f"every n-gram of the references is in those of all {num_images} images, with weight log 1 = 0"
    warnings.warn(
        f"CIDEr is 0 for any captions, since {cause}; score the whole split, or use saved "
        "document_frequencies (docs/metrics.md)",
        ScoreWarning,
        stacklevel=4,
    )


def _similarity(images: ImageSentences, counts: NgramCounts, idf: Float[np.ndarray, " U"]) -> Float[np.ndarray, "R K"]:
    """Clipped cosine of tf-idf vectors of one order; 0 if a vector is all zero."""
    weight = counts.count * idf[counts.gram]
    norm = np.sqrt(np.bincount(counts.sentence, weight**2, len(images.image)))
    norm_c = norm[~images.is_reference].reshape(-1, images.num_candidates)
    norms = np.repeat(norm_c, images.num_references, axis=0) * norm[images.is_reference][:, None]  # (R K)
    candidate, reference = _shared(images, counts)
    reference_rank = np.cumsum(images.is_reference) - 1
    row = reference_rank[counts.sentence[reference]]
    column = images.place[counts.sentence[candidate]]
    product = np.minimum(weight[candidate], weight[reference]) * weight[reference]
    dots = np.bincount(row * images.num_candidates + column, product, norms.size).reshape(norms.shape)
    return np.divide(dots, norms, out=np.zeros(norms.shape), where=norms > 0)


def _shared(images: ImageSentences, counts: NgramCounts) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Pairs of entries of `counts` (candidate's, reference's) for each n-gram that the two share on one image.

    Entries of the same n-gram and image are consecutive, candidates first; each reference's entry is paired with all of
    those candidates.
    """
    is_reference = images.is_reference[counts.sentence]
    new_group = starts_of_runs(counts.gram) | starts_of_runs(images.image[counts.sentence])
    group = np.cumsum(new_group) - 1
    first = np.flatnonzero(new_group)
    num_candidates = np.bincount(group[~is_reference], minlength=len(first))
    reference = np.flatnonzero(is_reference)
    repeats = num_candidates[group[reference]]
    begin = np.repeat(first[group[reference]] - (np.cumsum(repeats) - repeats), repeats)
    return begin + np.arange(len(begin)), np.repeat(reference, repeats)
