"""Read captions from the forms in which files store them: texts, lists of texts, and lists printed as text."""

import ast
import json
import re
import unicodedata
import warnings
from typing import Any

from capkit.errors import UsageError
from capkit.utils.text_files import shown

_NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
# Scripts without spaces between words: Thai to Myanmar, Khmer, kana, Han. One "word" may be a sentence.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
# A list of texts as printed by Python or JSON, or by numpy (without commas).
_PRINTED_LIST = re.compile(rf"\s*\[\s*(?:{_STRING}(?:(?:\s*,\s*|\s+){_STRING})*\s*,?)?\s*\]\s*", re.DOTALL)
_TEXT_MEMBERS = ("text", "caption", "raw")


def clean_text(text: str) -> str:
    """Clean a text to one line: collapse white space; remove control characters and lone surrogates; compose (NFC).

    JSON can contain lone surrogates, on which Rust tokenizers raise. A letter and a loose accent become the composed
    letter: byte-level and WordPiece tokenizers read the two as different words, which look alike.
    """
    return unicodedata.normalize("NFC", " ".join(_NOT_TEXT.sub(" ", text).split()))


def clean_lines(text: str) -> str:
    """Clean a text of several lines: each as by `clean_text`, without empty ones at both ends."""
    return "\n".join(clean_text(line) for line in text.splitlines()).strip()


def caption_texts(value: Any, where: str) -> list[str]:
    """The captions of one entry of a file: a text, {"text" or "caption" or "raw": text}, or a list of these.

    A list printed as text ("['a dog', 'one dog']", as found in tables) is parsed, with a warning. A list of one
    caption's words is an error, since each word would be learned or scored as a caption. Write one-word captions as
    objects: [{"text": "dog"}, {"text": "puppy"}, {"text": "pet"}].

    Raises UsageError for such lists, and for null, numbers and anything else that is not text.
    """
    items = value if isinstance(value, list) else [value]
    texts: list[str] = []
    for item in items:
        text = _text(item, where)
        listed = printed_list(text)
        if listed is not None:
            # The same message for all entries, so that Python shows it once.
            warnings.warn(
                "captions hold lists printed as text, such as \"['a dog', 'one dog']\"; each is read as its captions",
                stacklevel=2,
            )
            refuse_words(listed, where)
        texts += [text] if listed is None else listed
    if len(texts) > 1 and all(isinstance(item, str) for item in items):
        refuse_words(texts, where)
    return texts


def refuse_words(texts: list[str], where: str) -> None:
    """Raise UsageError if a list of captions is in fact the list of one caption's words."""
    if are_words(texts):
        raise UsageError(
            f"{where}: expected captions, got the words of one, {shown(texts)}; join them with spaces. If each is a "
            'caption of one word, write it as {"text": ...}'
        )


def _text(item: Any, where: str) -> str:
    text = item
    if isinstance(item, dict):
        text = next((item[name] for name in _TEXT_MEMBERS if name in item), item)
    if not isinstance(text, str):
        raise UsageError(f"{where}: expected a caption as text, or a list of them; got {shown(text)}")
    return text


def printed_list(text: str) -> list[str] | None:
    """Parse a list printed as text; None if the text is not one."""
    if "[" not in text or not _PRINTED_LIST.fullmatch(text):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        strings = re.findall(_STRING, text, re.DOTALL)
    try:
        return [ast.literal_eval(string.replace("\n", " ")) for string in strings]
    except (SyntaxError, ValueError):  # an escape that is invalid in Python
        return None


def are_words(texts: list[str]) -> bool:
    """Whether the texts are words of one caption: none has a space, and there are three, or one is a single character.

    For scripts without spaces, whose texts may be sentences, only the second condition counts.
    """
    if len(texts) < 2 or any(len(text.split()) != 1 for text in texts):
        return False
    has_character = any(len(text.strip()) == 1 for text in texts)
    return has_character or (len(texts) > 2 and not any(map(_UNSPACED.search, texts)))
