"""Tokens for caption metrics in any language: the COCO tools' tokenizer for English, Unicode words for the others."""

import re
import unicodedata
from collections.abc import Sequence

import regex

from capkit.errors import UsageError
from capkit.text.checked import checked_text, checked_texts
from capkit.text.ptb import ptb_tokenize

_CODE = re.compile(r"[a-z]{2,3}(?:[-_][a-z0-9]+)*", re.IGNORECASE)
_TURKIC = ("tr", "az")
# Scripts written without spaces: one token per letter, with its vowel signs. Otherwise words and numbers; an
# apostrophe, hyphen or middle dot between letters belongs to the word (d'água, guarda-chuva, col·legi).
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

    English ("en", "en-GB") is read by `ptb_tokenize`, as the official metrics do. Any other language: composed (NFC),
    lower-case, accents intact, punctuation and symbols removed; see docs/ptb_tokenizer.md. Raises UsageError where
    `language` is no language code, or `lines` no list of texts.
    """
    lines, primary = checked_texts(lines, "lines"), primary_language(language)
    if primary == "en":
        return ptb_tokenize(lines)
    return [" ".join(_WORD.findall(_lower(unicodedata.normalize("NFC", line), primary))) for line in lines]


def primary_language(language: object) -> str:
    """ "en" of "en-GB". Raises UsageError for what is no language code."""
    if not isinstance(language, str) or not _CODE.fullmatch(language):
        raise UsageError(f"language wants a code such as 'en', 'pt' or 'zh-TW'; got {language!r}; give one of these")
    return re.split("[-_]", language.lower())[0]


def _lower(text: str, language: str) -> str:
    if language in _TURKIC:
        text = text.replace("I", "\u0131").replace("\u0130", "i")
    return text.lower().replace("\u2019", "'")
