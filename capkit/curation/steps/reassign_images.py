"""Pairs captions with the best of the pictures that were generated for them (SynC, Kim et al. 2025, arXiv 2507.18616).

N captions, n of them kept, M pictures, D width of the dual encoder.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from capkit.curation.base import Failure, Records
from capkit.curation.feature_files import file_digest
from capkit.curation.mining.cross import CrossSearch, check_widths
from capkit.curation.mining.search import QUERIES
from capkit.curation.pool import Pool, PoolVectors, Read
from capkit.curation.reassignment import (
    Candidates,
    Pairing,
    best_first,
    own_pictures,
    pair_by_cycle,
    pair_by_similarity,
)
from capkit.curation.step_bases import ReportingStep
from capkit.data.records import Record
from capkit.errors import UsageError, did_you_mean
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.utils.files import write_atomically
from capkit.utils.ranges import PositiveInt, Range, check_ranges
from capkit.utils.text_files import existing_file

MAPPINGS = ("one_to_many", "one_to_one")
SCORES = ("cycle", "cosine")


@check_ranges
class ReassignImages(ReportingStep):
    """Records, one a picture, with the captions that fit it best, whichever record they came with; others are left out.

    Each caption has the `num_images` pictures nearest to it as candidates (text to image). A candidate's score is the
    larger cosine of sentence embeddings of the caption and of the `num_captions` captions nearest to the picture (image
    to text). The best candidate is taken, of equal ones the most similar, and then the captions with the best scores, a
    share `keep` of those that have a picture. One picture may serve many captions. The defaults are the paper's.

    Ablations: `mapping=one_to_one` keeps each caption at its own picture and scores that; `score=cosine` takes the
    cosine of caption and picture as the score, and needs no sentence encoder.

    A picture that cannot be read is no candidate: it is reported, and its captions may go to others. A picture that no
    kept caption chose is reported. Each caption gets its score; metadata `reassigned` has, for each, the record that it
    came `from` and the `similarity` of caption and picture. `smallcap_file` also gets the pairs as SmallCap reads them,
    {key: [captions]}, best pairs first.

    `counts`: `captions`; of these `empty` and, in the dual encoder, `cut`; pairs `kept`, `below_cut` and
    `without_picture`; of those kept, `moved` to another picture; `pictures` that are candidates, of these `chosen`.

    Embeddings and searches are kept in `cache_dir`, by all that they depend on: a run that was stopped goes on there,
    and another `keep` costs no search. All arithmetic on vectors is exact (capkit/curation/mining/cross.py), so that
    `chunk_size` and `batch_size` change nothing.

    Vectors may come from files instead: `image_features_file`, a row a record, and `caption_features_file` and
    `sentence_features_file`, a row a caption, in the order of the records. They are normalised.

    Raises UsageError without captions, without a readable picture, and for files that are no such vectors.
    """

    name = "reassign_images"
    writes_source = ""

    def __init__(
        self,
        encoder: CacheableEncoder | None = None,
        sentence_encoder: Any = None,
        mapping: str = "one_to_many",
        score: str = "cycle",
        num_images: PositiveInt = 15,
        num_captions: PositiveInt = 2,
        keep: Annotated[float | int, Range(above=0, high=1)] = 0.9,
        image_features_file: str | None = None,
        caption_features_file: str | None = None,
        sentence_features_file: str | None = None,
        smallcap_file: str | None = None,
        chunk_size: PositiveInt = QUERIES,
        batch_size: PositiveInt = 64,
        cache_dir: str = "data/reassigned",
    ) -> None:
        for name, value, known in (("mapping", mapping, MAPPINGS), ("score", score, SCORES)):
            if value not in known:
                raise UsageError(f"reassign_images: there is no {name} {value!r}; {did_you_mean(value, known)}")
        if (image_features_file is None) != (caption_features_file is None):
            raise UsageError(
                "reassign_images: expected image_features_file and caption_features_file of one encoder, or neither; "
                f"got {image_features_file=}, {caption_features_file=}"
            )
        _check_one("encoder", encoder, "image_features_file and caption_features_file", image_features_file)
        if score == "cycle":
            _check_one("sentence_encoder", sentence_encoder, "sentence_features_file", sentence_features_file)
        self.mapping, self.score, self.keep = mapping, score, keep
        self.num_images, self.num_captions = num_images, num_captions
        self._encoder, self._sentence_encoder = encoder, sentence_encoder if score == "cycle" else None
        files = {
            "images": image_features_file,
            "captions": caption_features_file,
            "sentences": sentence_features_file if score == "cycle" else None,
        }
        self._files = {side: existing_file(path, f"features of {side}") for side, path in files.items() if path}
        self._smallcap = None if smallcap_file is None else Path(smallcap_file)
        self._chunk_size, self._batch_size, self._cache_dir = chunk_size, batch_size, Path(cache_dir)
        self._read: Read | None = None
        self.counts: dict[str, int] = {}

    def attach_images(self, read: Read) -> None:
        """`read` gives the picture of a record's key, or raises BadImage."""
        self._read = read

    def fingerprint_fields(self) -> dict[str, Any]:
        settings = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "counts"}
        embedded = {
            "images": self._encoder and self._encoder.fingerprint_fields("image"),
            "captions": self._encoder and self._encoder.fingerprint_fields("text"),
            "sentences": self._sentence_encoder and self._sentence_encoder.fingerprint_fields("text"),
        }
        return {**settings, **embedded, **{side: file_digest(path) for side, path in self._files.items()}}

    def __call__(self, records: Records) -> Iterator[Record]:
        pool = Pool.of(records())
        folder = self._cache_dir / "embeddings"
        vectors = PoolVectors(pool, self._encoder, self._sentence_encoder, self._files, folder, self._batch_size)
        places, images = vectors.images(self._picture, self._drop)
        pairing = self._paired(pool, places, images, vectors)
        taken = best_first(pairing, self.keep)
        chosen = places[pairing.pictures[taken]]  # places of records
        self._count(pool, len(places), pairing, taken, chosen)
        if self._smallcap is not None:
            self._write_smallcap(pool, taken, chosen)
        captions_of: dict[int, list[int]] = {}
        for caption, record in sorted(zip(taken.tolist(), chosen.tolist(), strict=True)):
            captions_of.setdefault(record, []).append(caption)
        readable = set(places.tolist())
        for place, record in enumerate(records()):
            if place in captions_of:
                yield self._with(record, captions_of[place], pool, pairing)
            elif place in readable:
                self._drop(record.key, "no caption was paired with this picture")

    def _picture(self, key: str) -> UInt8[np.ndarray, "H W 3"]:
        if self._read is None:
            raise UsageError("reassign_images looks at pictures; call attach_images, or run it by task=curate")
        return self._read(key)

    def _drop(self, key: str, reason: str) -> None:
        self._report(Failure(key, self.name, reason))

    def _paired(self, pool: Pool, places: Int[np.ndarray, " M"], images: np.ndarray, vectors: PoolVectors) -> Pairing:
        """The pairs, pictures by their places in `images` (M D)."""
        captions = vectors.captions()
        check_widths(captions, images)
        candidates = self._candidates(pool, places, images, captions)
        if self.score == "cosine":
            return pair_by_similarity(candidates)
        found = self._search(images, captions, min(self.num_captions, len(captions)))
        captions_of = np.concatenate([indices for indices, _ in found])
        return pair_by_cycle(candidates, captions_of, vectors.sentences())

    def _candidates(
        self,
        pool: Pool,
        places: Int[np.ndarray, " M"],
        images: Float[np.ndarray, "M D"],
        captions: Float[np.ndarray, "N D"],
    ) -> Iterator[Candidates]:
        if self.mapping == "one_to_many":
            return iter(self._search(captions, images, min(self.num_images, len(images))))
        place_of = np.full(len(pool.keys), -1)
        place_of[places] = np.arange(len(places))
        return own_pictures(place_of[pool.owners], captions, images, self._chunk_size)

    def _search(
        self, queries: Float[np.ndarray, "N D"], database: Float[np.ndarray, "M D"], num_neighbors: int
    ) -> CrossSearch:
        return CrossSearch(queries, database, num_neighbors, self._cache_dir / "searches", self._chunk_size)

    def _count(
        self, pool: Pool, num_images: int, pairing: Pairing, taken: Int[np.ndarray, " n"], chosen: Int[np.ndarray, " n"]
    ) -> None:
        num_pairs = int((pairing.pictures >= 0).sum())
        self.counts = {
            "captions": pool.num_rows,
            "empty": pool.num_rows - len(pool.captions),
            "cut": 0 if self._encoder is None else sum(self._encoder.is_cut(pool.texts())),
            "kept": len(taken),
            "below_cut": num_pairs - len(taken),
            "without_picture": len(pool.captions) - num_pairs,
            "moved": int((chosen != pool.owners[taken]).sum()),
            "pictures": num_images,
            "chosen": len(set(chosen.tolist())),
        }

    def _write_smallcap(self, pool: Pool, taken: Int[np.ndarray, " n"], chosen: Int[np.ndarray, " n"]) -> None:
        assert self._smallcap is not None
        pairs: dict[str, list[str]] = {}
        for caption, record in zip(taken.tolist(), chosen.tolist(), strict=True):
            pairs.setdefault(pool.keys[record], []).append(pool.captions[caption].text)
        write_atomically(self._smallcap, json.dumps(pairs, ensure_ascii=False) + "\n")

    def _with(self, record: Record, captions: list[int], pool: Pool, pairing: Pairing) -> Record:
        """The record with these captions."""
        rows = [{"from": pool.keys[pool.owners[i]], "similarity": float(pairing.similarities[i])} for i in captions]
        scored = [replace(pool.captions[i], score=float(pairing.scores[i])) for i in captions]
        return replace(record, captions=scored, metadata={**record.metadata, "reassigned": rows})


def _check_one(name: str, encoder: Any, files: str, path: str | None) -> None:
    if (encoder is None) == (path is None):
        got = "neither" if encoder is None else "both"
        raise UsageError(
            f"reassign_images: expected {name} or {files}, got {got}; with files say step.reassign_images.{name}=null"
        )
