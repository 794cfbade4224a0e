"""OUT.attention.jsonl, where a captioner looked at each word of its captions; and a page that lays it on pictures."""

import base64
import html
import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from capkit.errors import UsageError
from capkit.reports.shell import page_html, thumbnail
from capkit.utils.files import add_to_file, write_atomically
from capkit.utils.text_files import expect, parse_json

NOTE = (
    "The picture as the model sees it, then once for each word: the redder, the more of its attention. Mean over "
    "layers and heads, and over the tokens of a word, of the pass that predicts them; a word's reddest cell is its "
    "strongest."
)
OWN_STYLE = """
.words { display: flex; flex-wrap: wrap; gap: .6rem; margin-bottom: 1.6rem }
.words figure { margin: 0; text-align: center } .words img { width: 96px; height: 96px; background: var(--soft) }
.words figcaption { font-size: 13px; color: var(--quiet) }
"""
_DIGITS = 4  # significant, of a share in the file


class AttentionFile:
    """JSON lines beside a file of captions: `image`, `caption`, `words`, and `attention`, rows of cells for each word.

    A line is written before its caption is, so that no caption lacks it. An image may have several lines where writing
    was cut off, all alike.
    """

    def __init__(self, captions: Path) -> None:
        self.path = captions.with_name(f"{captions.name.removesuffix('.jsonl')}.attention.jsonl")
        self.page = self.path.with_suffix(".html")

    def start(self, captioned: Collection[str]) -> None:
        """Go on behind the images that have captions; without any, begin anew.

        Raises UsageError if the attention of one of them is not in the file.
        """
        if not captioned:
            self.path.unlink(missing_ok=True)
            return
        if self.path.exists():
            whole, newline, _ = self.path.read_bytes().rpartition(b"\n")  # without a line that was cut off
            self.path.write_bytes(whole + newline)
        missing = set(captioned) - {row["image"] for row in self.rows()}
        if missing:
            raise UsageError(
                f"{self.path}: expected the attention of all {len(captioned)} images that have captions, got none of "
                f"{sorted(missing)[0]}; give another out=FILE"
            )

    def append(self, image: str, caption: str, words: Sequence[str], shares: Float[np.ndarray, "W S S"]) -> None:
        cells = [[[float(f"{share:.{_DIGITS}g}") for share in row] for row in word] for word in shares]
        line = {"image": image, "caption": caption, "words": list(words), "attention": cells}
        add_to_file(self.path, json.dumps(line, ensure_ascii=False) + "\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines, but for one that was cut off. Raises UsageError, with its number, if a line is anything else."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.endswith("\n"):
                    yield expect(parse_json(line, f"{self.path} line {number}"), "an object", str(self.path))

    def write_page(self, title: str, picture: Callable[[str], UInt8[np.ndarray, "P P 3"]], most: int) -> None:
        """One row for each of the first `most` images; `picture` gives what the model sees of an image."""
        shown: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            shown[row["image"]] = row
            if len(shown) == most:
                break
        parts = [_captioned(row, picture(image)) for image, row in shown.items()]
        note = f"<p class='note'>{html.escape(f'{NOTE} All images: {self.path.name}.')}</p>"
        write_atomically(self.page, page_html(title, f"{note}{''.join(parts)}", OWN_STYLE))


def _captioned(row: dict[str, Any], picture: UInt8[np.ndarray, "P P 3"]) -> str:
    figures = [_figure(thumbnail(picture), row["image"])]
    for word, shares in zip(row["words"], row["attention"], strict=True):
        figures.append(_figure(png_url(overlay(picture, np.array(shares))), word))
    return f"<div class='caption'>{html.escape(row['caption'])}</div><div class='words'>{''.join(figures)}</div>"


def _figure(url: str, text: str) -> str:
    shown = html.escape(text)
    return f"<figure><img src='{url}' alt='{shown}'><figcaption dir='auto'>{shown}</figcaption></figure>"


def overlay(picture: UInt8[np.ndarray, "P P 3"], shares: Float[np.ndarray, "S S"]) -> UInt8[np.ndarray, "96 96 3"]:
    """The picture in pale grey, under red as strong as the attention to each cell, relative to the strongest."""
    gray = np.asarray(Image.fromarray(picture).convert("L").resize((96, 96), Image.Resampling.BILINEAR), dtype=float)
    heat = Image.fromarray((shares / shares.max()).astype(np.float32)).resize((96, 96), Image.Resampling.NEAREST)
    strength = 0.8 * np.asarray(heat)[..., None]
    blended = (1 - strength) * (0.6 * gray[..., None] + 100) + strength * np.array([220.0, 38.0, 38.0])
    return blended.round().astype(np.uint8)


def png_url(picture: UInt8[np.ndarray, "P P 3"]) -> str:
    """A picture of any size as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
