"""BLEU of each caption as a reward (Papineni et al. 2002), with the COCO tools' smoothing.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.metrics.coco.bleu import bleu_scores
from capkit.scorers.flatten import caption_words, references_of, unflatten_scores
from capkit.text.ptb import ptb_words
from capkit.types import CaptionBatch, Samples


class Bleu:
    """BLEU-4 of each sample against its image's references, in 0 .. 1: the COCO tools' number for the image alone.

    Their smoothing adds 1e-15 to the matches of each order and 1e-9 to the n-grams: without a common 4-gram the score
    is about 0, and nearly flat. The end of a caption is no word here: one that breaks off loses by its length only.
    The mean of it is not the corpus's BLEU. A caption without a word scores 0.
    """

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Raises UsageError where an image has no reference."""
        references = [[" ".join(ptb_words(text)) for text in image] for image in references_of(batch, "Bleu")]
        own = [image for image, texts in zip(references, samples.texts, strict=True) for _ in texts]
        scores = bleu_scores([" ".join(words) for words in caption_words(samples)], own, tokenized=True)
        return unflatten_scores(scores[:, -1].tolist(), samples)

    def provenance(self) -> dict[str, Any]:
        return {"order": 4, "words": "PTB", "smoothing": "COCO: (matches + 1e-15) / (n-grams + 1e-9)"}
