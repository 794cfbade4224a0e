"""MLBCAP: a judge picks the best of a figure's candidate captions and mends it (Kim et al. 2025, arXiv 2501.02552)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from capkit.curation.base import Records
from capkit.curation.figures import CANDIDATE, FIELDS, Field, candidates_of, texts_about
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.replies import Text, WholeNumber
from capkit.utils.ranges import NonNegativeInt, PositiveInt, Seed, check_ranges
from capkit.utils.rng import generator

MLBCAP = "mlbcap"
_MOST_CANDIDATES = 99


@dataclass(frozen=True)
class _Row:
    """A record with its candidates in the order that the judge sees, and the one that it picked."""

    record: Record
    shown: tuple[Caption, ...]
    picked: Caption | None = None


@check_ranges
class JudgeCandidates(PictureStep, AskingStep):
    """Records with one caption: the candidate that the judge picked, mended by it.

    The judge sees the picture, the texts about it and the candidates of `write_candidates`, numbered, and answers with
    the number of one; any other answer is refused, never a pick. A judge that likes what comes first would favour a
    generator: the order is drawn by (seed, key) from the sources, so that it does not depend on the order of the
    generators either. It is recorded in the metadata, `<field>_order`, with the pick, `<field>_picked`.

    Then the judge corrects the pick in at most `max_words` words; a longer answer is a failure. The new caption has the
    source "mlbcap/<mending prompt>/<judge>" and is written into the metadata as `field` too, as in the released data.

    A record is left out, and reported, if it has no candidate, its picture cannot be read or an answer failed. Of one
    candidate nothing is picked.

    Args:
        judge: A model that sees.
        mend_prompt: null: the pick stays as it is, with its source, whatever its length.
        field: mlbcap_long with 50 words, mlbcap_short with 30, as published.
        shuffle: false: candidates in their order in the record.
        fields: The texts about the figure that the judge is told.
        keep: Whether the captions that were there stay before the new one, as another length needs.
        pick_retries, mend_retries, batch_size, cache_dir: of `Asker`.
    """

    name = "judge_candidates"
    reads_source = (f"{CANDIDATE}/", "write_candidates")
    writes_source = f"{MLBCAP}/"

    def __init__(
        self,
        judge: ChatModel | None = None,
        pick_prompt: str = "mlbcap_pick_v1",
        mend_prompt: str | None = "mlbcap_mend_v1",
        field: str = "mlbcap_long",
        max_words: PositiveInt = 50,
        shuffle: bool = True,
        seed: Seed = 0,
        fields: Sequence[Field] = FIELDS,
        keep: bool = False,
        pick_retries: NonNegativeInt = 0,
        mend_retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if judge is None:
            raise UsageError("judge_candidates needs a judge that sees; add vision_chat=hf, server or scene")
        self._field, self._max_words, self._shuffle, self._seed = field, max_words, shuffle, seed
        self._fields, self._keep = tuple(fields), keep
        self._pick_prompt = Prompt(pick_prompt, ["candidates"], FIELDS)
        self._mend_prompt = None if mend_prompt is None else Prompt(mend_prompt, ["candidate", "max_words"], FIELDS)
        number = WholeNumber(1, _MOST_CANDIDATES)  # each question narrows it to its own candidates
        self.askers = {"pick": Asker(judge, cache_dir, number, pick_retries, batch_size=batch_size, pictures=True)}
        if mend_prompt is not None:
            text = Text(max_words)
            self.askers["mend"] = Asker(judge, cache_dir, text, mend_retries, batch_size=batch_size, pictures=True)
        self._about = {
            "judge": judge.about(),
            "prompts": [p.fingerprint_fields() for p in (self._pick_prompt, self._mend_prompt) if p is not None],
            "field": field,
            "max_words": max_words,
            "order_seed": seed if shuffle else None,
            "fields": list(self._fields),
            "keep": keep,
            "retries": [pick_retries, mend_retries],
        }
        self._judge_name = judge.about()["model"]

    def __call__(self, records: Records) -> Iterator[Record]:
        picked = self._picked(self._rows(records()))
        return self._mended(picked, self._mend_prompt) if self._mend_prompt else self._unmended(picked)

    def _rows(self, records: Iterable[Record]) -> Iterator[_Row]:
        for record in records:
            candidates = candidates_of(record)
            if not candidates:
                self._fail(record, "no candidate; run write_candidates first")
                continue
            if self._shuffle:
                candidates = sorted(candidates, key=lambda caption: (caption.source, caption.text))
                order = generator(self._seed, "candidates", record.key).permutation(len(candidates))
                candidates = [candidates[place] for place in order]
            yield _Row(record, tuple(candidates), candidates[0] if len(candidates) == 1 else None)

    def _picked(self, rows: Iterable[_Row]) -> Iterator[_Row]:
        def questions(row: _Row) -> list[Question]:
            lines = numbered([caption.text for caption in row.shown])
            asked = [] if row.picked else self._about_picture(row, self._pick_prompt, candidates=lines)
            return [replace(question, reply=WholeNumber(1, len(row.shown))) for question in asked]

        for row, answers in self.askers["pick"].stream(rows, questions):
            if row.picked is not None:
                yield row
            for answer in answers:
                if answer.text is None:
                    self._fail(row.record, f"pick: {answer.failure}", answer.said)
                else:
                    yield replace(row, picked=row.shown[answer.value - 1])

    def _mended(self, rows: Iterable[_Row], prompt: Prompt) -> Iterator[Record]:
        def questions(row: _Row) -> list[Question]:
            assert row.picked is not None
            return self._about_picture(row, prompt, candidate=row.picked.text, max_words=str(self._max_words))

        source = f"{MLBCAP}/{prompt.name}/{self._judge_name}"
        for row, answers in self.askers["mend"].stream(rows, questions):
            for answer in answers:
                if answer.text is None:
                    self._fail(row.record, f"mend: {answer.failure}", answer.said)
                else:
                    assert row.picked is not None
                    yield self._finished(row, Caption(answer.value, source, row.picked.language))

    def _unmended(self, rows: Iterable[_Row]) -> Iterator[Record]:
        for row in rows:
            assert row.picked is not None
            yield self._finished(row, row.picked)

    def _about_picture(self, row: _Row, prompt: Prompt, **values: str) -> list[Question]:
        picture = self.picture(row.record)
        text = prompt.fill(**texts_about(row.record, self._fields), **values)
        return [] if picture is None else [Question(text, (picture,))]

    def _finished(self, row: _Row, caption: Caption) -> Record:
        assert row.picked is not None
        judged = {
            self._field: caption.text,
            f"{self._field}_order": [item.source for item in row.shown],
            f"{self._field}_picked": row.picked.source,
        }
        kept = row.record.captions if self._keep else ()
        return replace(row.record, captions=[*kept, caption], metadata={**row.record.metadata, **judged})
