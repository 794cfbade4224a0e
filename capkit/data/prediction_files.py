"""Read predictions and references (COCO, Karpathy, JSON by image id or in lines, CSV), and match the images of two."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from posixpath import splitext
from typing import Any

from capkit.data.images import EXTENSIONS
from capkit.data.prediction_tables import is_table, is_training_table, table_rows
from capkit.data.sources.caption_files import read_captions as read_table_or_json
from capkit.data.sources.chat_rows import is_chat
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts, clean_text
from capkit.utils.text_files import Located, expect, has_lone_surrogate, member, read_json_or_lines, shown, split_name

_ANNOTATION_ID = "id"  # of a COCO annotation; taken as an image's only if nothing else names the image
_IDS = (
    "image_id", "key", "image", "file_name", "filename", "file", "path", "image_name", "image_path", _ANNOTATION_ID,
)  # fmt: skip
_CAPTIONS = ("caption", "captions", "references", "text")
_COCO = {"info", "licenses", "type", "images", "annotations"}
_SHAPES = (
    'expected a list of {"image_id": .., "caption": ".."}, {"annotations": [the same]}, Karpathy\'s {"images": '
    '[{"sentences": ..}]}, {id: [captions]}, or JSON lines of {"image_id" or "image" or "key": .., "caption" or '
    '"captions" or "references": ..}'
)


@dataclass
class CaptionFile:
    """The captions of each image of a file, by the image's id as text, in the file's order.

    `names` are other names of an image in the file: its file name, or another number. `splits` is the split of each
    image, if the file has splits.
    """

    path: Path
    captions: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)

    def add(self, image: str, texts: Iterable[str], names: Iterable[str] = ()) -> None:
        self.captions.setdefault(image, []).extend(clean_text(text) for text in texts)
        self.names.setdefault(image, []).extend(names)

    def called(self, image: str) -> list[str]:
        return [image, *self.names[image]]


def read_captions(path: str | Path, what: str) -> CaptionFile:
    """Read all captions of each image, cleaned as in training, whose tables are read too. Raises UsageError for other
    formats.
    """
    if is_training_table(path, what):
        return _of_training(Path(path))
    values = table_rows(path, what) if is_table(path) else read_json_or_lines(path, what)
    if values and _holds_chats(values[0].value):
        return _of_training(Path(path))
    file = CaptionFile(Path(path))
    if len(values) == 1 and not is_table(path):
        _read_document(values[0].value, file)
    else:
        _add_rows(values, file)
    if not file.captions:
        raise UsageError(f"{path}: no captions in it; {_SHAPES}")
    without = [image for image, texts in file.captions.items() if not texts]
    if without:
        raise UsageError(
            f"{path}: expected a caption or more of each image, got none of {len(without)}: {named(without)}; write '' "
            "for an empty one, or take these images out"
        )
    return file


def _holds_chats(value: Any) -> bool:
    return is_chat(value) or (isinstance(value, list) and len(value) > 0 and is_chat(value[0]))


def _of_training(path: Path) -> CaptionFile:
    file = CaptionFile(path)
    for row in read_table_or_json(path):
        key, image = row.record.key, row.record.image
        file.add(key, [caption.text for caption in row.record.captions], [] if image in (None, key) else [str(image)])
        if row.split is not None:
            file.splits[key] = row.split
    return file


def _read_document(content: Any, file: CaptionFile) -> None:
    where = str(file.path)
    if isinstance(content, list):
        _add_rows(_entries(content, where), file)
    elif not isinstance(content, dict):
        raise UsageError(f"{where}: {_SHAPES}; got {shown(content)}")
    elif "annotations" in content:
        _add_coco(content, file)
    elif _is_karpathy(content):
        _add_karpathy(content["images"], file)
    elif content and set(content) <= _COCO:
        raise UsageError(
            f"{where}: no 'annotations' in it, only {', '.join(content)}: it lists images without captions, as COCO's "
            "image_info files do; give the annotation file, captions_*.json"
        )
    elif any(name in content for name in _CAPTIONS):
        _add_rows([Located(where, content)], file)
    else:
        _add_by_id(content, file)


def _is_karpathy(content: dict[str, Any]) -> bool:
    images = content.get("images")
    return isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images)


def _entries(rows: list[Any], where: str, name: str = "entry") -> Iterator[Located]:
    return (Located(f"{where} {name} {number}", row) for number, row in enumerate(rows, 1))


def _add_rows(rows: Iterable[Located], file: CaptionFile) -> None:
    for where, row in rows:
        if isinstance(row, list):
            raise UsageError(f"{where}: expected an object, got {shown(row)}; make one flat list of nested ones")
        expect(row, "an object", where)
        called = [name for name in _IDS if name in row]
        captions = next((name for name in _CAPTIONS if name in row), None)
        if not called or captions is None:
            wanted = ("image_id", "image", "key") if not called else _CAPTIONS
            raise UsageError(f"{where}: no {' or '.join(map(repr, wanted))} in it, got {shown(row)}; {_SHAPES}")
        image, *names = (_id(row[name], where, name) for name in called if name != _ANNOTATION_ID or len(called) == 1)
        file.add(image, caption_texts(row[captions], where), names)


def _id(value: Any, where: str, name: str) -> str:
    image = str(expect(value, "text or a whole number", where, name))
    if has_lone_surrogate(image):
        raise UsageError(f"{where}: {name!r} holds half a character, which is no text; got {shown(image)}; correct it")
    return image


def _add_by_id(content: dict[str, Any], file: CaptionFile) -> None:
    """{id: captions}, and pycocoevalcap's {id: [{"image_id": id, "caption": ..}]}."""
    for image, captions in content.items():
        where = f"{file.path}, image {shown(image)}"
        for item in captions if isinstance(captions, list) else [captions]:
            other = isinstance(item, dict) and next((item[name] for name in _IDS[:-1] if name in item), image)
            if isinstance(item, dict) and str(other) != image:
                raise UsageError(
                    f"{where}: expected the captions of that image, got an entry of image {shown(other)}; where "
                    f"{shown(image)} is no image but holds the list of entries, give that list alone"
                )
        file.add(_id(image, where, "id"), caption_texts(captions, where))


