"""Questions about COCO's pictures with people's answers: the files of VQAv2, OK-VQA and A-OKVQA."""

from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record
from capkit.data.sources.folder import check_folder_prefix, existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.data.vqa import VQA
from capkit.errors import UsageError
from capkit.text.asked import GENERIC, GUIDED, guided_prompt
from capkit.text.caption_text import caption_texts
from capkit.text.vqa_files import vqa_rows
from capkit.utils.text_files import existing_file, expect, member, read_json


class VQAQuestions(ListedPictures):
    """Pictures with open questions about them, or questions to be answered by captions.

    VQAv2 and OK-VQA have a file of questions {questions: [{question_id, image_id, question}]} and one of annotations
    {annotations: [{question_id, image_id, answers: [{answer}]}]}. A-OKVQA has one list [{question_id, image_id,
    question, choices, correct_choice_idx, direct_answers}], without annotations; its test file has no answers.

    Without `asked` a record is a picture: the captions that `captions` has of it, and in the metadata `vqa` its
    questions with answers, as `guide_captions` reads them. With `asked` it is a question: of key IMAGE<->QUESTION, as
    in PromptCap's program, with the prompt that asks for a caption, of that question ("guided") or of none ("generic").
    Its one caption is the picture's first, as a reference; no answer is in the record.

    Args:
        images: Folder of the pictures.
        questions: File of questions, or A-OKVQA's list.
        annotations: File of answers; null for A-OKVQA, or to ask without.
        captions: COCO's captions {annotations: [{image_id, caption}]}.
        asked: null, "guided" or "generic".
        file_name: A picture's file, by its number, such as "COCO_train2014_{:012d}.jpg".
        template: The guided prompt, with $question.

    Raises UsageError, naming the row, for files of another form, for two questions of one `question_id`, and without
    `asked` for a question without answers.
    """

    def __init__(
        self,
        images: str | None,
        questions: str | None,
        annotations: str | None = None,
        captions: str | None = None,
        asked: Literal["guided", "generic"] | None = None,
        file_name: str = "{:012d}.jpg",
        template: str = GUIDED,
    ) -> None:
        self._root = existing_folder(images, "images").absolute()
        if questions is None or captions is None:
            raise UsageError("data=vqa needs questions=FILE and captions=FILE, such as captions_train2014.json")
        self._questions, self._captions = (
            existing_file(path, what).absolute() for path, what in ((questions, "questions"), (captions, "captions"))
        )
        self._annotations = None if annotations is None else existing_file(annotations, "annotations").absolute()
        if [name for _, name, _, _ in Formatter().parse(file_name) if name is not None] not in ([""], ["0"]):
            raise UsageError(f"file_name: expected one place for the picture's number, such as {{:012d}}.jpg, got "
                             f"{file_name!r}")  # fmt: skip
        guided_prompt("", template)  # raises for another template
        self._asked, self._file_name, self._template = asked, file_name, template
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        captions = _captions(self._captions)
        found: dict[int, list[dict[str, Any]]] = {}
        for image_id, row in vqa_rows(self._questions, self._annotations, needs_answers=self._asked is None):
            found.setdefault(image_id, []).append(row)
        if missing := [image_id for image_id in found if image_id not in captions]:
            raise UsageError(
                f"{self._captions}: no captions of {len(missing)} of {len(found)} pictures that are asked about "
                f"(such as {missing[0]}); give the captions of the same split"
            )
        names = [self._file_name.format(image_id) for image_id in found]
        check_folder_prefix(self._root, names, str(self._questions))
        records = [
            record
            for name, (image_id, rows) in zip(names, found.items(), strict=True)
            for record in self._of_picture(name, image_id, rows, captions[image_id])
        ]
        return records

    def _of_picture(self, name: str, image_id: int, rows: list[dict[str, Any]], captions: list[str]) -> list[Record]:
        if self._asked is None:
            metadata = {"image_id": image_id, VQA: rows}
            return [Record(str(image_id), name, [Caption(text) for text in captions], metadata=metadata)]
        return [
            Record(
                f"{image_id}<->{row['question_id']}",
                name,
                [Caption(captions[0], prompt=self._prompt(row["question"]))],
                metadata={"image_id": image_id, "question": row["question"]},
            )
            for row in rows
        ]

    def _prompt(self, question: str) -> str:
        return GENERIC if self._asked == "generic" else guided_prompt(question, self._template)


def _captions(path: Path) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    content = expect(read_json(path, "captions"), "an object", str(path))
    for number, row in enumerate(member(content, "annotations", "a list", str(path)), 1):
        where = f"{path}, annotation {number}"
        image_id = member(expect(row, "an object", where), "image_id", "a whole number", where)
        found.setdefault(image_id, []).extend(caption_texts([member(row, "caption", "text", where)], where))
    return found
