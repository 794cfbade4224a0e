"""Prompts in files: `prompts/blend_v1.txt` is "blend_v1". To change a prompt, add a file with a new version."""

import hashlib
import string
from collections.abc import Sequence
from pathlib import Path

from capkit.errors import UsageError, did_you_mean

_FOLDER = Path(__file__).parent / "prompts"


class Prompt:
    """A prompt template with fields ($captions): the name of a bundled one, or the path of a .txt file.

    It must have exactly the given `fields`, and may have `optional` ones. `name` identifies its version in records and
    reports.
    """

    def __init__(self, prompt: str, fields: Sequence[str], optional: Sequence[str] = ()) -> None:
        path = Path(prompt) if prompt.endswith(".txt") else _FOLDER / f"{prompt}.txt"
        if not path.is_file():
            shipped = [file.stem for file in _FOLDER.glob("*.txt")]
            raise UsageError(
                f"prompt {prompt!r} is neither a .txt file nor a bundled prompt; {did_you_mean(prompt, shipped)}"
            )
        self.name = path.stem
        self._template = string.Template(path.read_text(encoding="utf-8").strip())
        found = self._template.get_identifiers()
        if not self._template.is_valid() or not set(fields) <= set(found) <= {*fields, *optional}:
            raise UsageError(
                f"prompt {path}: expected the fields {', '.join(f'${name}' for name in fields) or '(none)'}, each at "
                f"least once, and $$ for a dollar sign; got {', '.join(f'${name}' for name in found) or 'none'}"
            )

    def fingerprint_fields(self) -> dict[str, str]:
        digest = hashlib.sha256(self._template.template.encode()).hexdigest()[:16]
        return {"name": self.name, "sha256": digest}

    def fill(self, **values: str) -> str:
        return self._template.substitute(values)


def numbered(lines: Sequence[str]) -> str:
    """Number the lines: "1. ...", "2. ..."."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
