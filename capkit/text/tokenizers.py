"""Build a word tokenizer from captions, load and store fast tokenizers, encode and decode captions."""

import functools
import itertools
import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from capkit.upstream.transformers import decodes_by_backend

SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}

# A word with its inner apostrophes, hyphens and decimal points, or one character of punctuation.
WORD = r"\w+(?:['’\-]\w+|(?<=\d)[.,:]\d+)*|[^\w\s]"

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
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    # WordPiece puts a space before every word: none starts with "##", since # is always a separate token.
    join = [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*join, *(decoders.Replace(Regex(p), "") for p in _SPACES_TO_DROP)])
    return backend


_BACKEND = _word_backend()


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks, as `word_tokenizer` does."""
    return [word for word, _ in _BACKEND.pre_tokenizer.pre_tokenize_str(_BACKEND.normalizer.normalize_str(text))]


def word_tokenizer(captions: Iterable[str], min_count: int = 1) -> PreTrainedTokenizerFast:
    """Build a tokenizer of the lower-case words and punctuation marks that occur at least `min_count` times.

    Ids are pad 0, bos 1, eos 2, unk 3, then words by decreasing count and alphabetically within a count, so the order
    of captions does not matter. Decoding joins punctuation to its word ("a red circle."). Raises UsageError if no word
    is left.
    """
    pieces = Counter(piece for caption in captions for piece in caption.split(" "))
    counts: Counter[str] = Counter()
    for piece, count in pieces.items():  # no word has a space: each piece is split once, however often it occurs
        for word in split_words(piece):
            counts[word] += count
    words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    if not words:
        raise UsageError(
            f"a word tokenizer needs words that occur at least min_count={min_count} times; "
            "the captions have none; lower min_count or check the captions"
        )
    special = list(SPECIAL_TOKENS.values())
    backend = _word_backend()
    backend.model = models.WordLevel(
        {token: id_ for id_, token in enumerate([*special, *words])}, unk_token=SPECIAL_TOKENS["unk_token"]
    )
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS)


def is_word_tokenizer(tokenizer: Any) -> bool:
    """Whether tokens are complete words, so that words absent from the training captions are unknown."""
    return isinstance(tokenizer.backend_tokenizer.model, models.WordLevel)


def complete_special_tokens(tokenizer: Any) -> Any:
    """Set a tokenizer's missing BOS (from CLS or EOS), EOS (from SEP) and pad (from EOS) in place."""
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
    """Whether the hub's host name resolves. If it does not, the hub's client would retry for half a minute."""
    if getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(urlparse(huggingface_hub.constants.ENDPOINT).hostname, 443))
    except OSError:
        return False


@contextmanager
def cache_without_hub() -> Iterator[None]:
    """Within it, a hub out of reach is not asked; transformers looks for adapters even with `local_files_only`."""
    is_offline = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = is_offline or not hub_reachable()
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = is_offline


def load_tokenizer(name_or_path: str) -> Any:
    """Load a fast tokenizer by hub name or folder, and set BOS, EOS and pad."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, local_files_only=not hub_reachable())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"tokenizer={name_or_path} could not be loaded: {str(error).splitlines()[0]}; "
            "give a folder with a tokenizer, a hub name (with network), or tokenizer=word"
        ) from error
    return complete_special_tokens(tokenizer)


def tokenizer_to_json(tokenizer: Any) -> dict[str, Any]:
    """Serialise a tokenizer to plain data for a checkpoint."""
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"a checkpoint can store fast tokenizers only; got {type(tokenizer).__name__}; "
            "use a tokenizer that has a tokenizer.json"
        )
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    clean_up = bool(tokenizer.clean_up_tokenization_spaces)
    data = {"backend": tokenizer.backend_tokenizer.to_str(), "special_tokens": special, "clean_up_spaces": clean_up}
    return data if tokenizer.chat_template is None else {**data, "chat_template": tokenizer.chat_template}


def tokenizer_from_json(data: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Rebuild a tokenizer from `tokenizer_to_json`."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(data["backend"]),
        clean_up_tokenization_spaces=data["clean_up_spaces"],
        chat_template=data.get("chat_template"),
        **data["special_tokens"],
    )


def tokenize_as_text(tokenizer: Any, *texts: list[str], **settings: Any) -> Any:
    """`tokenizer(*texts, **settings)`, but special tokens spelled out in a text ("<eos>", "</s>") are plain characters.

    Otherwise a user's or a model's text could end or pad a caption. For pairs, pass two lists of equal length.
    """
    texts = tuple([_spelled_apart(tokenizer, text) for text in group] for group in texts)
    return tokenizer(*texts, split_special_tokens=True, **settings)


def _spelled_apart(tokenizer: Any, text: str) -> str:
    """Insert a space after the first character of special tokens that the tokenizer would still recognise in text."""
    pattern = _special_pieces(tokenizer)
    return text if pattern is None else pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


@functools.lru_cache(maxsize=16)
def _special_pieces(tokenizer: Any) -> re.Pattern[str] | None:
    """Special tokens that split_special_tokens misses, such as "</s>", a piece of SentencePiece vocabularies."""
    pieces = []
    for token in {*tokenizer.all_special_tokens} - {tokenizer.unk_token}:
        ids = tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if tokenizer.convert_tokens_to_ids(token) in ids:
            pieces.append(re.escape(token))
    return re.compile("|".join(sorted(pieces)), re.IGNORECASE) if pieces else None


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens that every caption starts with: BOS, then the prompt's."""
    return [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]


