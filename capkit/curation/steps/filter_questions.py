"""Keeps the questions that a picture answers and nothing else does (CapRL's and CaptionQA's filters).

CapRL (arXiv 2509.22647): a model answers with the picture and not without it. CaptionQA (arXiv 2511.21025): a language
model does not guess the answer, no two questions of a picture are alike, and two models that see agree.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from capkit.curation.base import Records
from capkit.curation.near_duplicates import representatives
from capkit.curation.question_verdicts import (
    WAYS_OUT,
    Verdict,
    Vote,
    by_blind_samples,
    by_pictures,
    by_text,
    by_two,
    count_right,
)
from capkit.curation.questions import DROPPED, TO_REVIEW, LetterOrNothing, Split, questions_of, with_questions
from capkit.curation.step_bases import AskingStep, PictureStep, TextEncoder
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.readers.base import LETTERS, lettered
from capkit.readers.question_rows import Item, plain
from capkit.readers.question_sets import QuestionFile, QuestionSource
from capkit.utils.ranges import PositiveInt, Probability, Range, Seed, check_ranges
from capkit.utils.rng import generator

NONE_OF_THE_ABOVE = "None of the above"
_FILTERS = ("blind", "without_picture", "with_picture", "duplicates", "agreed")
Cosine = Annotated[float | int, Range(-1, 1)]


@dataclass(frozen=True)
class _Case:
    """A record with its questions; `fates` has the name of the filter that took one out, or None."""

    record: Record
    items: tuple[Item, ...]
    fates: tuple[str | None, ...]
    reviews: tuple[dict[str, Any], ...] = ()

    @property
    def alive(self) -> list[Item]:
        return [item for item, fate in zip(self.items, self.fates, strict=True) if fate is None]

    def judged(self, name: str, verdicts: Iterable[Verdict]) -> "_Case":
        """With the verdicts of a filter on those that are alive."""
        rest = iter(verdicts)
        fate_of = {"keep": None, "drop": name, "review": "review", "undecided": "undecided"}
        return replace(self, fates=tuple(fate or fate_of[next(rest)] for fate in self.fates))


@check_ranges
class FilterQuestions(PictureStep, AskingStep):
    """Records with those of their `questions` (in the metadata) that pass the filters that are on, in this order.

    - `blind`: `text_lm` answers `num_samples` times, options in drawn orders. Goes: right in all, .8, .7, .6 of them
      for 2, 3, 4, 5 and more options.
    - `seen`: `without_picture` and `vision_chat` answer `rotations` times each, options in drawn orders, the second
      with "None of the above" as the last. Stays: accuracy below `max_without` without and above `min_with` with the
      picture; at four those are none and all.
    - `duplicates`: of near-duplicates of a picture the medoid stays (`capkit/curation/near_duplicates.py`).
    - `agreed`: `vision_chat` and `second_vision_chat` choose among the options and four ways out. Stays: both chose the
      right one. Goes: both took a way out. Anything else goes into the metadata, `questions_to_review`, for a person.

    Answers are one letter and nothing else, and are right by the text of their option. A reply that is no option is not
    right. A call that failed is reported, and asked again in the next run; where it could have changed the verdict the
    question is undecided, and goes. What went is in the metadata, `questions_dropped`, with the filter that took it.

    A model that samples gives each time a sample of its own; one that does not answers each order once.

    A record is left out, and reported, if its picture cannot be read, or no question stays or waits for a person.

    Args:
        without_picture: May be `vision_chat` (as published), unless that needs a picture each time.
        questions: A file or a QuestionSource, whose questions stand for those in the metadata; null: these.
        encoder: What embeds questions for `duplicates`.
        min_similarity, min_within: Cosines.
        seed: Of the orders, drawn by (seed, filter, picture, question, number).
        batch_size, cache_dir: of `Asker`.

    Raises UsageError for filters without their models, for test pictures in the training split, and for `questions` of
    another split or about test pictures.
    """

    name = "filter_questions"
    writes_source = ""

    def __init__(
        self,
        vision_chat: ChatModel | None = None,
        text_lm: ChatModel | None = None,
        without_picture: ChatModel | None = None,
        second_vision_chat: ChatModel | None = None,
        encoder: TextEncoder | None = None,
        questions: str | QuestionSource | None = None,
        blind: bool = True,
        seen: bool = True,
        duplicates: bool = True,
        agreed: bool = False,
        num_samples: PositiveInt = 10,
        rotations: PositiveInt = 4,
        max_without: Probability = 0.25,
        min_with: Probability = 0.75,
        num_neighbors: PositiveInt = 10,
        min_similarity: Cosine = 0.9,
        min_within: Cosine = 0.85,
        prompt: str = "answer_letter_v1",
        check_prompt: str = "check_question_v1",
        seed: Seed = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        self._is_on = {
            "blind": blind,
            "without_picture": seen,
            "with_picture": seen,
            "duplicates": duplicates,
            "agreed": agreed,
        }
        _check_models(self._is_on, vision_chat, text_lm, without_picture, second_vision_chat, encoder)
        self._source = QuestionFile(questions) if isinstance(questions, str) else questions
        self._num = {"blind": num_samples, "without_picture": rotations, "with_picture": rotations}
        self._max_without, self._min_with, self._seed = max_without, min_with, seed
        self._grouping = (num_neighbors, float(min_similarity), float(min_within))
        self._encoder = encoder
        self._prompt = Prompt(prompt, ["question", "options"])
        self._check_prompt = Prompt(check_prompt, ["question", "options"])
        models = {"blind": text_lm, "without_picture": without_picture, "with_picture": vision_chat}
        models |= {"first": vision_chat, "second": second_vision_chat}
        self.askers = {}
        for kind, model in models.items():
            if model is not None and self._is_on.get(kind, agreed):
                looks = kind not in ("blind", "without_picture")
                num = self._num.get(kind, 1) if getattr(model, "draws", False) else 1
                reply = LetterOrNothing(LETTERS)  # each question has its own letters
                self.askers[kind] = Asker(model, cache_dir, reply, 0, num, batch_size, pictures=looks)
        self._about = {
            "filters": {name: is_on for name, is_on in self._is_on.items() if is_on},
            "models": {kind: asker.model.about() for kind, asker in self.askers.items()},
            "prompts": [self._prompt.fingerprint_fields(), self._check_prompt.fingerprint_fields()],
            "num": self._num,
            "limits": [float(max_without), float(min_with)],
            "grouping": list(self._grouping),
            "encoder": encoder.fingerprint_fields("text") if duplicates and encoder is not None else None,
            "questions": None if self._source is None else self._source.about(),
            "seed": seed,
        }
        self._numbers: Counter[str] = Counter(questions=0, kept=0, review=0, undecided=0)
        self._numbers.update(dict.fromkeys((f"dropped_{name}" for name in _FILTERS if self._is_on[name]), 0))

    def attach_split(self, split: Split) -> None:
        split.refuse_test_pictures(self.name)
        if self._source is None:
            return
        belongs = getattr(self._source, "split", None)
        if belongs not in (None, split.name):
            raise UsageError(
                f"{self.name}: expected questions of split {split.name}, got a set that says it belongs to {belongs}; "
                "give that split's questions"
            )
        split.refuse_test_pictures(self.name, self._source.keys() or ())

    def __call__(self, records: Records) -> Iterator[Record]:
        cases: Iterator[_Case] = self._cases(records())
        for name in ("blind", "without_picture", "with_picture"):
            cases = self._judged(cases, name) if self._is_on[name] else cases
        cases = map(self._distinct, cases) if self._is_on["duplicates"] else cases
        cases = self._agreed(cases) if self._is_on["agreed"] else cases
        return self._finished(cases)

    def _cases(self, records: Iterable[Record]) -> Iterator[_Case]:
        most = len(LETTERS) - (len(WAYS_OUT) if self._is_on["agreed"] else 1)
        known = None if self._source is None else self._source.keys()
        for record in records:
            if self._source is None:
                items = questions_of(record)
            else:
                is_asked = known is None or record.key in known
                items = [*self._source.of(record.key, record.metadata)] if is_asked else []
            if not items:
                self._fail(record, "no question; run ask_questions first, or give step.filter_questions.questions")
                continue
            for item in items:
                if len(item.choices) > most:
                    raise UsageError(
                        f"{self.name}: expected at most {most} options, which leaves letters for those that are added, "
                        f"got {len(item.choices)} of {item.question!r} ({record.key!r}); take some out"
                    )
            self._numbers["questions"] += len(items)
            yield _Case(record, tuple(items), (None,) * len(items))

    def _judged(self, cases: Iterable[_Case], name: str) -> Iterator[_Case]:
        extra = (NONE_OF_THE_ABOVE,) if name == "with_picture" else ()
        for case, votes in self._votes(cases, name, self._prompt, self._num[name], extra):
            verdicts: list[Verdict] = []
            for item, given in zip(case.alive, votes, strict=True):
                right = count_right(given, item.answer)
                if name == "blind":
                    verdicts.append(by_blind_samples(right, len(item.choices)))
                elif name == "without_picture":
                    verdicts.append(by_text(right, self._max_without))
                else:
                    verdicts.append(by_pictures(right, self._min_with))
            yield case.judged(name, verdicts)

    def _agreed(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        first = self._votes(cases, "first", self._check_prompt, 1, WAYS_OUT)
        said: list[list[list[Vote]]] = []  # of the first model, for cases that wait for the second

        def passed() -> Iterator[_Case]:
            for case, votes in first:
                said.append(votes)
                yield case

        for case, second in self._votes(passed(), "second", self._check_prompt, 1, WAYS_OUT):
            pairs = [(one, other) for (one,), (other,) in zip(said.pop(0), second, strict=True)]
            verdicts = [by_two(one, other, i.answer) for i, (one, other) in zip(case.alive, pairs, strict=True)]
            reviews = [
                {**plain(item), "first": one, "second": other}
                for item, (one, other), verdict in zip(case.alive, pairs, verdicts, strict=True)
                if verdict == "review"
            ]
            yield replace(case.judged("agreed", verdicts), reviews=tuple(reviews))

    def _votes(
        self, cases: Iterable[_Case], kind: str, prompt: Prompt, num: int, extra: Sequence[str]
    ) -> Iterator[tuple[_Case, list[list[Vote]]]]:
        """Each case with `num` votes on each question that is alive. Options stand in drawn orders, `extra` behind."""
        asker = self.askers[kind]
        looks = kind not in ("blind", "without_picture")
        draws = asker.num_samples > 1

        def questions(case: _Case) -> list[Question]:
            picture = self.picture(case.record) if looks and case.alive else None
            if looks and picture is None:
                return []
            asked = []
            for item in case.alive:
                for number in range(num):
                    shown = self._shown(kind, case.record.key, item, number, extra)
                    text = prompt.fill(question=item.question, options=lettered(shown))
                    reply = LetterOrNothing(LETTERS[: len(shown)])
                    pictures = () if picture is None else (picture,)
                    asked.append(Question(text, pictures, sample=number if draws else 0, reply=reply))
            return asked

        for case, answers in asker.stream(cases, questions):
            if case.alive and not answers:
                case = replace(case, fates=tuple(fate or "picture" for fate in case.fates))  # it was reported
            votes = []
            rest = iter(answers)
            for item in case.alive:
                row = []
                for number in range(num):
                    answer, shown = next(rest), self._shown(kind, case.record.key, item, number, extra)
                    if answer.text is None:
                        self._fail(case.record, f"{kind}: {item.question}: {answer.failure}", answer.said)
                    row.append(_vote(answer.value if answer.text is not None else None, shown))
                votes.append(row)
            yield case, votes

    def _shown(self, kind: str, key: str, item: Item, number: int, extra: Sequence[str]) -> list[str]:
        order = generator(self._seed, "filter_questions", kind, key, item.question, number)
        shown = [item.choices[place] for place in order.permutation(len(item.choices))]
        return [*shown, *(option for option in extra if option not in shown)]

    def _distinct(self, case: _Case) -> _Case:
        alive = case.alive
        if len(alive) < 2:
            return case
        assert self._encoder is not None
        rows = self._encoder.encode_text([item.question for item in alive]).cpu().double().numpy()
        stay = set(representatives(rows, *self._grouping))
        return case.judged("duplicates", ["keep" if place in stay else "drop" for place in range(len(alive))])

    def _finished(self, cases: Iterable[_Case]) -> Iterator[Record]:
        for case in cases:
            for fate in case.fates:
                name = "kept" if fate is None else f"dropped_{fate}" if fate in self._is_on else fate
                self._numbers[name] += 1
            if "picture" in case.fates:
                continue
            gone = zip(case.items, case.fates, strict=True)
            dropped = [{**plain(item), "by": fate} for item, fate in gone if fate not in (None, "review")]
            others = {TO_REVIEW: list(case.reviews)} if self._is_on["agreed"] else {}
            if case.alive or case.reviews:
                yield with_questions(case.record, case.alive, **{DROPPED: dropped}, **others)
            else:
                self._fail(case.record, f"none of {len(case.items)} questions is left")


def _vote(letter: str | None, shown: Sequence[str]) -> Vote:
    return shown[LETTERS.index(letter)] if letter else letter


def _check_models(
    is_on: Mapping[str, bool],
    vision_chat: ChatModel | None,
    text_lm: ChatModel | None,
    without_picture: ChatModel | None,
    second: ChatModel | None,
    encoder: TextEncoder | None,
) -> None:
    """Raises UsageError for a filter that is on without a model that it needs."""
    needed: list[tuple[str, str, Any, str]] = [
        ("blind", "text_lm", text_lm, "text_lm=hf, server or scene"),
        ("seen", "vision_chat", vision_chat, "vision_chat=hf, server or scene"),
        ("seen", "without_picture", without_picture, "step.filter_questions.without_picture=text_lm/hf, or another"),
        ("duplicates", "encoder", encoder, "step.filter_questions.encoder"),
        ("agreed", "vision_chat", vision_chat, "vision_chat=hf, server or scene"),
        ("agreed", "second_vision_chat", second, "step.filter_questions.second_vision_chat=vision_chat/hf, or another"),
    ]
    if not any(is_on.values()):
        raise UsageError("filter_questions: no filter is on; turn on blind, seen, duplicates or agreed")
    for switch, argument, model, fix in needed:
        if model is None and is_on["with_picture" if switch == "seen" else switch]:
            raise UsageError(
                f"filter_questions: the filter {switch} needs {argument}; add {fix}, or leave the filter out by "
                f"step.filter_questions.{switch}=false"
            )
    if is_on["agreed"] and second is not None and vision_chat is not None and second.about() == vision_chat.about():
        raise UsageError(
            "filter_questions: agreed asks two models, got one twice: vision_chat and second_vision_chat are the same; "
            "give another second_vision_chat"
        )
