"""Warnings of training captions from which a captioner cannot learn what its user wants, before the first step."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.base import DataSource
from capkit.data.targets import CaptionsOf, texts_of
from capkit.distributed.collectives import rank
from capkit.text.ptb.foreign import unspaced_language
from capkit.text.tokenizers import encode_captions, is_word_tokenizer, split_words

NUM_IMAGES = 1000  # looked at, evenly spaced over the split
CUT_SHARE = 0.25
UNKNOWN_SHARE = 0.2
_RISE = 1.1  # of the validation loss over its least, from which on it is told
_LONGEST_WORD = 4  # letters, on average: words of a text without spaces that was cut into words are shorter
_UNCUT = 100_000  # tokens


class DataWarning(UserWarning):
    """Captions that cannot be learned as they are; the message names the key to change."""


def warn_of_captions(data: CaptionDataModule, model: Any, learns_likelihood: bool = True) -> None:
    """Warns, on rank 0, of what is wrong with the training captions for this captioner.

    That captions are cut matters where they are learned (`learns_likelihood`), not where they are references alone.
    """
    if rank() != 0:
        return
    captions = sampled_captions(data.source("train"), captions_of=data.captions_of)
    problems = [alike(captions), without_spaces(captions, model.tokenizer) or unknown(captions, model.tokenizer)]
    if learns_likelihood:
        problems.append(cut(captions, model.tokenizer, model.prompt, data.max_length))
    for problem in problems:
        if problem is not None:
            warnings.warn(problem, DataWarning, stacklevel=2)


def sampled_captions(
    source: DataSource, num_images: int = NUM_IMAGES, captions_of: CaptionsOf = "images"
) -> list[list[str]]:
    """The cleaned captions of evenly spaced images, or of their regions, without reading a picture."""
    places = np.linspace(0, len(source) - 1, min(num_images, len(source))).astype(int)
    return [texts_of(source.record(int(place)), captions_of) for place in places]


def alike(captions: Sequence[Sequence[str]]) -> str | None:
    """What to say where all captions of all images are one text."""
    texts = [text for of_image in captions for text in of_image]
    if len(texts) < 2 or len({text.casefold() for text in texts}) > 1:
        return None
    return (
        f"all {len(texts)} training captions looked at are {shorten(texts[0], 60)!r}: nothing about the pictures can "
        "be learned, and CIDEr is 0; check data.train.captions, or the column that is read"
    )


def without_spaces(captions: Sequence[Sequence[str]], tokenizer: Any) -> str | None:
    """What to say where most captions are of a script without spaces, and the tokenizer's tokens are words."""
    texts = [text for of_image in captions for text in of_image]
    if not is_word_tokenizer(tokenizer) or unspaced_language(" ".join(texts)) is None:
        return None
    unspaced = [[word for word in split_words(text) if unspaced_language(word) is not None] for text in texts]
    words = [word for of_text in unspaced for word in of_text]
    if 2 * sum(map(bool, unspaced)) < len(texts) or sum(map(len, words)) <= _LONGEST_WORD * len(words):
        return None
    return (
        f"captions without spaces, such as {texts[0][:30]!r}: to a tokenizer of words a sentence is one word, and a "
        "new sentence is <unk>; give a tokenizer of subwords (model.tokenizer=FOLDER or a hub name, such as "
        "bert-base-multilingual-cased), or put spaces between words"
    )


def unknown(captions: Sequence[Sequence[str]], tokenizer: Any) -> str | None:
    """What to say where at least UNKNOWN_SHARE of the captions' words are unknown to a tokenizer of words."""
    texts = [text for of_image in captions for text in of_image]
    if not is_word_tokenizer(tokenizer):
        return None
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    num_words = sum(len(own.ids) for own in encoded)
    missing = Counter(
        text[start:end]
        for text, own in zip(texts, encoded, strict=True)
        for token, (start, end) in zip(own.ids, own.offsets, strict=True)
        if token == tokenizer.unk_token_id
    )
    if not missing or missing.total() < UNKNOWN_SHARE * num_words:
        return None
    return (
        f"{missing.total()} of {num_words} words of the training captions looked at are not in this captioner's "
        f"vocabulary, such as {', '.join(repr(word) for word, _ in missing.most_common(3))}: it reads them as <unk> "
        "and cannot say them; train a captioner on these captions from scratch (without init_from), or one with a "
        "tokenizer of subwords"
    )


def cut(captions: Sequence[Sequence[str]], tokenizer: Any, prompt: str, max_length: int) -> str | None:
    """What to say where at least CUT_SHARE of the captions exceed `max_length` tokens, prompt and EOS counted."""
    flat = [[text] for of_image in captions for text in of_image]
    if not flat:
        return None
    _, mask, _ = encode_captions(tokenizer, flat, prompt, _UNCUT)
    lengths = mask.sum((1, 2)).numpy()
    num_cut = int((lengths > max_length).sum())
    if num_cut < CUT_SHARE * len(lengths):
        return None
    return (
        f"{num_cut} of {len(lengths)} training captions looked at are longer than data.max_length={max_length} tokens: "
        "they are cut and have no end, so captions will run on to the limit; "
        f"data.max_length={int(np.quantile(lengths, 0.95, method='higher'))} holds 95 % of them whole"
    )


def learned_by_heart(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What to say where the validation loss rose from its least to the end of the run. `rows` as metrics.jsonl's."""
    losses = {int(row["step"]): float(row["val/loss"]) for row in rows if "val/loss" in row}
    if not losses:
        return None
    best, last = min(losses, key=lambda step: losses[step]), max(losses)
    if not losses[last] > _RISE * losses[best]:
        return None
    return (
        f"the validation loss was {losses[best]:.3g} at step {best:,} and is {losses[last]:.3g} at step {last:,}: "
        "since then the training captions were learned by heart (or, where train/loss rose too, training diverged: "
        f"lower optimizer.lr); max_steps={best} ends there, and "
        "callback.checkpoints.select='min loss', or 'max cider', evaluates the best checkpoint (val_every=N validates "
        "more often)"
    )
