"""Self-CIDEr (Wang & Chan 2019): how diverse the captions of one image are.

m captions of one image.
"""

import numpy as np
from jaxtyping import Float

from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.ngrams import MAX_ORDER, VOCABULARY, Sentences, count_ngrams
from capkit.text.checked import checked_texts


def cider_kernel(captions: list[str], frequencies: DocumentFrequencies) -> Float[np.ndarray, "m m"]:
    """Similarity matrix of tokenised captions: mean over n = 1 .. 4 of the cosine of TF-IDF n-gram vectors, in [0, 1].

    Plain CIDEr (Vedantam et al. 2015, equation 2) divided by 10. CIDEr-D's clipping and length penalty are left out,
    since with them it is not a kernel. A caption without weighted n-grams of some order has similarity 0 in that order,
    even with itself.
    """
    captions = checked_texts(captions, "captions")
    kernel = np.zeros((len(captions), len(captions)))
    sentences = Sentences.from_words([line.split() for line in captions])
    hashes = VOCABULARY.hashes()[sentences.ids]
    for counts in count_ngrams(sentences):
        vectors = np.zeros((len(captions), len(counts.word)))
        vectors[counts.sentence, counts.gram] = counts.count
        vectors *= frequencies.idf(counts.keys(hashes))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
        kernel += units @ units.T / MAX_ORDER
    return kernel


def kernel_diversity(kernel: Float[np.ndarray, "m m"]) -> float:
    """-log_m(sqrt(l_1) / sum sqrt(l_i)) with eigenvalues l_1 >= ... >= l_m (Wang & Chan 2019, section 3).

    0 for m equal captions, 1 for m captions that share nothing, 0 for an all-zero kernel (empty captions).
    """
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(kernel), 0, None))
    if len(roots) < 2 or roots[-1] == 0:
        return 0.0
    return max(0.0, float(-np.log(roots[-1] / roots.sum()) / np.log(len(roots))))


def self_cider(captions: list[str], frequencies: DocumentFrequencies) -> float:
    """Diversity in [0, 1] of the tokenised captions of one image."""
    return kernel_diversity(cider_kernel(captions, frequencies))