def _add_coco(content: dict[str, Any], file: CaptionFile) -> None:
    """COCO annotations. Images without any are left out; annotations of unlisted images are errors."""
    where = str(file.path)
    rows = list(_entries(member(content, "annotations", "a list", where), where, "annotation"))
    listed = content.get("images") is not None
    images = _entries(member(content, "images", "a list", where), where, "image") if listed else iter(())
    names: dict[str, list[str]] = {}
    for place, image in images:
        known = _id(member(expect(image, "an object", place), "id", "text or a whole number", place), place, "id")
        if known in names:
            raise UsageError(f"{place}: two images have the id {known}; give each image its own id")
        names[known] = [_id(image["file_name"], place, "file_name")] if "file_name" in image else []
    annotated = CaptionFile(file.path)
    _add_rows(rows, annotated)
    missing = [image for image in annotated.captions if image not in names] if listed else []
    if missing:
        raise UsageError(
            f"{where}: annotations of {len(missing)} images that 'images' does not list: {named(missing)}; add these "
            "images, or take their annotations out"
        )
    for image, texts in annotated.captions.items():
        file.add(image, texts, [*annotated.names[image], *names.get(image, [])])


def _add_karpathy(images: list[Any], file: CaptionFile) -> None:
    """Karpathy's images, identified by COCO id or else, as in data=karpathy, by path without extension."""
    for where, image in _entries(images, str(file.path), "image"):
        filename = member(expect(image, "an object", where), "filename", "text", where)
        coco = image.get("cocoid")
        in_folder = [f"{image['filepath']}/{filename}"] if image.get("filepath") else []
        path = PurePosixPath(splitext((*in_folder, filename)[0])[0])
        known = path.as_posix() if coco is None else _id(coco, where, "cocoid")
        if known in file.captions:
            raise UsageError(f"{where}: two images have the id {known!r}; give each image its own")
        numbers = [_id(image["imgid"], where, "imgid")] if coco is None and "imgid" in image else []
        texts = caption_texts(member(image, "sentences", "a list", where), where)
        file.add(known, texts, [filename, *in_folder, *numbers])
        if "split" in image:
            # COCO's restval images belong to train.
            file.splits[known] = "train" if image["split"] == "restval" else split_name(image["split"], where)


def named(images: list[str], most: int = 5) -> str:
    rest = len(images) - most
    return ", ".join(images[:most]) + (f" and {rest} more" if rest > 0 else "")


