"""Token ids of captions for an encoder that reads many of them: words that were met before are looked up."""

import json
from typing import Any

from capkit.text.tokenizers import WORD, tokenize_as_text

_MAX_REMEMBERED = 2**17
# Patterns of pre-tokenizers, none of which matches white space: what they match is kept, the rest is dropped.
_OF_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORD_PATTERNS = (WORD, _OF_CLIP, r"<\|startoftext\|>|<\|endoftext\|>|" + _OF_CLIP)
_AT_SPACES = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer")
_SPACES_TO_ONE = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}


class CaptionIds:
    """Ids of texts, special tokens around them, cut to a length: equal to the tokenizer's own.

    Where the tokenizer reads what stands between two spaces by itself, as CLIP's, BERT's and word tokenizers do, each
    such piece is tokenised once. For others (byte-level GPT-2, SentencePiece) this is a call of the tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.splits_at_spaces = _splits_at_spaces(tokenizer)
        self._known: dict[str, list[int]] = {"": []}
        self._around = _around(tokenizer) if self.splits_at_spaces else ([], [])

    def __call__(self, texts: list[str], max_length: int) -> list[list[int]]:
        if not self.splits_at_spaces:
            return tokenize_as_text(self.tokenizer, texts, truncation=True, max_length=max_length)["input_ids"]
        pieces = [text.split(" ") for text in texts]
        self._learn([piece for row in pieces for piece in row])
        before, after = self._around
        room = max_length - len(before) - len(after)
        known = self._known
        return [[*before, *[i for piece in row for i in known[piece]][:room], *after] for row in pieces]

    def _learn(self, pieces: list[str]) -> None:
        if len(self._known) > _MAX_REMEMBERED:
            self._known = {"": []}
        new = [piece for piece in dict.fromkeys(pieces) if piece not in self._known]
        if new:
            ids = tokenize_as_text(self.tokenizer, new, add_special_tokens=False)["input_ids"]
            self._known.update(zip(new, ids, strict=True))


def _splits_at_spaces(tokenizer: Any) -> bool:
    """Whether a text's ids are those of its pieces between spaces, one after the other, as far as its parts tell."""
    if not getattr(tokenizer, "is_fast", False) or tokenizer.truncation_side != "right":
        return False
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if any(not token["special"] for token in backend["added_tokens"]):
        return False
    normalizers, splitters = _parts(backend["normalizer"]), _parts(backend["pre_tokenizer"])
    if any(part["type"] not in _NORMALIZERS and part != _SPACES_TO_ONE for part in normalizers) or not splitters:
        return False
    first, *rest = splitters
    whole = first["type"] in _AT_SPACES or (
        first["type"] == "Split"
        and first["pattern"].get("Regex") in _WORD_PATTERNS
        and (first["behavior"], first["invert"]) == ("Removed", True)
    )
    return whole and all(part["type"] == "ByteLevel" and not part["add_prefix_space"] for part in rest)


def _parts(node: Any) -> list[dict[str, Any]]:
    """The members of a Sequence, or the part itself."""
    if node is None:
        return []
    members = node.get("normalizers", node.get("pretokenizers"))
    return [node] if members is None else [part for member in members for part in _parts(member)]


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    inner = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    return whole[:start], whole[start + len(inner) :]
