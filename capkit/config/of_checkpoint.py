"""Words about the model of tasks that take it from a checkpoint: refused, since nothing would read them."""

from collections.abc import Iterator, Sequence

from capkit.errors import UsageError

_TASKS = ("evaluate", "caption", "frontier", "cross", "collect_preferences", "export", "evaluate_encoder")


def of_checkpoint(overrides: Sequence[str]) -> Iterator[str]:
    """The words, `model.zero_module=NAME` as evaluate's own key. Raises UsageError for others on the model."""
    task = next((line.partition("=")[2] for line in reversed(overrides) if line.startswith("task=")), None)
    for line in overrides:
        key = line.lstrip("+~").partition("=")[0]
        if task not in _TASKS or key.partition(".")[0] != "model":
            yield line
        elif task == "evaluate" and line.lstrip("+").startswith("model.zero_module="):
            yield line.lstrip("+").removeprefix("model.")
        else:
            raise UsageError(
                f"{line}: expected no words on the model with task={task}, which takes it from the checkpoint as it "
                "was trained; leave it out"
            )
