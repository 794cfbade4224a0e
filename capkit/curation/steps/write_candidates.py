"""MLBCAP: candidate captions of a figure by several generators (Kim et al. 2025, arXiv 2501.02552).

Generators differ in what they read: one sees the figure, others the paragraphs that mention it. `judge_candidates`
picks. The paper's prompts were not at hand; ours are `mlbcap_*` in `capkit/llm/prompts`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from capkit.curation.base import Records
from capkit.curation.figures import CANDIDATE, FIELDS, Field, texts_about
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.data.records import Caption, Record, read_manifest
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.replies import Text
from capkit.utils.checksums import crc32_and_size
from capkit.utils.ranges import NonNegativeInt, PositiveInt, Seed, check_ranges
from capkit.utils.rng import generator
from capkit.utils.text_files import existing_file

_BEST_GRADE = 6
_DESCRIBER = "describer"


@check_ranges
@dataclass(frozen=True)
class Generator:
    """A model with its prompt.

    Args:
        model: A ChatModel.
        prompt: Its fields are any of those of `capkit/curation/figures.py`, and `examples`.
        sees: Whether it gets the picture.
        max_paragraph_words: Where the paragraph is cut; null: nowhere.
    """

    model: ChatModel
    prompt: str = "mlbcap_text_v1"
    sees: bool = False
    max_paragraph_words: PositiveInt | None = None


@dataclass(frozen=True)
class _Row:
    record: Record
    written: tuple[Caption, ...] = ()
    is_lost: bool = False


@check_ranges
class WriteCandidates(PictureStep, AskingStep):
    """Records with one more caption by each generator, sources "candidate/<generator>/<prompt>/<model>".

    A record that a generator has no usable answer for goes on with the others' captions; the failure is listed. It is
    left out if there is none at all, or if its picture cannot be read.

    Args:
        generators: By name.
        describer: A model that sees, which writes `figure_description` into the metadata where it is missing.
        examples: A manifest of figures whose captions were graded (`grade_captions`): captions with grade 6 of figures
            with the same `categories` are shown to prompts with `$examples`.
        num_examples: At most so many, drawn by (seed, key).
        fields: The texts about the figure that generators are told.
        keep: Whether the captions that were there stay before the candidates.
        max_words: Longest caption.
        retries, batch_size, cache_dir: of `Asker`.
    """

    name = "write_candidates"
    writes_source = f"{CANDIDATE}/"

    def __init__(
        self,
        generators: Mapping[str, Generator] | None = None,
        describer: ChatModel | None = None,
        describe_prompt: str = "mlbcap_describe_v1",
        examples: str | None = None,
        num_examples: PositiveInt = 10,
        fields: Sequence[Field] = FIELDS,
        seed: Seed = 0,
        keep: bool = True,
        max_words: PositiveInt = 200,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if not generators:
            raise UsageError(
                "write_candidates needs generators, by name; experiment=mlbcap has four, and docs/curate.md shows one"
            )
        if named := [name for name in generators if "/" in name or name == _DESCRIBER]:
            raise UsageError(
                f"a generator's name is part of a source: no slash, and not {_DESCRIBER}; got {named[0]!r}"
            )
        self._generators, self._fields, self._keep = dict(generators), tuple(fields), keep
        self._prompts = {name: Prompt(item.prompt, [], [*FIELDS, "examples"]) for name, item in generators.items()}
        text = Text(max_words)
        self.askers = {
            name: Asker(item.model, cache_dir, text, retries, batch_size=batch_size, pictures=item.sees)
            for name, item in generators.items()
        }
        self._describe_prompt = Prompt(describe_prompt, [], ["figure_type", "categories"])
        if describer is not None:
            self.askers[_DESCRIBER] = Asker(describer, cache_dir, text, retries, batch_size=batch_size, pictures=True)
        self._examples = {} if examples is None else _graded_best(examples)
        self._num_examples, self._seed = num_examples, seed
        self._about = {
            "generators": {
                name: {
                    "prompt": self._prompts[name].fingerprint_fields(),
                    "model": item.model.about(),
                    "sees": item.sees,
                    "max_paragraph_words": item.max_paragraph_words,
                }
                for name, item in generators.items()
            },
            "describer": None if describer is None else describer.about(),
            "describe_prompt": self._describe_prompt.fingerprint_fields(),
            "examples": None if examples is None else crc32_and_size(existing_file(examples, "examples")),
            "num_examples": num_examples,
            "fields": list(self._fields),
            "seed": seed,
            "keep": keep,
            "max_words": max_words,
            "retries": retries,
        }

    def __call__(self, records: Records) -> Iterator[Record]:
        rows: Iterator[_Row] = (_Row(record) for record in records())
        if _DESCRIBER in self.askers:
            rows = self._described(rows)
        for name in self._generators:
            rows = self._with_candidate(rows, name)
        for row in rows:
            if not row.is_lost and not row.written:
                self._fail(row.record, "no generator has a usable answer")
            elif not row.is_lost:
                kept = row.record.captions if self._keep else ()
                yield replace(row.record, captions=[*kept, *row.written])

    def _described(self, rows: Iterable[_Row]) -> Iterator[_Row]:
        def questions(row: _Row) -> list[Question]:
            if row.record.metadata.get("figure_description"):
                return []
            picture = self.picture(row.record)
            text = self._describe_prompt.fill(**texts_about(row.record, self._fields))
            return [] if picture is None else [Question(text, (picture,))]

        for row, answers in self.askers[_DESCRIBER].stream(rows, questions):
            for answer in answers:
                if answer.text is None:
                    self._fail(row.record, f"describer: {answer.failure}", answer.said)
                else:
                    metadata = {**row.record.metadata, "figure_description": answer.value}
                    row = replace(row, record=replace(row.record, metadata=metadata))
            yield row if answers or row.record.metadata.get("figure_description") else replace(row, is_lost=True)

    def _with_candidate(self, rows: Iterable[_Row], name: str) -> Iterator[_Row]:
        item, prompt = self._generators[name], self._prompts[name]
        source = f"{CANDIDATE}/{name}/{prompt.name}/{item.model.about()['model']}"

        def questions(row: _Row) -> list[Question]:
            if row.is_lost:
                return []
            texts = {**texts_about(row.record, self._fields), "examples": self._shown_examples(row.record)}
            if item.max_paragraph_words is not None:
                texts["paragraph"] = " ".join(texts["paragraph"].split()[: item.max_paragraph_words])
            if not item.sees:
                return [Question(prompt.fill(**texts))]
            picture = self.picture(row.record)
            return [] if picture is None else [Question(prompt.fill(**texts), (picture,))]

        for row, answers in self.askers[name].stream(rows, questions):
            for answer in answers:
                if answer.text is None:
                    self._fail(row.record, f"{name}: {answer.failure}", answer.said)
                else:
                    row = replace(row, written=(*row.written, Caption(answer.value, source)))
            yield row if answers else replace(row, is_lost=True)

    def _shown_examples(self, record: Record) -> str:
        others = [text for key, text in self._examples.get(record.metadata.get("categories"), ()) if key != record.key]
        order = generator(self._seed, "examples", record.key).permutation(len(others))[: self._num_examples]
        return numbered([others[place] for place in order]) or "(none)"


def _graded_best(path: str) -> dict[Any, list[tuple[str, str]]]:
    """Keys and captions with the best grade, by the figures' categories. Raises UsageError if there is none."""
    found: dict[Any, list[tuple[str, str]]] = {}
    for record in read_manifest(path):
        for caption in record.captions:
            if caption.score == _BEST_GRADE:
                found.setdefault(record.metadata.get("categories"), []).append((record.key, caption.text))
    if not found:
        raise UsageError(
            f"examples: {path} has no caption with the score {_BEST_GRADE}; let grade_captions grade it first"
        )
    return found
