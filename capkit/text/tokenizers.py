"""Tokenizers: one of words built from captions, loading and storing any fast one, captions to and from ids."""

import functools
import re
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import huggingface_hub.constants
import torch
from jaxtyping import Bool, Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from capkit.errors import UsageError

SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}

# A word with its inner apostrophes, hyphens and decimal points, or one character of punctuation.
_WORD = r"\w+(?:['’\-]\w+|(?<=\d)[.,:]\d+)*|[^\w\s]"

# Applied to the words joined by spaces. A quote closes when an even number of quotes follows it.
_SPACES_TO_DROP = (
    r" (?=[.,!?;:%)\]}…])",
    r"(?<=[(\[{]) ",
    r'(?<=") (?=[^"]*"(?:[^"]*"[^"]*")*[^"]*$)',
    r' (?="(?:[^"]*"[^"]*")*[^"]*$)',
)


def _word_backend() -> Tokenizer:
    backend = Tokenizer(models.WordLevel(unk_token=SPECIAL_TOKENS["unk_token"]))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    # WordPiece puts a space before every word: no word can begin with "##", since # is always a token of its own.
    join = [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*join, *(decoders.Replace(Regex(p), "") for p in _SPACES_TO_DROP)])
    return backend


_BACKEND = _word_backend()


def split_words(text: str) -> list[str]:
    """The lower-cased words and punctuation marks of a text, as `word_tokenizer` cuts it."""
    return [word for word, _ in _BACKEND.pre_tokenizer.pre_tokenize_str(_BACKEND.normalizer.normalize_str(text))]


def word_tokenizer(captions: Iterable[str], min_count: int = 1) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the lower-cased words and punctuation marks seen at least `min_count` times.

    Ids are pad 0, bos 1, eos 2, unk 3, then the words by falling count and, within a count, by spelling: the same
    captions in any order give the same ids. Decoding joins punctuation to its word ("a red circle.").
    Raises UsageError when no word is left.
    """
    backend = _word_backend()
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(split_words(caption))
    words = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    if not words:
        raise UsageError(
            f"a word tokenizer needs captions with words seen at least min_count={min_count} times; "
            f"got {len(counts)} different words and none so often; lower min_count or check the captions"
        )
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS.values(), *words])}
    backend.model = models.WordLevel(vocab=vocabulary, unk_token=SPECIAL_TOKENS["unk_token"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS)


def is_word_tokenizer(tokenizer: Any) -> bool:
    """Whether each token is a whole word, so that a word that was not in the training captions is unknown."""
    return isinstance(tokenizer.backend_tokenizer.model, models.WordLevel)


def complete_special_tokens(tokenizer: Any) -> Any:
    """Gives a tokenizer its missing BOS (from CLS or EOS), EOS (from SEP) and pad (from EOS), in place."""
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.eos_token_id is None:
        raise UsageError(f"a captioner's tokenizer needs an EOS or SEP token; {type(tokenizer).__name__} has neither")
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.cls_token or tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@functools.cache
def hub_reachable() -> bool:
    """Whether the model hub's name resolves: without it, its client retries for half a minute before it gives up."""
    if getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(urlparse(huggingface_hub.constants.ENDPOINT).hostname, 443))
    except OSError:
        return False