def match(predictions: CaptionFile, references: CaptionFile) -> dict[str, list[str]]:
    """Map the id of each predicted image in the references to its predicted captions.

    Images are matched by id, by file name (complete, or below different folders), or by number without leading zeros.
    Raises UsageError if a predicted image has no references or matches several images.
    """
    index = _Index(references)
    found: dict[str, list[str]] = {}
    unknown = []
    for image, captions in predictions.captions.items():
        hits = index.find(predictions.called(image))
        if len(hits) > 1:
            raise UsageError(
                f"{predictions.path}: image {image!r} could be {' or '.join(sorted(hits))} of {references.path}; name "
                "it by one of these"
            )
        unknown += [] if hits else [image]
        for hit in hits:
            found.setdefault(hit, []).extend(captions)
    if unknown:
        raise UsageError(
            f"{predictions.path}: expected images that have references, got {len(unknown)} of "
            f"{len(predictions.captions)} that have none: {named(unknown)}; {references.path} knows "
            f"{named(list(references.captions), most=3)}; take them out, give the references of that split, or give "
            "references that name images in the same way (COCO's annotations, whose 'images' hold id and file_name)"
        )
    return found


def one_each(captions: dict[str, list[str]], path: str | Path) -> dict[str, str]:
    """The one caption of each image. Raises UsageError for an image with several."""
    repeated = [f"{image} ({', '.join(map(repr, texts))})" for image, texts in captions.items() if len(texts) > 1]
    if repeated:
        raise UsageError(
            f"{path}: expected one caption per image, got several of {len(repeated)} images: "
            f"{named(repeated)}; keep one each"
        )
    return {image: texts[0] for image, texts in captions.items()}


def images_to_score(predicted: Mapping[str, Sequence[str]], references: CaptionFile, missing: str) -> list[str]:
    """The images to score, in the references' order. Raises UsageError if one has no prediction."""
    wanted = list(references.captions)
    if references.splits:
        splits = {references.splits.get(image) for image in predicted}
        wanted = [image for image in wanted if references.splits.get(image) in splits]
    without = [image for image in wanted if image not in predicted]
    if without and missing == "error":
        raise UsageError(
            f"expected a prediction for every image with references; {len(without)} of {len(wanted)} have none: "
            f"{named(without)}; add them, or give missing=ignore to score only the predicted images"
        )
    return [image for image in wanted if image in predicted]


class _Index:
    """The images of a file by all of their names."""

    def __init__(self, file: CaptionFile) -> None:
        self._ids = file.captions
        self._names: dict[str, set[str]] = {}
        self._ends: dict[str, set[str]] = {}
        self._numbers: dict[str, set[str]] = {}
        for image in file.captions:
            for name in file.called(image):
                for spelling in _spellings(name):
                    self._names.setdefault(spelling, set()).add(image)
                    for end in _ends(spelling):
                        self._ends.setdefault(end, set()).add(image)
            if image.isdecimal():
                self._numbers.setdefault(_number(image), set()).add(image)

    def find(self, names: list[str]) -> set[str]:
        """The images matched by the first of these names that matches any; several if it is ambiguous."""
        return next((found for name in names if (found := self._called(name))), set())

    def _called(self, name: str) -> set[str]:
        """Apply the matching rules from strict to loose, and return the first match."""
        if name in self._ids:
            return {name}
        spellings = _spellings(name)
        whole = (self._ends.get(spelling, set()) for spelling in spellings)
        behind_folders = (self._names.get(end, set()) for spelling in spellings for end in _ends(spelling))
        number = self._numbers.get(_number(name), set()) if name.isdecimal() else set()
        return next(filter(None, (*whole, *behind_folders, number)), set())


def _spellings(name: str) -> list[str]:
    """A file name with and without extension; a number keeps it, since 11.jpg need not be image 11."""
    path = PurePosixPath(name)
    known = path.suffix.lower() in EXTENSIONS and not path.stem.isdecimal()
    return [name, str(path.with_suffix(""))] if known else [name]


def _ends(name: str) -> Iterator[str]:
    """a/b/c.jpg, b/c.jpg, c.jpg."""
    parts = PurePosixPath(name).parts
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _number(digits: str) -> str:
    return digits.lstrip("0") or "0"
