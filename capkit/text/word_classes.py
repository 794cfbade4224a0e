"""Which module of a modular captioner a word is for, by its part of speech; and each token, by its word."""

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from capkit.errors import UsageError, did_you_mean
from capkit.text.tagging import Tagger
from capkit.text.tokenizers import WORD, CaptionEncoder
from capkit.utils.yaml_files import load_yaml

MODULES = ("function", "object", "relation", "attribute")
"""Classes of words, in the order of a controller's weights, which is that of the released programs."""

FUNCTION = MODULES.index("function")
NO_CLASS = -1
_FOLDER = Path(__file__).parent / "word_classes_of"
_WORD = re.compile(WORD)
_MOST_KEPT = 200_000  # captions whose classes are remembered


def words(text: str) -> list[str]:
    """The words and marks of a text that a tagger gets, and `Caption.tags` has a tag for each of."""
    return [found[0] for found in _WORD.finditer(text)]


class WordClasses:
    """The class of each token's word, for `objective=modular`.

    Args:
        classes: A bundled file (capkit/text/word_classes_of) or a .yaml file of lists of tags for each of `MODULES`:
            "published" has determiners among objects, as the released programs have them, "determiners_apart" among
            functions.
        tagger: Tags captions that have no `tags` of their own (`step=[tag_words]` writes them); null: those are an
            error.

    A token of several words has the first one's class. Tokens of no word, and tags that the file does not list, are
    functions; the latter with a warning.
    """

    def __init__(self, classes: str = "published", tagger: Tagger | None = None) -> None:
        path = Path(classes) if classes.endswith((".yaml", ".yml")) else _FOLDER / f"{classes}.yaml"
        if not path.is_file():
            shipped = [file.stem for file in _FOLDER.glob("*.yaml")]
            raise UsageError(f"data.word_classes.classes: there is no {classes!r}; {did_you_mean(classes, shipped)}")
        self._class_of = dict(_tags_of_file(path))
        self._tagger = tagger
        self._kept: dict[tuple[Any, ...], list[int]] = {}
        self._warned: set[str] = set()

    def knows(self, tag: str) -> bool:
        """Whether the file lists a tag."""
        return tag in self._class_of

    def of_words(self, tags: Sequence[str]) -> list[int]:
        """The class of each word, by its tag."""
        if new := set(tags) - self._class_of.keys() - self._warned:
            self._warned |= new
            listed = ", ".join(sorted(new))
            warnings.warn(f"words with tags of no class count as functions: {listed}", stacklevel=2)
        return [self._class_of.get(tag, FUNCTION) for tag in tags]

    def of_tokens(
        self, encode: CaptionEncoder, captions: list[list[tuple[str, tuple[str, ...] | None, str]]], length: int
    ) -> Int[Tensor, "B K L"]:
        """Classes at each of `length` tokens of the captions (text, tags, language) of each image; see `CaptionBatch`.

        Raises UsageError for a caption without tags, where there is no tagger, and for one with too many or too few.
        """
        most = max(map(len, captions), default=0)
        found = torch.full((len(captions), most, length), NO_CLASS)
        for image, of_image in enumerate(captions):
            for k, caption in enumerate(of_image):
                row = self._row(encode, *caption)[:length]
                found[image, k, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return found

    def _row(self, encode: CaptionEncoder, text: str, tags: tuple[str, ...] | None, language: str) -> list[int]:
        key = text, tags, language, id(encode.tokenizer), encode.prompt, encode.max_length
        if key not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = self._new_row(encode, text, tags, language)
        return self._kept[key]

    def _new_row(self, encode: CaptionEncoder, text: str, tags: tuple[str, ...] | None, language: str) -> list[int]:
        read, spans, num_given = encode.spans(text)
        found = list(_WORD.finditer(read))
        if tags is None:
            if self._tagger is None:
                raise UsageError(
                    f"data.word_classes expected captions with tags, got {text[:60]!r} without; let step=[tag_words] "
                    "tag them, or give data.word_classes.tagger"
                )
            tags = tuple(self._tagger.tag([word[0] for word in found], language))
        if len(tags) != len(found):
            raise UsageError(
                f"a caption expected a tag for each of its {len(found)} words and marks, got {len(tags)}: "
                f"{text[:60]!r}; tag it again by step=[tag_words]"
            )
        classes = self.of_words(tags)
        ends = [word.end() for word in found]
        placed = list(zip([0, *ends], ends, classes, strict=False))  # the space in front of a word belongs to it
        of_tokens = [_first_over(placed, *span) for span in spans]
        return ([NO_CLASS] * num_given + of_tokens + [FUNCTION])[: encode.max_length]


def _first_over(placed: list[tuple[int, int, int]], start: int, end: int) -> int:
    """The class of the first word that has a character between `start` and `end`."""
    return next((number for first, last, number in placed if first < end and last > start), FUNCTION)


def _tags_of_file(path: Path) -> Iterator[tuple[str, int]]:
    content = load_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) != set(MODULES):
        raise UsageError(f"{path}: expected a list of tags for each of {', '.join(MODULES)}; correct the file")
    seen: set[str] = set()
    for name, tags in content.items():
        for tag in tags or ():
            if tag in seen:
                raise UsageError(f"{path}: expected each tag once, got {tag!r} twice; leave one out")
            seen.add(tag)
            yield str(tag), MODULES.index(name)
