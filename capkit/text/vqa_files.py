"""Open questions with people's answers: the files of VQAv2, OK-VQA and A-OKVQA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capkit.errors import UsageError
from capkit.utils.text_files import expect, member, read_json, shown


def vqa_rows(path: Path, annotations: Path | None, needs_answers: bool) -> list[tuple[int, dict[str, Any]]]:
    """Each question's picture, and {question_id, question, answers} with the answers that there are."""
    content = read_json(path, "questions")
    is_list = isinstance(content, list)
    listed = content if is_list else member(expect(content, "an object", str(path)), "questions", "a list", str(path))
    if is_list and annotations is not None:
        raise UsageError(f"{path}: expected A-OKVQA's list alone, which has its answers, got annotations={annotations}")
    answers = {} if annotations is None else _answers(annotations)
    found, seen = [], set()
    for number, row in enumerate(listed, 1):
        where = f"{path}, question {number}"
        identity = member(expect(row, "an object", where), "question_id", "text or a whole number", where)
        if str(identity) in seen:
            raise UsageError(f"{where}: expected each question_id once, got {shown(identity)} again; take one out")
        seen.add(str(identity))
        given = _direct(row, where) if is_list else answers.get(str(identity), [])
        if needs_answers and not given:
            raise UsageError(
                f"{where} ({shown(identity)}): expected answers, got none; give annotations=FILE of the same split, or "
                "asked=guided"
            )
        image_id = member(row, "image_id", "a whole number", where)
        question = member(row, "question", "text", where)
        found.append((image_id, {"question_id": identity, "question": question, "answers": given}))
    return found


def _direct(row: Mapping[str, Any], where: str) -> list[str]:
    """A-OKVQA's; its test file has none."""
    answers = expect(row.get("direct_answers") or [], "a list", where, "direct_answers")
    return [expect(answer, "text", where, "direct_answers") for answer in answers]


def _answers(path: Path) -> dict[str, list[str]]:
    content = expect(read_json(path, "annotations"), "an object", str(path))
    found = {}
    for number, row in enumerate(member(content, "annotations", "a list", str(path)), 1):
        where = f"{path}, annotation {number}"
        identity = str(member(expect(row, "an object", where), "question_id", "text or a whole number", where))
        given = member(row, "answers", "a list", where)
        found[identity] = [member(expect(answer, "an object", where), "answer", "text", where) for answer in given]
    return found
