"""Tokenize captions for metrics: with the COCO tools' tokenizer in English, by Unicode words in other languages."""

import re
import unicodedata
from collections.abc import Sequence

import regex

from capkit.errors import UsageError
from capkit.text.checked import checked_text, checked_texts
from capkit.text.ptb import ptb_tokenize

_CODE = re.compile(r"[a-z]{2,3}(?:[-_][a-z0-9]+)*", re.IGNORECASE)
# By first letter: ISO 639-1, and the codes that it has withdrawn (bh, in, iw, ji, jw, mo, sh). Codes of three letters
# are those of ISO 639-3, which has thousands: they are taken as they are.
_SECOND_LETTERS = {
    "a": "abefkmnrsvyz",
    "b": "aeghimnors",
    "c": "aehorsuvy",
    "d": "aevz",
    "e": "elnostu",
    "f": "afijory",
    "g": "adlnuv",
    "h": "aeiortuyz",
    "i": "adegiknostuw",
    "j": "aivw",
    "k": "agijklmnorsuvwy",
    "l": "abginotuv",
    "m": "ghiklnorsty",
    "n": "abdeglnorvy",
    "o": "cjmrs",
    "p": "ailst",
    "q": "u",
    "r": "mnouw",
    "s": "acdeghiklmnoqrstuvw",
    "t": "aeghiklnorstwy",
    "u": "gkrz",
    "v": "eio",
    "w": "ao",
    "x": "h",
    "y": "io",
    "z": "ahu",
}
_TURKIC = ("tr", "az")
# In scripts without spaces, one token per letter with its vowel signs. Otherwise words and numbers; an apostrophe,
# hyphen or middle dot between letters is part of the word (d'água, guarda-chuva, col·legi).
_WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}--\p{N}]\p{M}*"
    r"|\p{N}+(?:[.,:]\p{N}+)*(?!\p{L})"
    r"|[\p{L}\p{M}\p{N}\u200c\u200d]+(?:['\u2019\u00b7\u2010\u2011-][\p{L}\p{M}\p{N}\u200c\u200d]+)*",
    regex.VERSION1,
)


def normalize(text: str, language: str = "en") -> str:
    """The tokens of one caption, lower-case, without punctuation, joined by spaces. See `normalize_all`."""
    return normalize_all([checked_text(text, "text")], language)[0]


def normalize_all(lines: Sequence[str], language: str = "en") -> list[str]:
    """The tokens of each caption, joined by spaces.

    English ("en", "en-GB") uses `ptb_tokenize`, as the official metrics do. Other languages are composed (NFC) and
    lower-cased, accents are kept, punctuation and symbols removed; see docs/ptb_tokenizer.md. Raises UsageError for an
    invalid language code or lines that are not a list of texts.
    """
    lines, primary = checked_texts(lines, "lines"), primary_language(language)
    if primary == "en":
        return ptb_tokenize(lines)
    return [" ".join(_WORD.findall(_lower(unicodedata.normalize("NFC", line), primary))) for line in lines]


def primary_language(language: object) -> str:
    """The primary language of a code, e.g. "en" of "en-GB". Raises UsageError for an invalid code, and for two letters
    that are no language's.
    """
    if not isinstance(language, str) or not _CODE.fullmatch(language):
        raise UsageError(f"language must be a code such as 'en', 'pt' or 'zh-TW'; got {language!r}; give one of these")
    primary = re.split("[-_]", language.lower())[0]
    if primary == "eng":
        raise UsageError(f"language: expected the shortest code of English, got {language!r}; give en")
    if len(primary) == 2 and primary[1] not in _SECOND_LETTERS.get(primary[0], ""):
        raise UsageError(
            f"language: expected a language's code, got {language!r}, which is none of ISO 639; give the language's, "
            "not the country's: ja (not jp), zh (not cn), ko, el, da"
        )
    return primary


def _lower(text: str, language: str) -> str:
    if language in _TURKIC:
        text = text.replace("I", "\u0131").replace("\u0130", "i")
    return text.lower().replace("\u2019", "'")
