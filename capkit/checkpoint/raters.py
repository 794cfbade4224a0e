"""A rater that capkit trained, from its run: what rewards, metrics and data steps score captions by."""

from pathlib import Path

from capkit.checkpoint.loading import model_from_checkpoint, read_checkpoint
from capkit.errors import UsageError
from capkit.models.raters.base import Rater


def load_rater(ckpt: str | None) -> Rater:
    """A rater, frozen and in evaluation mode, of a run or checkpoint of task=fit_rater.

    Raises UsageError for a checkpoint of another kind of model.
    """
    if ckpt is None:
        raise UsageError("expected a trained rater, got null; give its run or checkpoint, of task=fit_rater: ckpt=RUN")
    model = model_from_checkpoint(read_checkpoint(Path(ckpt)))
    if not isinstance(model, Rater):
        raise UsageError(
            f"expected a rater, got ckpt={ckpt} with a {type(model).__name__}; train one with task=fit_rater"
        )
    return model.requires_grad_(False).eval()
