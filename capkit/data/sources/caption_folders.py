"""Captions of a folder: the tables of Hugging Face's image folders, or text files named as the pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow, check_rows, read_captions
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.text_files import SPLIT_OF, read_text

METADATA = ("metadata.jsonl", "metadata.csv")


def metadata_tables(folder: Path) -> list[Path]:
    """The metadata.jsonl or metadata.csv of a folder and of the folders in it, as `datasets` lays image folders out."""
    return sorted(path for name in METADATA for at in ("", "*/") for path in folder.glob(f"{at}{name}"))


def read_metadata(folder: Path, tables: Sequence[Path]) -> list[CaptionRow]:
    """Read the tables of an image folder. Each names files relative to itself.

    An image's split is that of its row, else of the first folder on its way that is named as one (`train`,
    `validation`, `test`).
    """
    rows = []
    for table in tables:
        above = PurePosixPath(table.parent.relative_to(folder).as_posix())
        for row in read_captions(table):
            if row.record.image is None:
                raise UsageError(
                    f"{table}: expected an image in each row, got none for {row.record.key!r}; name its file"
                )
            file = (above / row.record.image).as_posix()
            named = (SPLIT_OF.get(part.lower()) for part in PurePosixPath(file).parent.parts)
            split = row.split or next(filter(None, named), None)
            rows.append(CaptionRow(replace(row.record, key=file, image=file), split))
    check_rows(rows, str(folder))
    return rows


def read_sidecars(folder: Path, images: Sequence[str]) -> list[CaptionRow]:
    """Read captions, one per line, from text files named like the images ("a.txt" for "a.jpg"); skip other images."""
    rows = []
    for image in images:
        file = (folder / image).with_suffix(".txt")
        if file.is_file():
            lines = enumerate(read_text(file, "captions").split("\n"), 1)
            texts = [caption_texts(line, f"{file} line {number}") for number, line in lines if line.strip()]
            rows.append(CaptionRow(Record(image, image, [Caption(text) for row in texts for text in row])))
    if not rows:
        raise UsageError(
            f"captions: no text file in {str(folder)!r} is named like an image, such as "
            f"{Path(images[0]).with_suffix('.txt').as_posix() if images else 'a.txt for a.jpg'!r}, and there is no "
            f"{' or '.join(METADATA)}"
        )
    return rows
