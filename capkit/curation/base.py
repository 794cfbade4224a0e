"""Protocol of data steps: records in, records out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar, runtime_checkable

from capkit.data.records import Caption, Record
from capkit.errors import UsageError

Records = Callable[[], Iterable[Record]]
SCOPES = ("record", "group", "all")
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A record that a step left out: the reason, and a model's answer if there was one."""

    key: str
    step: str
    reason: str
    said: str | None = None


@runtime_checkable
class Step(Protocol):
    """Transforms records; may change or drop them, and keeps their order. `records()` iterates anew at each call.

    Optional hooks, which task=curate calls if they exist: `attach_images(read)` with a function from a record's key to
    its image (it raises BadImage); `attach_sizes(measure)` with one to its width and height in pixels (likewise);
    `attach_failures(report)` with a function that takes each Failure; `attach_split(split)` with the split that is
    curated (`capkit.curation.questions.Split`), before anything is asked; `fingerprint_fields()` for what the result
    depends on, as plain data; `askers`, by a name each, which are given accounts of the run's money and failures; and
    `counts`, numbers for the report. `capkit/curation/step_bases.py` has base classes with these hooks.

    `scope` says what a step works on, and so where its records can be cut into shards: "record" (anywhere), "group"
    (between the views of one object, which `capkit.curation.groups.groups` gives), or "all" (nowhere; the default).

    `reads_source` says how the sources of captions begin that a step cannot do without, and which step writes them:
    ("candidate/", "write_candidates"). `needs_sources` are names of sources (`is_by`) of which a record must have a
    caption each, for a step that is told which. `writes_source` says how the sources of a step's own captions begin
    ("" if it writes none); a step without it may write any.
    """

    def __call__(self, records: Records) -> Iterator[Record]: ...


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches of `size` items; the last may be smaller."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def captions_of_one_language(record: Record) -> tuple[list[Caption], str]:
    """The captions in the language of the first one, and that language; "" if there is no caption."""
    language = record.captions[0].language if record.captions else ""
    return [caption for caption in record.captions if caption.language == language], language


def scope_of(step: Any) -> str:
    """What a step works on. Steps of before there were groups say `by_record`."""
    scope = getattr(step, "scope", "record" if getattr(step, "by_record", False) else "all")
    if scope not in SCOPES:
        raise UsageError(f"{type(step).__name__}.scope: expected one of {', '.join(SCOPES)}; got {scope!r}")
    return scope


def check_sources(steps: Mapping[str, Any], records: Records) -> None:
    """Raises UsageError for a step that needs captions which neither an earlier step writes nor any of `records` has.

    The records are looked at only where no earlier step writes such captions.
    """
    written: set[str | None] = set()
    for name, step in steps.items():
        needed, writer = getattr(step, "reads_source", ("", ""))
        is_there = not needed or not written.isdisjoint((needed, None)) or _has_source(records(), needed)
        if not is_there:
            raise UsageError(
                f"step {name} needs captions of source {needed}..., which no step before it writes and the data do not "
                f"have; put {writer} before it: step=[{','.join(_with_before(steps, writer, name))}]"
            )
        sources = [item for item in getattr(step, "needs_sources", ()) if not any(_may_be(w, item) for w in written)]
        if sources and not any(has_captions_by(record, sources) for record in records()):
            raise UsageError(
                f"step {name} needs records with captions by {' and '.join(sources)}, which no step before it writes "
                f"and the data do not have; name your captions' sources in step.{name}, or put their step before it"
            )
        written.add(getattr(step, "writes_source", None))


def is_by(source: str, name: str) -> bool:
    """Whether a caption's source is `name`, or begins with it: "blendcap/blend_v1/MODEL" is by "blendcap"."""
    return source == name or source.startswith(f"{name}/")


def has_captions_by(record: Record, names: Sequence[str]) -> bool:
    return all(any(is_by(caption.source, name) for caption in record.captions) for name in names)


def _may_be(written: str | None, name: str) -> bool:
    """Whether captions that a step writes may be by `name`; None: they may be anybody's."""
    return written is None or is_by(written, name)


def _has_source(records: Iterable[Record], start: str) -> bool:
    return any(caption.source.startswith(start) for record in records for caption in record.captions)


def _with_before(steps: Iterable[str], name: str, before: str) -> Iterator[str]:
    """The names of steps, with `name` right before another."""
    for step in steps:
        if step == before:
            yield name
        if step != name:
            yield step


def hook(step: Any, name: str, argument: Any) -> None:
    """Call an optional hook of a step."""
    if hasattr(step, name):
        getattr(step, name)(argument)