def load_tokenizer(name_or_path: str) -> Any:
    """A fast tokenizer by hub name or folder, with BOS, EOS and pad set."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, local_files_only=not hub_reachable())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"tokenizer={name_or_path} could not be loaded: {str(error).splitlines()[0]}; "
            "give a folder with a tokenizer, a hub name (with network), or tokenizer=word"
        ) from error
    return complete_special_tokens(tokenizer)


def tokenizer_to_json(tokenizer: Any) -> dict[str, Any]:
    """Everything that encoding and decoding need, as plain data for a checkpoint."""
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"a checkpoint can carry fast tokenizers only; got {type(tokenizer).__name__}; "
            "use a tokenizer that has a tokenizer.json"
        )
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    clean_up = bool(tokenizer.clean_up_tokenization_spaces)
    return {"backend": tokenizer.backend_tokenizer.to_str(), "special_tokens": special, "clean_up_spaces": clean_up}


def tokenizer_from_json(data: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer that `tokenizer_to_json` stored."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(data["backend"]),
        clean_up_tokenization_spaces=data["clean_up_spaces"],
        **data["special_tokens"],
    )


def tokenize_as_text(tokenizer: Any, *texts: list[str], **settings: Any) -> Any:
    """`tokenizer(*texts, **settings)`, where special tokens that a text spells out ("<eos>", "</s>") are characters.

    A user's or a model's words must not end a caption, or pad it. `texts` may be two lists of as many texts, for pairs.
    """
    texts = tuple([_spelled_apart(tokenizer, text) for text in group] for group in texts)
    return tokenizer(*texts, split_special_tokens=True, **settings)


def _spelled_apart(tokenizer: Any, text: str) -> str:
    """A space after the first character of each special token that the tokenizer's model takes for a piece of text."""
    pattern = _special_pieces(tokenizer)
    return text if pattern is None else pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


@functools.lru_cache(maxsize=16)
def _special_pieces(tokenizer: Any) -> re.Pattern[str] | None:
    """SentencePiece's vocabularies hold "</s>" as a piece, which split_special_tokens does not reach."""
    pieces = []
    for token in {*tokenizer.all_special_tokens} - {tokenizer.unk_token}:
        ids = tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if tokenizer.convert_tokens_to_ids(token) in ids:
            pieces.append(re.escape(token))
    return re.compile("|".join(sorted(pieces)), re.IGNORECASE) if pieces else None


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The given tokens that every caption starts from: BOS, then the prompt's own tokens."""
    return [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]


def encode_captions(
    tokenizer: Any, captions: list[list[str]], prompt: str, max_length: int
) -> tuple[Int[Tensor, "B K L"], Bool[Tensor, "B K L"], int]:
    """Captions of each image as ids: BOS, prompt, words, EOS, then padding. Returns tokens, mask and prompt length.

    `mask` is by position: EOS is True even where pad is the same id. An image with fewer captions than the others gets
    rows without any True. A caption too long for `max_length` tokens is cut and then has no EOS: its end was not seen.
    """
    start = prompt_ids(tokenizer, prompt)
    if max_length <= len(start):
        raise UsageError(
            f"max_length must leave room after the prompt's {len(start)} tokens; got {max_length}; "
            "raise max_length or shorten the prompt"
        )
    # Byte-level tokenizers give a word in mid-sentence another id than at the start: the space says which it is.
    flat = [f" {text.strip()}" if prompt else text for texts in captions for text in texts]
    encoded = tokenize_as_text(tokenizer, flat, add_special_tokens=False)["input_ids"] if flat else []
    rows = [[*start, *ids, tokenizer.eos_token_id][:max_length] for ids in encoded]
    num_images, num_captions = len(captions), max(map(len, captions), default=0)
    length = max(map(len, rows), default=len(start))
    tokens = torch.full((num_images, num_captions, length), tokenizer.pad_token_id, dtype=torch.int64)
    mask = torch.zeros((num_images, num_captions, length), dtype=torch.bool)
    remaining = iter(rows)
    for image, texts in enumerate(captions):
        for k in range(len(texts)):
            row = next(remaining)
            tokens[image, k, : len(row)] = torch.tensor(row)
            mask[image, k, : len(row)] = True
    return tokens, mask, len(start)


def decode_captions(
    tokenizer: Any, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], prompt_length: int
) -> list[list[str]]:
    """The text of each row's real tokens after the prompt, special tokens left out."""
    rows, keep = tokens[..., prompt_length:].tolist(), mask[..., prompt_length:].tolist()
    return [
        [
            tokenizer.decode([t for t, real in zip(ids, flags, strict=True) if real], skip_special_tokens=True).strip()
            for ids, flags in zip(image_rows, image_keep, strict=True)
        ]
        for image_rows, image_keep in zip(rows, keep, strict=True)
    ]
