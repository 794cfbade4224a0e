"""CHAIR (Rohrbach et al. 2018): object hallucination, the mentioned objects that are not in the image."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.metrics.text_metric import TextMetric
from capkit.text.checked import require_words
from capkit.text.ptb import ptb_tokenize
from capkit.utils.text_files import expect, member, read_json, read_text, shown

_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
# Phrases that the authors' program does not read word by word. None: not an object ("plate" is one, "home plate" not).
_COCO_PHRASES: dict[str, str | None] = {f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS}
_COCO_PHRASES |= {"passenger jet": "jet", "passenger train": "train", "bow tie": "tie", "toilet seat": "toilet"}
_COCO_PHRASES |= {"home plate": None}
_IRREGULAR = {"children": "child", "people": "person", "mice": "mouse", "geese": "goose", "knives": "knife"}


def chair(mentions: Sequence[Sequence[str]], truth: Sequence[set[str]]) -> dict[str, float]:
    """CHAIRs and CHAIRi with context, from the mentioned objects (list) and true objects (set) of each caption.

    `chair_s`: fraction of captions that mention an absent object. `chair_i`: fraction of mentions that are of absent
    objects, over all captions together, counting repetitions. Both are 0 if nothing is mentioned; `chair_mentions`
    (mean number of mentions) and `chair_recall` (fraction of true objects mentioned) reveal that.
    """
    for index, named in enumerate(mentions):
        require_words(named, f"mentions[{index}]")
    absent = [sum(name not in present for name in named) for named, present in zip(mentions, truth, strict=True)]
    total = sum(map(len, mentions))
    found = sum(len(set(named) & present) for named, present in zip(mentions, truth, strict=True))
    return {
        "chair_s": sum(count > 0 for count in absent) / len(absent),
        "chair_i": sum(absent) / total if total else 0.0,
        "chair_mentions": total / len(absent),
        "chair_recall": found / max(1, sum(map(len, truth))),
    }


class ObjectLexicon:
    """Finds objects in captions by a list of their names.

    The file has one object per line: its names separated by commas, the canonical one first, as in the authors'
    `synonyms.txt`. Longer names are matched first. A plural is read as its singular if that is a name.

    Raises UsageError for a file that cannot be read, is empty, or gives one name to two objects.
    """

    def __init__(self, file: str) -> None:
        lines = read_text(file, "synonyms, a text file of one object per line").split("\n")
        self.object_of: dict[str, str | None] = {}
        for line in lines:
            names = [" ".join(name.lower().split()) for name in line.split(",") if name.strip()]
            for name in names:
                if self.object_of.setdefault(name, names[0]) != names[0]:
                    raise UsageError(
                        f"{file!r}: expected each name once; {name!r} names both {self.object_of[name]!r} and "
                        f"{names[0]!r}; remove it from one line"
                    )
        if not self.object_of:
            raise UsageError(f"synonyms={file!r}: expected objects, one per line; got an empty file")
        for phrase, meant in _COCO_PHRASES.items():
            if meant is None or meant in self.object_of:
                self.object_of.setdefault(phrase, None if meant is None else self.object_of[meant])
        self.longest = max(len(name.split()) for name in self.object_of)

    def mentions(self, caption: str) -> list[str]:
        """Objects named in a caption, in order, with repetitions."""
        words = ptb_tokenize([caption])[0].split()
        found: list[str] = []
        start = 0
        while start < len(words):
            length, name = self._match(words[start : start + self.longest])
            found += [name] if name else []
            start += length
        return found

    def name_of(self, text: str) -> str:
        """The object that a category name stands for. Raises UsageError if the file does not list it."""
        _, name = self._match(text.lower().split())
        if name is None:
            raise UsageError(f"the object {text!r} is not in the synonyms file; add a line for it")
        return name

    def _match(self, words: list[str]) -> tuple[int, str | None]:
        for length in range(len(words), 0, -1):
            for last in _singulars(words[length - 1]):
                name = " ".join([*words[: length - 1], last])
                if name in self.object_of:
                    return length, self.object_of[name]
        return 1, None


def _singulars(word: str) -> list[str]:
    """The word, followed by possible singulars of it."""
    found = [word, *([_IRREGULAR[word]] if word in _IRREGULAR else [])]
    for ending, replacement in (("men", "man"), ("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending):
            found.append(word[: -len(ending)] + replacement)
    return found


class Chair(TextMetric):
    """CHAIR with a list of object names that the user supplies (for COCO: the authors' synonyms.txt).

    An image's true objects are, as published, those named in its references, plus the categories in a COCO instances
    file (`instances`, whose image_id is compared as text with metadata "key") and in metadata "objects" (list of
    names), where given. The published numbers use both references and instances.
    """

    higher_is_better = False

    def __init__(self, synonyms: str, instances: str | None = None, use_references: bool = True) -> None:
        lexicon = ObjectLexicon(synonyms)
        categories = {} if instances is None else read_instances(instances, lexicon)
        super().__init__()
        self.lexicon, self.categories, self.use_references = lexicon, categories, use_references
        self.instances = instances

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        truth = [self._truth(group, row) for group, row in zip(references, metadata, strict=True)]
        return chair([self.lexicon.mentions(caption) for caption in predictions], truth)

    def _truth(self, references: list[str], row: dict[str, Any]) -> set[str]:
        key = str(row.get("key"))
        known = self.instances is not None or "objects" in row or (self.use_references and references)
        if not known:
            raise UsageError(
                f"CHAIR does not know what is in image {key!r}; give references, metadata 'objects' or instances"
            )
        named = {name for text in references for name in self.lexicon.mentions(text)} if self.use_references else set()
        return named | self.categories.get(key, set()) | {self.lexicon.name_of(name) for name in row.get("objects", [])}


def read_instances(file: str, lexicon: ObjectLexicon) -> dict[str, set[str]]:
    """{image_id as text: objects} from a COCO instances annotation file. Raises UsageError for another format."""
    where = f"instances={file!r}"
    content = expect(read_json(file, "instances"), "an object", where)
    names: dict[str, str] = {}
    for number, category in enumerate(member(content, "categories", "a list", where)):
        at = f"{where} categories, item {number}"
        identity = member(expect(category, "an object", at), "id", "text or a whole number", at)
        names[str(identity)] = lexicon.name_of(member(category, "name", "text", at))
    found: dict[str, set[str]] = defaultdict(set)
    for number, annotation in enumerate(member(content, "annotations", "a list", where)):
        at = f"{where} annotations, item {number}"
        category = str(member(expect(annotation, "an object", at), "category_id", "text or a whole number", at))
        if category not in names:
            raise UsageError(f"{at}: no item of 'categories' has the id {shown(annotation['category_id'])}")
        found[str(member(annotation, "image_id", "text or a whole number", at))].add(names[category])
    return dict(found)
