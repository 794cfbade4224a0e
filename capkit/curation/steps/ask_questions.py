"""Multiple-choice questions about pictures, written by a model that sees (CapRL, CaptionQA).

CapRL (Xing et al. 2025, arXiv 2509.22647, section 3.1) has a model write five questions about each picture; CaptionQA
(arXiv 2511.21025) asks for questions of each leaf of a taxonomy. Prompts are our own (`capkit/llm/prompts`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capkit.curation.base import Records
from capkit.curation.questions import Split, WrittenQuestions, questions_of, with_questions, written_item
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.readers.question_rows import Item
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges
from capkit.utils.text_files import read_json, shown

_MAX_WORDS = 60
Category = tuple[str, ...]


@check_ranges
class AskQuestions(PictureStep, AskingStep):
    """Records with questions about their picture in the metadata, `questions`, behind those that they have.

    Without a `taxonomy` one reply has `num_questions` questions. With one, each leaf is asked for by itself, with the
    path to it, and "none" is a reply too; questions have that path as their category. Options lose letters of their
    own. A question whose answer is none of its options, or whose options are equal, empty, fewer than two or too many,
    is dropped and counted.

    A leaf whose reply failed is reported, and the record does without. A record without any question is reported and
    left out.

    Args:
        vision_chat: A model that sees. CapRL samples at temperature .1, CaptionQA at 1.
        num_questions: In a reply, at most.
        taxonomy: A JSON file: nested objects, at whose ends stands null or a list of examples.
        prompt: With $number; with a taxonomy also with $category. null: caprl_ask_v1, or caption_qa_ask_v1.
        retries, batch_size, cache_dir: of `Asker`.

    Raises UsageError where pictures of the test split are in the training split.
    """

    name = "ask_questions"
    writes_source = ""

    def __init__(
        self,
        vision_chat: ChatModel | None = None,
        num_questions: PositiveInt = 5,
        taxonomy: str | None = None,
        prompt: str | None = None,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if vision_chat is None:
            raise UsageError("ask_questions needs a model that sees; add vision_chat=hf, server or scene")
        self._num_questions = num_questions
        self._leaves = [((), "")] if taxonomy is None else leaves(taxonomy)
        fields = ["number"] if taxonomy is None else ["number", "category"]
        self._prompt = Prompt(prompt or ("caprl_ask_v1" if taxonomy is None else "caption_qa_ask_v1"), fields)
        reply = WrittenQuestions(num_questions, _MAX_WORDS, nothing=taxonomy is not None)
        self.askers = {"ask": Asker(vision_chat, cache_dir, reply, retries, batch_size=batch_size, pictures=True)}
        self._about = {
            "vision_chat": vision_chat.about(),
            "prompt": self._prompt.fingerprint_fields(),
            "num_questions": num_questions,
            "taxonomy": None if taxonomy is None else [[*path, named] for path, named in self._leaves],
            "retries": retries,
        }
        self._numbers: dict[str, int] = dict.fromkeys(("questions", "dropped", "leaves_without"), 0)

    def attach_split(self, split: Split) -> None:
        split.refuse_test_pictures(self.name)

    def __call__(self, records: Records) -> Iterator[Record]:
        def questions(record: Record) -> list[Question]:
            picture = self.picture(record)
            return [] if picture is None else [Question(self._filled(*leaf), (picture,)) for leaf in self._leaves]

        for record, answers in self.askers["ask"].stream(records(), questions):
            found: list[Item] = []
            for (path, _), answer in zip(self._leaves, answers, strict=False):
                if answer.text is None:
                    self._fail(record, " > ".join(("questions", *path)) + f": {answer.failure}", answer.said)
                    continue
                self._numbers["leaves_without"] += not answer.value
                found += self._usable(answer.value, path)
            if found or questions_of(record):
                yield with_questions(record, [*questions_of(record), *found])
            elif any(answer.text is not None for answer in answers):
                self._fail(record, "no usable question")

    def _filled(self, path: Category, named: str) -> str:
        category = " > ".join(path) + (f": {named}" if named else "")
        return self._prompt.fill(number=str(self._num_questions), **({"category": category} if path else {}))

    def _usable(self, rows: list[dict[str, Any]], path: Category) -> list[Item]:
        items = [written_item(row, path) for row in rows]
        self._numbers["questions"] += len(items)
        self._numbers["dropped"] += items.count(None)
        return [item for item in items if item is not None]


def leaves(path: str | Path) -> list[tuple[Category, str]]:
    """The path to each leaf of a taxonomy, and its examples in words. Raises UsageError for a file of another form."""
    found = list(_leaves(read_json(path, "taxonomy"), (), str(path)))
    if not found or not found[0][0]:
        raise UsageError(f"{path}: expected nested objects with a category a key, got {shown(read_json(path, 'it'))}")
    return found


def _leaves(value: Any, path: Category, where: str) -> Iterator[tuple[Category, str]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(below, (*path, name), where)
    elif value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value)) or value == {}:
        yield path, ", ".join(value or ())
    else:
        raise UsageError(
            f"{where}: {' > '.join(path)}: expected an object, null or a list of examples, got {shown(value)}"
        )
