"""Prompts are files: `prompts/blend_v1.txt` is the prompt "blend_v1". To change one, write a file of a new version."""

import hashlib
import string
from collections.abc import Sequence
from pathlib import Path

from capkit.errors import UsageError, did_you_mean

_FOLDER = Path(__file__).parent / "prompts"


class Prompt:
    """A prompt with places to fill ($captions), by the name of one that ships or the path of a .txt file.

    `fields` are the places that it has to have, no more and no fewer. `name` is its version in records and reports.
    """

    def __init__(self, prompt: str, fields: Sequence[str]) -> None:
        path = Path(prompt) if prompt.endswith(".txt") else _FOLDER / f"{prompt}.txt"
        if not path.is_file():
            shipped = [file.stem for file in _FOLDER.glob("*.txt")]
            raise UsageError(f"prompt {prompt!r} is no .txt file and none that ships; {did_you_mean(prompt, shipped)}")
        self.name = path.stem
        self._template = string.Template(path.read_text(encoding="utf-8").strip())
        found = self._template.get_identifiers()
        if not self._template.is_valid() or sorted(found) != sorted(fields):
            raise UsageError(
                f"prompt {path} wants the places {', '.join(f'${name}' for name in fields) or '(none)'}, each once or "
                f"more, and $$ for a dollar sign; it has {', '.join(f'${name}' for name in found) or 'none'}"
            )

    def fingerprint_fields(self) -> dict[str, str]:
        digest = hashlib.sha256(self._template.template.encode()).hexdigest()[:16]
        return {"name": self.name, "sha256": digest}

    def fill(self, **values: str) -> str:
        return self._template.substitute(values)


def numbered(lines: Sequence[str]) -> str:
    """One line each, "1. ..." and so on."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