def given_ids(tokenizer: Any, words: str, prompt: str) -> list[int]:
    """The tokens of the words that a caption starts with, behind the prompt's.

    Raises UsageError for words that a word tokenizer does not know: no caption of the training data has them.
    """
    if not words.strip():
        return []
    ids = tokenize_as_text(tokenizer, [_first_words(words.strip(), prompt)], add_special_tokens=False)["input_ids"][0]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        unknown = [word for word in words.split() if tokenizer.unk_token_id in tokenizer(word)["input_ids"]]
        raise UsageError(
            f"prompt={words!r}: expected words of the captioner's vocabulary, got {', '.join(unknown)}, which no "
            "training caption has; leave them out"
        )
    return ids


def _first_words(caption: str, prompt: str) -> str:
    """Byte-level tokenizers have different ids for a word at the start and after a space."""
    return f" {caption.strip()}" if prompt else caption


@dataclass(frozen=True)
class CaptionEncoder:
    """`encode_captions` with a captioner's tokenizer, prompt and length; for the data workers, so it can be pickled."""

    tokenizer: Any
    prompt: str
    max_length: int

    def __call__(self, captions: list[list[str]]) -> tuple[Int[Tensor, "B K L"], Bool[Tensor, "B K L"], int]:
        return encode_captions(self.tokenizer, captions, self.prompt, self.max_length)

    def spans(self, text: str) -> tuple[str, list[tuple[int, int]], int]:
        """A caption's text as the tokenizer reads it, where in it each of its tokens lies, and how many stand in front.

        Raises UsageError for a tokenizer that does not say.
        """
        if not self.tokenizer.is_fast:
            raise UsageError(
                f"expected a tokenizer that knows where in a text its tokens lie (a fast one), got "
                f"{type(self.tokenizer).__name__}; use another tokenizer"
            )
        read = _spelled_apart(self.tokenizer, _first_words(text, self.prompt))
        settings = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
        found = self.tokenizer(read, **settings)["offset_mapping"]
        return read, [(start, end) for start, end in found], len(prompt_ids(self.tokenizer, self.prompt))


def encode_captions(
    tokenizer: Any, captions: list[list[str]], prompt: str, max_length: int
) -> tuple[Int[Tensor, "B K L"], Bool[Tensor, "B K L"], int]:
    """Encode the captions of each image: BOS, prompt, words, EOS, padding. Returns tokens, mask and prompt length.

    `mask` is by position: True at EOS even if padding has the same id. An image with fewer captions than others gets
    all-False rows. A caption longer than `max_length` tokens is truncated and has no EOS, since its end is missing.
    """
    start = prompt_ids(tokenizer, prompt)
    if max_length <= len(start):
        raise UsageError(
            f"max_length must leave room after the prompt's {len(start)} tokens; got {max_length}; "
            "raise max_length or shorten the prompt"
        )
    flat = [_first_words(text, prompt) for texts in captions for text in texts]
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
    """Decode each row's real tokens after the prompt, without special tokens."""
    num_images, num_captions = tokens.shape[:2]
    marked = torch.where(mask, tokens, -1)[..., prompt_length:].flatten(0, 1).cpu()  # one wait for the device
    real = marked >= 0
    ends = [0, *real.sum(-1).cumsum(0).tolist()]
    flat = marked[real].tolist()
    rows = [flat[start:end] for start, end in itertools.pairwise(ends)]
    if decodes_by_backend(tokenizer):  # all at once, by several threads
        texts = tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)
    else:
        texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    stripped = iter([text.strip() for text in texts])
    return [list(itertools.islice(stripped, num_captions)) for _ in range(num_images)]
