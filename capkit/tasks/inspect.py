"""task=inspect: what is in a data set, before it is trained on."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import regex
from jaxtyping import Int
from omegaconf import DictConfig, OmegaConf

from capkit.config.instantiate import build
from capkit.data.alike import MOST_PAIRS, alike_pairs
from capkit.data.datamodule import CaptionDataModule
from capkit.data.files import FileSource
from capkit.data.inspection import CountTokens, Pictures, Texts, look_at_pictures, look_at_texts, same_in_both
from capkit.data.sources.base import DataSource, clean_captions, prepare_source
from capkit.data.sources.caption_folders import metadata_tables
from capkit.data.sources.folder import list_images
from capkit.models.captioners.coca import CoCa, own_tokenizer
from capkit.reports.inspected import Inspected, Named, inspected_table, write_inspected
from capkit.run.folder import default_run_dir
from capkit.text.languages import INSTALL, UNSURE, can_guess, guess_languages, reads_as_another, script_of
from capkit.text.tokenizers import WORD, load_tokenizer
from capkit.utils.console import Screen, phase, say

SPLITS = ("train", "val", "test")
NUM_SAMPLES, NUM_TILES, NUM_REPEATED, NUM_PAIRS = 12, 60, 10, 12
REPEATED_SHARE = 0.01  # of a split's captions, above which one that stands so often is told
CUT_SHARE = 0.05  # of captions longer than data.max_length, above which it is told
FOREIGN_SHARE = 0.1  # of captions whose language could be guessed, above which it is told that tags contradict
Pair = tuple[tuple[str, int], tuple[str, int]]  # splits and places of two pictures
_TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv", "captions.txt", "captions.json", "captions.jsonl")
_TOKENIZERS = ("model.tokenizer", "model.text_tower.tokenizer", "model.decoder.name", "model.name")


def run(cfg: DictConfig) -> dict[str, float]:
    """Count what the splits of `cfg.data` hold, open `cfg.pictures` pictures of each, and say what is odd.

    Writes inspect.json, inspect.html and contact.png to the run folder and prints a table. Returns the number of images
    and captions of each split, and of pictures that were opened and cannot be used.
    """
    count_tokens, called = _counter(cfg)
    is_alone = False
    for node in (cfg.data.get(split) for split in SPLITS):
        if node is not None and OmegaConf.is_missing(node, "captions"):  # a folder of pictures alone
            node.captions = None
            is_alone = True
    data: CaptionDataModule = build(cfg.data)
    sources = {split: data.source(split) for split in SPLITS if data.sources[split] is not None}
    for source in sources.values():
        prepare_source(source)
    num_threads = len(os.sched_getaffinity(0)) if cfg.num_workers is None else max(1, cfg.num_workers)
    texts = {split: look_at_texts(source, count_tokens, split) for split, source in sources.items()}
    opened = {
        split: look_at_pictures(source, texts[split].keys, cfg.pictures, num_threads, split)
        for split, source in sources.items()
        if data.pictures
    }
    repeated = sum((own.counts for own in texts.values()), Counter[str]())
    guessed = _guessed(texts)
    findings, alike = _findings(sources, texts, opened, data.max_length)
    found = Inspected(
        f"Data: {_name(cfg)}",
        {
            split: _numbers(texts[split], opened.get(split), guessed[split], called, data.max_length)
            for split in sources
        },
        findings + _foreign(texts, guessed) + (_beside(Path(cfg.data.train.images)) if is_alone else []),
        [(text, count) for text, count in repeated.most_common(NUM_REPEATED) if count > 1],
        {split: own.tokens for split, own in texts.items()},
        {split: [max(size) for size in own.sizes] for split, own in opened.items()},
        data.max_length,
        *_shown(sources, opened),
        [_pictures_of(sources, texts, pair) for pair in alike[:NUM_PAIRS]],
        [] if can_guess() else [f"languages are not guessed: {INSTALL}"],
    )
    with phase("writing the page"):
        written = write_inspected(Path(cfg.run_dir or default_run_dir(f"{cfg.name}-inspect")), found)
    Screen().print(inspected_table(found))
    for told, examples in found.findings:
        say(f"! {told}{f', such as {examples[0]}' if examples else ''}")
    say("\n".join([*found.notes, *(f"wrote {path}" for path in written)]))
    numbers = {
        f"{split}/{name}": float(own[name]) for split, own in found.splits.items() for name in ("images", "captions")
    }
    return numbers | {f"{split}/broken": float(len(own.broken)) for split, own in opened.items()}


def _name(cfg: DictConfig) -> str:
    """The folder or file that is read, else the source's class."""
    source = cfg.data.train if cfg.data.get("train") is not None else cfg.data.test
    given = next((source[key] for key in ("images", "path", "folder", "captions") if source.get(key)), None)
    return Path(given).name if isinstance(given, str) else source["_target_"].rpartition(".")[2]


