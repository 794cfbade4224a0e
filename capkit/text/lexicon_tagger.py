"""Parts of speech from a file of words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capkit.errors import UsageError
from capkit.utils.store import digest
from capkit.utils.text_files import existing_file

UNKNOWN = "X"


class LexiconTagger:
    """Tags each word as a file says, whatever stands around it; words that it lacks are "X".

    `file` has a word and its tag a line, with a tab or a comma between them. Case does not count. `language` is that of
    its words. Raises UsageError for a line of another form, a word with two tags, and captions in another language.
    """

    def __init__(self, file: str, language: str = "en") -> None:
        path = existing_file(file, "tagger.file")
        self._language, self._tags = language, dict[str, str]()
        content = path.read_bytes()
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            if line.strip():
                word, tag = _parts(line, path, number)
                if self._tags.setdefault(word, tag) != tag:
                    raise UsageError(
                        f"{path} line {number}: expected one tag of each word, got {self._tags[word]!r} and {tag!r} of "
                        f"{word!r}; leave one out"
                    )
        self._about = {"tagger": "lexicon", "hash": digest(content).hex(), "language": language}

    def about(self) -> dict[str, Any]:
        return self._about

    def tag(self, words: Sequence[str], language: str) -> list[str]:
        if language != self._language:
            raise UsageError(f"LexiconTagger: expected language={self._language}, got {language!r}; give another file")
        return [self._tags.get(word.casefold(), UNKNOWN) for word in words]


def _parts(line: str, path: Path, number: int) -> tuple[str, str]:
    parts = [part.strip() for part in line.split("\t" if "\t" in line else ",")]
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"{path} line {number}: expected a word, a tab or a comma, and its tag, got {line[:60]!r}")
    return parts[0].casefold(), parts[1]
