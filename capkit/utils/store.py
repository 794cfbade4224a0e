"""Folders that keep what took time to compute, each under a hash of what it was computed with.

`about.json` in such a folder says so in words: weights, preprocessing, prompt ... It is written first and checked at
each later use, so that nothing is read for something else.
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
    """16 bytes that stand for byte strings, each told apart from its neighbours."""
    state = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def fingerprint(about: Mapping[str, Any]) -> str:
    """A hash of plain data, whatever the order of its keys."""
    return digest(json.dumps(about, sort_keys=True, ensure_ascii=True).encode()).hex()


def check_about(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str, remedy: str) -> None:
    """Raises UsageError that names each entry in which the two differ."""
    differing = [
        f"{name} is {found.get(name, '(absent)')!r}, wanted {wanted.get(name, '(absent)')!r}"
        for name in {**wanted, **found}
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise UsageError(f"{where} was made with something else: {'; '.join(differing)}; {remedy}")


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Says what a folder holds."""
    write_atomically(folder / ABOUT, json.dumps(about, indent=1, sort_keys=True) + "\n")


def claim_folder(folder: Path, about: Mapping[str, Any], content: str, where: str, remedy: str) -> None:
    """Makes a folder that holds what `about` says, or checks one that is there; files of its content match `content`.

    Raises UsageError where it holds something else, and where its about.json is damaged, or absent beside content;
    `where` names the folder, `remedy` says how to go on with another one.
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
