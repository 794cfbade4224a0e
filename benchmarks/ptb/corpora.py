"""Four corpora that nobody here wrote, for the parity of the PTB tokenizer; fetched, never committed."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from capkit.errors import UsageError

_EXAMPLE = re.compile(r';\s+(?=")')
_TITLE = re.compile(r"<dc:(?:title|description)[^>]*>([^<]*)<")
_LINE_BREAKS = re.compile("[\n\r\v\f\u2028\u2029]")


def wordnet_lines(folder: Path) -> list[str]:
    """Definitions and examples of WordNet 3.0 (Debian wordnet-base)."""
    entries = [
        line
        for path in sorted(folder.rglob("data.*"))
        for line in path.read_text("utf-8").split("\n")
        if " | " in line and not line.startswith("  ")
    ]
    return _clean(part for entry in entries for part in _EXAMPLE.split(entry.partition(" | ")[2].strip()))


def stamp_lines(folder: Path) -> list[str]:
    """English captions of the Tux Paint stamps (Debian tuxpaint-stamps-default): each file's first line."""
    return _clean(
        path.read_text("utf-8", errors="replace").partition("\n")[0] for path in sorted(folder.rglob("*.txt"))
    )


def clipart_lines(folder: Path) -> list[str]:
    """Titles and descriptions in openclipart's metadata (Debian openclipart-svg)."""
    texts = (path.read_text("utf-8", errors="replace") for path in sorted(folder.rglob("*.svg")))
    return _clean(html.unescape(found) for text in texts for found in _TITLE.findall(text))


def emoji_lines(folder: Path) -> list[str]:
    """English names, tags and skin-tone names of emoji, and each emoji with its name (npm emojibase-data)."""
    entries = json.loads((folder / "en" / "data.json").read_text("utf-8"))
    lines = [entry["label"] for entry in entries]
    lines += [tag for entry in entries for tag in entry.get("tags", [])]
    lines += [skin["label"] for entry in entries for skin in entry.get("skins", [])]
    return _clean(lines + [f"{entry['emoji']} {entry['label']}" for entry in entries])


def debian_package(name: str, cache: Path) -> Path:
    """Folder with the package's files, downloaded without installing it."""
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", name], cache, f"--{_OPTIONS[name]} DIR")
        archive = max(cache.glob(f"{name}_*.deb"))
        partial = cache / f"{name}.partial"
        _run(["dpkg-deb", "-x", str(archive), str(partial)], cache, f"--{_OPTIONS[name]} DIR")
        partial.rename(folder)
    return folder


def npm_package(name: str, cache: Path) -> Path:
    """Folder with the package's files."""
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        _run(["npm", "pack", name], cache, f"--{_OPTIONS[name]} DIR")
        partial = cache / f"{name}.partial"
        shutil.unpack_archive(max(cache.glob(f"{name}-*.tgz")), partial)
        (partial / "package").rename(folder)
        partial.rmdir()
    return folder


_OPTIONS = {
    "wordnet-base": "wordnet",
    "tuxpaint-stamps-default": "stamps",
    "openclipart-svg": "clipart",
    "emojibase-data": "emoji",
}


def _run(command: list[str], folder: Path, option: str) -> None:
    program = shutil.which(command[0])
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True) if program else None
    if done is None or done.returncode:
        reason = (done.stderr.strip()[-300:] or "no message") if done else f"there is no {command[0]} here"
        raise UsageError(
            f"wanted `{' '.join(command)}` to fetch a corpus; got: {reason}; "
            f"run `apt-get update`, check the network, or give the files with {option}"
        )


def _clean(lines: Iterable[str]) -> list[str]:
    """Without empty lines; a line break within a line becomes a space, as a caption's would have to."""
    return [clean for line in lines if (clean := _LINE_BREAKS.sub(" ", line)).strip()]
