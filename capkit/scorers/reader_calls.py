"""Whether a reader's model still replies, told apart from what its store has kept from before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capkit.distributed.collectives import world_size
from capkit.errors import ReaderAway, UsageError
from capkit.readers.base import ChoiceQuestion, Reader, Reading

_NUM_UNHEARD = 2


@dataclass(frozen=True)
class Calls:
    """Replies of a reader's model to a batch, and captions about which calls got none, and why."""

    num_replies: int
    unheard: Mapping[str, str]


class ReaderCalls:
    """The calls of a reader to its model; a reader without a model behind it (no `askers`) makes none.

    Kept answers need no call, so a share of answers that are read says nothing of a server that fails each time: it
    would fall on new captions alone, and rewards would be those of old ones.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader, self._before = reader, 0
        self._unheard: dict[str, str] = {}

    def begin(self) -> None:
        self._before = self._num_put()

    def end(self, pairs: Sequence[tuple[str, ChoiceQuestion]], read: Sequence[Reading]) -> Calls:
        """What became of the calls since `begin`, by the caption and question of each reading."""
        num_put = self._num_put() - self._before
        silent = {
            pair: reading.failure or "no reason given"
            for pair, reading in zip(pairs, read, strict=True)
            if num_put and reading.choice is None and reading.said is None
        }
        return Calls(num_put - len(silent), {text: failure for (text, _), failure in silent.items()})

    def heed(self, calls: Sequence[Calls]) -> None:
        """In each training step, with the calls of all ranks: raises ReaderAway where the model has gone silent.

        That is, since its last reply, about two captions: about one it may be the caption's fault, such as one that is
        too long for the model.
        """
        if any(of_rank.num_replies for of_rank in calls):
            self._unheard = {}
            return
        self._unheard |= {text: failure for of_rank in calls for text, failure in of_rank.unheard.items()}
        if (problem := _silence(self._unheard)) is not None:
            raise ReaderAway(problem)

    def heed_alone(self, calls: Calls) -> None:
        """The same of one batch outside of training, where ranks have batches of their own: see `away_alone`."""
        if not calls.num_replies and (problem := _silence(calls.unheard)) is not None:
            raise away_alone(problem)

    def _num_put(self) -> int:
        return sum(asker.counts["asked"] for asker in getattr(self._reader, "askers", {}).values())


def away_alone(problem: str) -> UsageError | ReaderAway:
    """The error of one rank outside of training: of several it cannot be ReaderAway, before which all save together."""
    return ReaderAway(problem) if world_size() == 1 else UsageError(problem)


def _silence(unheard: Mapping[str, str]) -> str | None:
    """What is wrong if nothing was replied about these captions."""
    if len(unheard) < _NUM_UNHEARD:
        return None
    named = ", ".join(map(repr, sorted(unheard)[:_NUM_UNHEARD]))
    why = next(iter(unheard.values()))
    return (
        f"reward question_answering: expected replies of the reader's model, got none to what was asked about "
        f"{len(unheard)} captions (such as {named}): {why}; answers kept from before do not make up for it; check the "
        "server and its log"
    )
