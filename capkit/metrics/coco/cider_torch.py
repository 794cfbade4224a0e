"""CIDEr-D of padded id tensors, on CPU or GPU: the torch version of `cider_d_from_ids`.

B images, K candidates, R references, T = K + R sentences of an image, L words, U n-grams of the corpus.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.metrics.coco.cider import SIGMA
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.ngrams import MAX_ORDER, MULTIPLIER, hash_ids

_COMPARISONS_AT_ONCE = 2**27  # one byte each; larger batches are scored in several passes


@dataclass(frozen=True)
class IdfTable:
    """Document frequencies on a device. The dtype of `idf` is used for all arithmetic."""

    keys: Int[Tensor, " U"]
    idf: Float[Tensor, " U"]
    unseen: float

    @classmethod
    def from_frequencies(
        cls, frequencies: DocumentFrequencies, device: torch.device | str, dtype: torch.dtype
    ) -> "IdfTable":
        idf = torch.from_numpy(frequencies.idf(frequencies.keys)).to(device, dtype)
        unseen = float(torch.tensor(float(frequencies.num_images), dtype=torch.float64).log())
        return cls(torch.from_numpy(frequencies.keys).to(device), idf, unseen)

    def __call__(self, keys: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        index = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[index] == keys, self.idf[index], self.unseen)


def cider_d_padded(
    candidates: Int[Tensor, "B K L"],
    candidate_lengths: Int[Tensor, "B K"],
    references: Int[Tensor, "B R M"],
    reference_lengths: Int[Tensor, "B R"],
    num_references: Int[Tensor, " B"],
    table: IdfTable,
) -> Float[Tensor, "B K"]:
    """CIDEr-D of each candidate against its image's first `num_references` references, in 0 .. 10.

    Rows are left-aligned; entries beyond a row's length are ignored. Equals the numpy core to 1e-9 in float64, to 1e-4
    in float32. Compares every n-gram with every other of the image, which takes few kernels and no host sync.
    """
    num_candidates, width = candidates.shape[1], max(candidates.shape[2], references.shape[2])
    tokens = torch.cat([_widen(candidates, width), _widen(references, width)], dim=1)  # (B T L)
    lengths = torch.cat([candidate_lengths, reference_lengths], dim=1)
    per_image = MAX_ORDER * num_candidates * references.shape[1] * width**2
    step = max(_COMPARISONS_AT_ONCE // max(per_image, 1), 1)
    similarity = torch.cat(
        [
            _similarity(tokens[b : b + step], lengths[b : b + step], num_candidates, table)
            for b in range(0, len(tokens), step)
        ]
    )  # (B K R)
    real = torch.arange(references.shape[1], device=tokens.device) < num_references[:, None]
    return 10 * (similarity * real[:, None]).sum(-1) / num_references[:, None]


def _similarity(
    tokens: Int[Tensor, "B T L"], lengths: Int[Tensor, "B T"], num_candidates: int, table: IdfTable
) -> Float[Tensor, "B K R"]:
    """Mean over orders of the clipped cosine, times the length penalty, for each candidate and reference.

    Sums run over occurrences, each divided by its n-gram's count, which equals a sum over distinct n-grams.
    """
    keys, real = _ngram_keys(tokens, lengths)  # (N B T L)
    idf = torch.where(real, table(keys), 0.0)
    count = ((keys[..., :, None] == keys[..., None, :]) & real[..., None, :]).sum(-1)  # (N B T L)
    norm = (count * idf**2).sum(-1).sqrt()  # (N B T)
    keys_c, keys_r = keys[:, :, :num_candidates, None, :, None], keys[:, :, None, num_candidates:, None, :]
    same = (keys_c == keys_r) & real[:, :, None, num_candidates:, None, :]  # (N B K R L L)
    count_c, count_r = count[:, :, :num_candidates, None].clamp(min=1), same.sum(-1)  # (N B K R L)
    shared = torch.minimum(count_c, count_r) * count_r / count_c.to(idf.dtype)
    dots = (shared * idf[:, :, :num_candidates, None] ** 2).sum(-1)  # (N B K R)
    norms = norm[:, :, :num_candidates, None] * norm[:, :, None, num_candidates:]
    cosine = torch.where(norms > 0, dots / norms, 0.0).mean(0)  # (B K R)
    bigrams = (lengths - 1).clamp(min=0).to(idf.dtype)
    difference = bigrams[:, :num_candidates, None] - bigrams[:, None, num_candidates:]
    return cosine * torch.exp(-(difference**2) / (2 * SIGMA**2))


def _ngram_keys(
    tokens: Int[Tensor, "B T L"], lengths: Int[Tensor, "B T"]
) -> tuple[Int[Tensor, "N B T L"], Bool[Tensor, "N B T L"]]:
    """Key of the n-gram of order 1 .. N that begins at each word, and whether the sentence is long enough for it."""
    hashes = hash_ids(tokens)
    keys = [hashes]
    for _ in range(1, MAX_ORDER):
        hashes = F.pad(hashes[..., 1:], (0, 1))
        keys.append(keys[-1] * MULTIPLIER + hashes)
    position = torch.arange(tokens.shape[-1], device=tokens.device)
    order = torch.arange(1, MAX_ORDER + 1, device=tokens.device)[:, None, None, None]
    return torch.stack(keys), position + order <= lengths[..., None]


def _widen(tokens: Tensor, width: int) -> Tensor:
    return F.pad(tokens, (0, width - tokens.shape[-1]))