def _counter(cfg: DictConfig) -> tuple[CountTokens, str]:
    """What counts the tokens of captions, those at both ends included, and the tokenizer's name."""
    given = [cfg.tokenizer, *(OmegaConf.select(cfg, key) for key in _TOKENIZERS)]
    name = next((value for value in given if isinstance(value, str)), "word")
    if name == "word":
        word = regex.compile(WORD)

        def count_words(texts: Sequence[str]) -> Int[np.ndarray, " N"]:
            return np.array([len(word.findall(text)) + 2 for text in texts], dtype=np.int64)

        return count_words, name
    is_coca = OmegaConf.select(cfg, "model._target_") == f"{CoCa.__module__}.CoCa" and name == cfg.model.name
    backend = (own_tokenizer(name) if is_coca else load_tokenizer(name)).backend_tokenizer

    def count(texts: Sequence[str]) -> Int[np.ndarray, " N"]:
        encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return np.array([len(one.ids) + 2 for one in encoded], dtype=np.int64)

    return count, name


def _guessed(texts: Mapping[str, Texts]) -> dict[str, list[str]]:
    """The language of each sampled caption of each split; nothing without the extra."""
    with phase("guessing languages"):
        return {
            split: guess_languages([text for text, _ in own.sampled]) if can_guess() else []
            for split, own in texts.items()
        }


def _beside(folder: Path) -> list[tuple[str, list[str]]]:
    """Captions that lie in a folder of pictures, and were not given."""
    table = next((path for name in _TABLES if (path := folder / name).is_file()), None)
    if table is not None:
        return [(f"captions were not given, but {table.name} lies there: data.train.captions={table} reads it", [])]
    if tables := metadata_tables(folder):
        told = f"captions were not given, but there are tables of them: data.train.captions={folder} reads them"
        return [(told, [str(tables[0])])]
    named = [name for name in list_images(folder)[:100] if (folder / name).with_suffix(".txt").is_file()]
    if not named:
        return []
    told = "captions were not given, but text files lie beside the pictures: data.train.captions="
    return [(f"{told}{folder} reads them", [str(Path(named[0]).with_suffix(".txt"))])]


