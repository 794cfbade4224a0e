"""A data module of what files say of pictures: pairs of captions, ratings."""

from capkit.data.datamodule import CaptionDataModule


class ItemDataModule(CaptionDataModule):
    """As CaptionDataModule, where the task puts items about pictures of `train` in the place of train and val.

    Epochs are of items: the task says how many there are (`expect`) before the run's length is asked for. `val` itself
    is never read, and may be null.
    """

    _num_items: int | None = None

    def expect(self, num_items: int) -> None:
        """Of the train split."""
        self._num_items = num_items

    @property
    def num_examples(self) -> int:
        return super().num_examples if self._num_items is None else self._num_items

    @property
    def has_validation(self) -> bool:
        return True
