"""Captions from rows of chats about a picture, as LLaVA and the trainers of chat models store them.

LLaVA's: {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nDescribe it."},
          {"from": "gpt", "value": "A dog."}]}
Others': {"images": ["a.jpg"], "messages": [{"role": "user", "content": "<image>Describe it."},
          {"role": "assistant", "content": "A dog."}]}
"""

import re
import warnings
from typing import Any

from capkit.data.records import Caption
from capkit.errors import UsageError
from capkit.utils.text_files import expect, file_name, member, shown

_FORMS = {"conversations": ("from", "value"), "messages": ("role", "content")}
_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant", "model")
_PICTURE = re.compile(r"<(?:image|img|image_placeholder)>|<\|image(?:_pad)?\|>", re.IGNORECASE)


def is_chat(row: Any) -> bool:
    """Whether a row of JSON is a chat."""
    return isinstance(row, dict) and any(isinstance(row.get(name), list) for name in _FORMS)


class ChatRows:
    """The captions of chats; counts what it leaves out, for one warning at the end.

    The caption is the first answer, its `prompt` the question without the picture's mark, its language the row's. Later
    answers depend on what was said before, and chats without a picture are about none: both are left out.
    """

    def __init__(self) -> None:
        self._num_later = self._num_without_picture = 0

    def read(self, row: dict[str, Any], where: str) -> tuple[str, list[Caption]] | None:
        """The picture's file and its caption; None without a picture. Raises UsageError for what is no such chat."""
        form = next(name for name in _FORMS if isinstance(row.get(name), list))
        turns = [_turn(turn, *_FORMS[form], f"{where}, {form} {number}") for number, turn in enumerate(row[form])]
        file = _file(row, row[form], where)
        if file is None:
            self._num_without_picture += 1
            return None
        spoken = [turn for turn in turns if turn[0] != "system"]
        if len(spoken) < 2 or spoken[0][0] != "asks" or spoken[1][0] != "answers":
            told = ", ".join(kind for kind, _ in turns) or "nothing"
            raise UsageError(f"{where}: expected a question and its answer, got {told}; leave the row out")
        self._num_later += sum(kind == "answers" for kind, _ in spoken[2:])
        prompt = _PICTURE.sub("", spoken[0][1]).strip()
        language = row.get("language")
        tag = {} if language in (None, "") else {"language": expect(language, "text", where, "language")}
        return file, [Caption(spoken[1][1], prompt=prompt or None, **tag)]

    def warn(self, where: str) -> None:
        """Tell, once, what was left out."""
        told = []
        if self._num_later:
            told.append(f"{self._num_later:,} later answers, which depend on what was said before them")
        if self._num_without_picture:
            told.append(f"{self._num_without_picture:,} chats without a picture")
        if told:
            warnings.warn(f"{where}: left out are {' and '.join(told)}", stacklevel=3)


def _turn(turn: Any, who: str, what: str, where: str) -> tuple[str, str]:
    """Who speaks ("asks", "answers" or "system"), and the text."""
    speaker = member(expect(turn, "an object", where), who, "text", where)
    content = turn.get(what)
    if isinstance(content, list):  # parts of text and pictures
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = " ".join(member(part, "text", "text", where) for part in parts)
    text = expect(content, "text", where, what)
    if speaker == "system":
        return "system", text
    if speaker in _ASKS or speaker in _ANSWERS:
        return ("asks" if speaker in _ASKS else "answers"), text
    raise UsageError(
        f"{where}: expected {who} to be one of {', '.join((*_ASKS, *_ANSWERS, 'system'))}, got {shown(speaker)}"
    )


def _file(row: dict[str, Any], turns: list[dict[str, Any]], where: str) -> str | None:
    """The one picture of a chat, by `image` or `images`, else by a part {"type": "image", "image": FILE}; or None."""
    given = row.get("image") or row.get("images") or []
    several = given if isinstance(given, list) else [given]
    if not several:
        parts = [part for turn in turns for content in turn.values() if isinstance(content, list) for part in content]
        pictures = [part for part in parts if isinstance(part, dict) and part.get("type") == "image"]
        several = [part[name] for part in pictures for name in ("image", "path") if part.get(name)]
    if len(several) > 1:
        raise UsageError(f"{where}: expected one picture, got {len(several)}; leave chats about several pictures out")
    return file_name(_named(several[0], where), where, "image") if several else None


def _named(picture: Any, where: str) -> Any:
    """The file of a picture that may be an object, {"path": FILE}, as data sets of the hub have it."""
    if not isinstance(picture, dict):
        return picture
    if picture.get("bytes"):
        raise UsageError(
            f"{where}: expected a picture's file, got its bytes; write them to files, and give their names"
        )
    named = next((picture[name] for name in ("path", "image", "file_name") if picture.get(name)), None)
    if named is None:
        raise UsageError(
            f'{where}: expected {{"path": FILE}}, got an object with {", ".join(map(str, picture)) or "nothing"}'
        )
    return named
