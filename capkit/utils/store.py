"""Cache folders for expensive results, each named by a hash of what it was computed with.

`about.json` in such a folder describes it in words: weights, preprocessing, prompt ... It is written first and checked
at each later use, so that no other result is read by mistake.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capkit.errors import UsageError
from capkit.utils.files import write_atomically

ABOUT = "about.json"
KEY_BYTES = 16


def digest(*parts: bytes) -> bytes:
    """A 16-byte hash of byte strings; lengths are hashed too, so that boundaries matter."""
    state = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def fingerprint(about: Mapping[str, Any]) -> str:
    """A hash of plain data, independent of the order of keys."""
    return digest(json.dumps(about, sort_keys=True, ensure_ascii=True).encode()).hex()


def check_about(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str, remedy: str) -> None:
    """Raises UsageError, naming each entry that differs."""
    differing = [
        f"{name} is {found.get(name, '(absent)')!r}, wanted {wanted.get(name, '(absent)')!r}"
        for name in {**wanted, **found}
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise UsageError(f"{where} was made with something else: {'; '.join(differing)}; {remedy}")


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write a folder's about.json."""
    write_atomically(folder / ABOUT, json.dumps(about, indent=1, sort_keys=True) + "\n")


def claim_folder(folder: Path, about: Mapping[str, Any], content: str, where: str, remedy: str) -> None:
    """Create a folder for `about`, or check an existing one. `content` is a pattern that matches its content files.

    Raises UsageError if the folder holds something else, or if its about.json is damaged, or missing although there is
    content. `where` names the folder in messages, `remedy` says what to do.
    """
    try:
        found = dict(json.loads((folder / ABOUT).read_bytes()))
    except FileNotFoundError:
        if any(folder.glob(content)):
            raise UsageError(f"{where} has {content} and no {ABOUT} that says of what; delete the folder") from None
        write_about(folder, about)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where} has a damaged {ABOUT} ({error}); delete the folder") from error
    else:
        check_about(found, about, where, remedy)
