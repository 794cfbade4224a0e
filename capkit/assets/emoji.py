"""Emoji as pictures with a name in each of several languages, in the format of Tux Paint's stamps.

Names are those of Unicode's CLDR, as the PyPI package `emoji` has them; pictures are drawn by Noto Color Emoji.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from capkit.errors import UsageError

STRIKE = 109  # the font's only size, in pixels
CANVAS = (136, 128)  # of a glyph of that size
FULLY_QUALIFIED = 2  # `status` of an emoji that is written out in full
VARIATION = "\ufe0f"  # asks for the coloured form
CODES = {"pt": "pt_BR"}  # CLDR's Portuguese is that of Brazil


def emoji_names(folder: Path) -> dict[str, dict[str, str]]:
    """Of each emoji of one character: its name by language, English first ("en", "de", "pt_BR" ...).

    Sequences (flags, families, shades of skin) are left out, and with them names that differ in a detail alone.
    """
    english = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    others = {
        file.stem.removeprefix("emoji_"): json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob("emoji_*.json"))
    }
    found = {}
    for text, entry in english.items():
        if entry["status"] == FULLY_QUALIFIED and len(text.removesuffix(VARIATION)) == 1:
            names = {CODES.get(code, code): names[text] for code, names in others.items() if text in names}
            found[text[0]] = {code: _words(name) for code, name in {"en": entry["en"], **names}.items()}
    return found


def _words(name: str) -> str:
    """ ":anger_symbol:" is "anger symbol"."""
    return name.strip(":").replace("_", " ")


def write_emoji(names: Mapping[str, Mapping[str, str]], font: Path, folder: Path) -> int:
    """A PNG and a .txt for each emoji that the font has; returns how many. Younger ones than the font are left out."""
    glyphs = ImageFont.truetype(str(font), STRIKE, layout_engine=ImageFont.Layout.BASIC)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for character, by_language in names.items():
        picture = Image.new("RGBA", CANVAS)
        ImageDraw.Draw(picture).text((0, 0), character, font=glyphs, embedded_color=True)
        if picture.getbbox() is None:
            continue
        stem = folder / f"{ord(character):x}"
        picture.save(stem.with_suffix(".png"))
        others = [f"{code}.utf8={name}" for code, name in by_language.items() if code != "en"]
        stem.with_suffix(".txt").write_text("\n".join([by_language["en"], *others]) + "\n", encoding="utf-8")
        count += 1
    if not count:
        raise UsageError(f"{font} draws none of {len(names)} emoji; delete its package from downloads/ and fetch again")
    return count