def _foreign(texts: Mapping[str, Texts], guessed: Mapping[str, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """Captions whose language contradicts what is given, or what counts as given: English."""
    found = []
    for split, own in guessed.items():
        pairs = list(zip(texts[split].sampled, own, strict=bool(own)))
        another = [f"{tag}, reads as {best}: {text}" for (text, tag), best in pairs if reads_as_another(tag, best)]
        num_sure = len(own) - own.count(UNSURE)
        if len(another) > FOREIGN_SHARE * num_sure:
            told = f"captions of {split} that read as another language than the one given: {len(another):,} of "
            found.append((f"{told}{num_sure:,} that could be guessed, of {len(own):,} sampled", another))
    return found


def _numbers(
    texts: Texts, opened: Pictures | None, guessed: Sequence[str], tokenizer: str, max_length: int
) -> dict[str, Any]:
    found: dict[str, Any] = {"images": len(texts.keys), "captions": texts.num_captions}
    if len(texts.per_image):
        found["captions an image"] = _spread(texts.per_image)
    if texts.num_captions:
        found["words a caption"] = _spread(texts.words)
        found[f"tokens a caption ({tokenizer})"] = _spread(texts.tokens)
        found[f"longer than {max_length} tokens"] = int((texts.tokens > max_length).sum())
        found["repeated captions"] = texts.num_repeated
        found["languages, as given"] = dict(texts.languages.most_common(5))
        if guessed:
            sure = Counter(best for best in guessed if best != UNSURE)
            found["languages, guessed of a sample"] = {**dict(sure.most_common(5)), UNSURE: list(guessed).count(UNSURE)}
        found["scripts of the sample"] = dict(Counter(script_of(text) for text, _ in texts.sampled).most_common(4))
    if texts.num_empty:
        found["empty captions"] = texts.num_empty
    if opened is not None:
        found["pictures opened"] = len(opened.places) + len(opened.broken)
        found["of them broken"] = len(opened.broken)
        if opened.sizes:
            widths, heights = np.array(opened.sizes).T
            found["width"], found["height"] = _spread(widths), _spread(heights)
    return found


def _spread(values: np.ndarray) -> str:
    """Median, with the lowest and the highest where they differ."""
    low, middle, high = int(values.min()), float(np.median(values)), int(values.max())
    return f"{middle:g}" if low == high else f"{middle:g} ({low:,} to {high:,})"


def _findings(
    sources: Mapping[str, DataSource],
    texts: Mapping[str, Texts],
    opened: Mapping[str, Pictures],
    max_length: int,
) -> tuple[list[tuple[str, list[str]]], list[Pair]]:
    """What is wrong or odd, each with examples; and the pictures that look alike."""
    found: list[tuple[str, list[str]]] = []
    files = {split: _files(sources[split], own) for split, own in texts.items()}
    for one, other in combinations(texts, 2):
        if files[one] and files[other]:
            told, both = "pictures that are", same_in_both(files[one], files[other])
        else:  # whether what one key names is one picture, the pixels say
            told, both = "keys that stand", same_in_both(texts[one].keys, texts[other].keys)
        if both:
            found.append((f"{told} in {one} and in {other}: {len(both):,}", both))
    alike, pairs = _alike(texts, opened)
    found += _same_pixels(texts, opened) + alike
    for split, own in opened.items():
        if own.broken:
            total = len(own.broken) + len(own.places)
            reasons = [f"{key}: {reason}" for key, reason in own.broken]
            found.append((f"pictures of {split} that cannot be used: {len(own.broken):,} of {total:,} opened", reasons))
    for split, text in texts.items():
        if text.num_without and any(own.num_captions for own in texts.values()):
            empty = [key for key, count in zip(text.keys, text.per_image, strict=True) if not count]
            found.append((f"pictures of {split} without a caption: {text.num_without:,}", empty))
        num_cut = int((text.tokens > max_length).sum())
        if num_cut > CUT_SHARE * text.num_captions:
            told = f"captions of {split} that data.max_length={max_length} cuts: {num_cut:,} of {text.num_captions:,}"
            found.append((f"{told}; {_length_for(text.tokens, max_length)}", []))
        often = [f"{count:,} times: {caption}" for caption, count in text.counts.most_common(3)]
        top = text.counts.most_common(1)[0][1] if text.counts else 0
        if top > max(9, REPEATED_SHARE * text.num_captions):
            found.append((f"captions of {split} that are one and the same: {top:,} of {text.num_captions:,}", often))
    return found, pairs


def _length_for(tokens: np.ndarray, max_length: int) -> str:
    """A length that cuts the longest 1 % of captions, one at least; of few, all that are cut may be that one."""
    longest, holds = int(tokens.max()), int(np.quantile(tokens, 0.99, method="lower"))
    if holds <= max_length:
        return f"the longest has {longest:,} tokens, the others {holds:,} at most: is it a caption?"
    return f"data.max_length={holds} would cut {int((tokens > holds).sum()):,}, and the longest has {longest:,} tokens"


def _files(source: DataSource, texts: Texts) -> list[str | None]:
    """Where each picture lies; None for those that are no files."""
    if not isinstance(source, FileSource):
        return []
    return [None if name is None else source.files.absolute(name) for name in texts.references]


def _same_pixels(texts: Mapping[str, Texts], opened: Mapping[str, Pictures]) -> list[tuple[str, list[str]]]:
    """Pictures of the same pixels among those that were opened: within a split, and in two."""
    holders: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, own in opened.items():
        for place, pixels in zip(own.places, own.hashes, strict=True):
            holders[pixels].append((split, texts[split].keys[place]))
    several = [where for where in holders.values() if len(where) > 1]
    across = [where for where in several if len({split for split, _ in where}) > 1]
    within = [where for where in several if len({split for split, _ in where}) < len(where)]
    found = []
    for told, cases in (("in two splits", across), ("twice in one split", within)):
        if cases:
            listed = [" = ".join(f"{split} {key}" for split, key in where) for where in cases]
            found.append((f"the same pixels {told}, among the pictures opened: {len(cases):,}", listed))
    return found


def _alike(
    texts: Mapping[str, Texts], opened: Mapping[str, Pictures]
) -> tuple[list[tuple[str, list[str]]], list[Pair]]:
    """Pictures that look alike and are not the same to the pixel: copies that were resized or compressed anew."""
    shown = []
    for split, own in opened.items():
        once = {hashed: place for place, hashed in enumerate(own.hashes) if own.copies}
        shown += [(split, place) for place in once.values()]  # copies to the pixel are told of their own
    if not shown:
        return [], []
    copies = np.stack([opened[split].copies[place] for split, place in shown])
    aspects = np.array([np.divide(*opened[split].sizes[place]) for split, place in shown])
    across: list[Pair] = []
    within: list[Pair] = []
    with phase("comparing pictures"):
        found = alike_pairs(copies, aspects)
    for one, other in found:
        (first, a), (second, b) = shown[one], shown[other]
        if opened[first].hashes[a] != opened[second].hashes[b]:  # those are told as the same pixels
            pair = ((first, opened[first].places[a]), (second, opened[second].places[b]))
            (within if first == second else across).append(pair)
    least = "at least " if len(found) == MOST_PAIRS else ""
    told = []
    for where, pairs in (("in two splits", across), ("in one split", within)):
        if pairs:
            listed = [" ~ ".join(f"{split} {texts[split].keys[place]}" for split, place in pair) for pair in pairs]
            told.append(
                (f"pairs of pictures that look alike {where}, among those opened: {least}{len(pairs):,}", listed)
            )
    return told, across + within


def _pictures_of(sources: Mapping[str, DataSource], texts: Mapping[str, Texts], pair: Pair) -> list[Named]:
    return [(f"{split} {texts[split].keys[place]}", sources[split].image(place)) for split, place in pair]


def _shown(
    sources: Mapping[str, DataSource], opened: Mapping[str, Pictures]
) -> tuple[list[tuple[dict[str, Any], np.ndarray]], list[np.ndarray]]:
    """Pictures with their captions, and pictures for the contact sheet: evenly spaced ones of the first split."""
    first = next((split for split, own in opened.items() if own.places), None)
    if first is None:
        return [], []
    places, source = opened[first].places, sources[first]

    def spaced(number: int) -> list[int]:
        return [places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(number, len(places))).astype(int))]

    samples = []
    for place in spaced(NUM_SAMPLES):
        record = source.record(place)
        captions = clean_captions(record.captions)
        row = {
            "key": record.key,
            "caption": captions[0] if captions else "",
            "references": captions[1:],
            "metadata": {},
        }
        samples.append((row, source.image(place)))
    return samples, [source.image(place) for place in spaced(NUM_TILES)]
