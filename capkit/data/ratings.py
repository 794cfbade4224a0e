"""Rated captions as training data: the pictures of a data source, each with all captions of a rating."""

from collections.abc import Sequence
from dataclasses import replace

from capkit.data.about_pictures import AboutPictures, OfFiles, refuse_shared
from capkit.data.dataset import CaptionDataset
from capkit.data.item_data import ItemDataModule
from capkit.data.loader import Batches, CaptionLoader
from capkit.data.rating_files import Rating
from capkit.data.records import Caption, Record
from capkit.data.sources.base import DataSource, picture_file, prepare_source
from capkit.data.targets import Target


class RatedPictures(AboutPictures[Rating]):
    """One record a rating: its picture in `source`, with the rated captions; a caption's score is its grade."""

    def as_record(self, record: Record, number: int, item: Rating) -> Record:
        graded = zip(item.captions, item.grades, strict=True)
        captions = [Caption(text, source="rating", score=grade) for text, grade in graded]
        return replace(record, captions=captions, regions=[])


class RatedPicturesOfFiles(RatedPictures, OfFiles[Rating]):
    """The same of a source whose pictures are files."""


def rated_pictures(source: DataSource, ratings: Sequence[Rating], what: str, split: str) -> RatedPictures:
    kind = RatedPicturesOfFiles if picture_file(source) is not None else RatedPictures
    return kind(source, ratings, what, split)


class RatingDataset(CaptionDataset):
    """Ratings of one split: of each picture `tokens` has a row a caption, and `scores` their grades, in their order."""

    def _drawn(self, targets: list[Target], key: tuple[int, int, int]) -> list[Target]:
        return targets

    def _first(self, targets: list[Target]) -> list[Target]:
        return targets


class RatingDataModule(ItemDataModule):
    """As CaptionDataModule, with ratings in train and val, about the pictures of `train`, and in test, about `test`'s.

    The task gives the ratings by `take`, before loaders are built.
    """

    def take(self, train: Sequence[Rating], val: Sequence[Rating], test: Sequence[Rating] | None = None) -> None:
        """Raises UsageError for ratings of pictures that their split does not have."""
        given, rated = [("train", train, "train"), ("val", val, "train")], {}
        for split, ratings, pictures in [*given, *([] if test is None else [("test", test, "test")])]:
            source = self.source(pictures)
            prepare_source(source)
            rated[split] = rated_pictures(source, ratings, f"{split} ratings", pictures)
        refuse_shared(rated["train"], rated["val"], self.source("train"), "rating")
        self.sources |= rated
        self._keys.clear()

    def _loader(self, split: str, batches: Batches, is_training: bool = False) -> CaptionLoader:
        dataset = RatingDataset(
            self.source(split), split, self.transform, self.features, self._encode, 1, self.seed, is_training,
            decode=self.decode, is_raw=is_training and self.trains_on_gpu,
        )  # fmt: skip
        return CaptionLoader(dataset, batches, self._log, self.max_skipped, self.num_workers)
