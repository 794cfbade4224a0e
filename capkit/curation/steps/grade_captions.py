"""MLBCAP: captions that a model grades highly, after rules that cost nothing (Kim et al. 2025, arXiv 2501.02552)."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from capkit.curation.base import Records
from capkit.curation.figures import FIELDS, texts_about
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.llm.replies import WholeNumber
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

WORST, BEST = 1, 6
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


@check_ranges
class GradeCaptions(PictureStep, AskingStep):
    """Records with those of their captions that pass the rules and get `min_grade` or more; the grade is their `score`.

    The rules: a caption ends with a full stop, has at most `max_words` words and at least `min_sentences` sentences (a
    full stop before a space counts, in "et al. 2020" too), and its figure was not there before. The grader sees the
    picture, the texts about it and the caption, and answers with a number from 1 to 6 and nothing else: any other
    answer is a failure, never a grade. A record without a caption left is reported, with its best grade.

    Args:
        grader: A model that sees. null: the rules alone.
        once: The metadata's name of the figure, such as arxiv_id; the first record of a figure stays. This needs all
            records, no shards. null: records are not compared.
        retries, batch_size, cache_dir: of `Asker`.
    """

    name = "grade_captions"
    writes_source = ""

    def __init__(
        self,
        grader: ChatModel | None = None,
        prompt: str = "mlbcap_grade_v1",
        min_grade: PositiveInt = 5,
        max_words: PositiveInt = 100,
        min_sentences: PositiveInt = 2,
        once: str | None = None,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if min_grade > BEST:
            raise UsageError(f"min_grade is one of the grades from {WORST} to {BEST}; got {min_grade}")
        self._min_grade, self._max_words, self._min_sentences = min_grade, max_words, min_sentences
        self._once, self.scope = once, "record" if once is None else "all"
        self._prompt = Prompt(prompt, ["figure_caption"], FIELDS)
        self.askers = {}
        if grader is not None:
            number = WholeNumber(WORST, BEST)
            self.askers["grade"] = Asker(grader, cache_dir, number, retries, batch_size=batch_size, pictures=True)
        self._about = {
            "grader": None if grader is None else grader.about(),
            "prompt": self._prompt.fingerprint_fields(),
            "min_grade": min_grade,
            "max_words": max_words,
            "min_sentences": min_sentences,
            "once": once,
            "retries": retries,
        }
        self._numbers: Counter[str] = Counter()  # of captions: kept, and what each rule or grade dropped

    def __call__(self, records: Records) -> Iterator[Record]:
        allowed = self._allowed(records())
        if not self.askers:
            for record in allowed:
                self._numbers["kept"] += len(record.captions)
                yield record
            return
        for record, answers in self.askers["grade"].stream(allowed, self._questions):
            if not answers:
                continue  # the picture was reported
            graded = []
            for caption, answer in zip(record.captions, answers, strict=True):
                if answer.text is None:
                    self._fail(record, str(answer.failure), answer.said)
                else:
                    graded.append(replace(caption, score=float(answer.value)))
            if kept := self._best(record, graded):
                yield replace(record, captions=kept)

    def _best(self, record: Record, graded: list[Caption]) -> list[Caption]:
        kept = [caption for caption in graded if caption.score is not None and caption.score >= self._min_grade]
        self._numbers["kept"] += len(kept)
        self._numbers["dropped_grade"] += len(graded) - len(kept)
        if graded and not kept:
            best = max(int(caption.score or 0) for caption in graded)
            reason = f"no caption with grade {self._min_grade} or more; the best has {best}"
            self._fail(record, reason)
        return kept

    def _allowed(self, records: Iterable[Record]) -> Iterator[Record]:
        """Records with the captions that pass the rules; those without are reported."""
        figures: set[str] = set()
        for record in records:
            if self._once is not None and not self._is_new(record, figures):
                self._numbers["dropped_figure"] += len(record.captions)
                self._fail(record, f"a figure that was there before ({self._once})")
                continue
            broken = [broken_rule(c.text, self._max_words, self._min_sentences) for c in record.captions]
            self._numbers.update(f"dropped_{rule}" for rule in broken if rule)
            if kept := [caption for caption, rule in zip(record.captions, broken, strict=True) if rule is None]:
                yield replace(record, captions=kept)
            else:
                rules = ", ".join(dict.fromkeys(rule for rule in broken if rule)) or "no caption"
                self._fail(record, f"no caption passes the rules: {rules}")

    def _is_new(self, record: Record, figures: set[str]) -> bool:
        figure = record.metadata.get(str(self._once))
        if figure is None:
            raise UsageError(
                f"grade_captions: record {record.key!r} has no metadata {self._once!r}; choose another `once`"
            )
        is_new = str(figure) not in figures
        figures.add(str(figure))
        return is_new

    def _questions(self, record: Record) -> list[Question]:
        picture = self.picture(record)
        if picture is None:
            return []
        texts = texts_about(record, FIELDS)
        return [Question(self._prompt.fill(**texts, figure_caption=c.text), (picture,)) for c in record.captions]


def broken_rule(text: str, max_words: int, min_sentences: int) -> str | None:
    """The first rule that a caption breaks: full_stop, words or sentences; None if it passes."""
    text = text.strip()
    if not text.endswith("."):
        return "full_stop"
    if len(text.split()) > max_words:
        return "words"
    return "sentences" if len(_SENTENCE_END.findall(text)) < min_sentences else None
