"""task=collect_preferences: pairs of a captioner's own captions, of which a scorer finds one better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from capkit.checkpoint.files import identity
from capkit.checkpoint.loading import load_captioner
from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.config.instantiate import build, build_all
from capkit.data.datamodule import CaptionDataModule
from capkit.data.preference_files import Preference, write_preferences
from capkit.data.preference_pairs import criteria
from capkit.decoding.config import Decoding
from capkit.errors import UsageError, check_choice
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.scorers.reward import Reward
from capkit.text.tokenizers import prompt_ids
from capkit.train.build import picture_reader, prompt_encoder_of, training_references
from capkit.types import CaptionBatch, Samples
from capkit.utils.console import phase, say
from capkit.utils.files import output_file, write_json
from capkit.utils.process import set_up_process
from capkit.utils.tensors import default_device

FORMS = ("capkit", "trl", "trl_conversational")


def run(cfg: DictConfig) -> dict[str, float]:
    """Sample captions of training pictures, score them by each term of `cfg.reward`, and write pairs of them.

    Returns the number of pairs by criterion, and of pictures that have one.
    """
    set_up_process(cfg.torch_threads)
    decoding: Decoding = build(cfg.decoding)
    if decoding.method != "sample" or decoding.num_candidates is not None:
        raise UsageError(
            f"task=collect_preferences samples captions; expected decoding.method=sample, got {decoding.method}, "
            f"num_candidates={decoding.num_candidates}; leave decoding as it is"
        )
    check_choice("form", cfg.form, FORMS)
    out = output_file(cfg.out)
    reward = Reward(build_all(cfg.reward))
    if reward.compared:
        raise UsageError(
            f"task=collect_preferences: expected scorers of single captions, got {' and '.join(reward.compared)}, "
            "which compare the captions of a batch; take others, and no normalize"
        )
    if unknown := set(cfg.margins) - set(reward.terms):
        raise UsageError(f"margins: expected names of reward's terms, {', '.join(reward.terms)}; got {min(unknown)!r}")
    if negative := [name for name, term in reward.terms.items() if term.weight_at(1, 1) < 0]:
        raise UsageError(
            f"reward.{negative[0]}.weight: expected more than 0, since of each term the higher score is chosen, got "
            f"{reward.terms[negative[0]].weight_at(1, 1)}; take a scorer whose higher score is better"
        )
    device = default_device()
    with phase("loading the checkpoint"):
        model, _ = load_captioner(cfg.ckpt)
        model.to(device).eval()
    data: CaptionDataModule = build(cfg.data)
    data.prepare_data()
    data.attach(run_dir=out.parent, encode_prompt=prompt_encoder_of(model, data))
    reward.attach_captioner(model.tokenizer, model.prompt)
    reward.prepare(picture_reader(data, ("train",)), lambda: training_references(data), device)
    pairs = collect(model, data, reward, decoding, cfg)
    if not pairs:
        raise UsageError(
            f"task=collect_preferences: no two captions of a picture differ by the margins; lower margin={cfg.margin}, "
            "or raise num_samples or decoding.temperature"
        )
    write_preferences(out, pairs, cfg.form)
    checkpoint = resolve_checkpoint(Path(cfg.ckpt))
    written_by = {"checkpoint": str(checkpoint), "hash": identity(checkpoint), "decoding": asdict(decoding)}
    about = {**written_by, "num_samples": cfg.num_samples, "reward": reward.provenance()}
    write_json(out.with_name(f"{out.name}.about.json"), about, ensure_ascii=False)
    counts = criteria(pairs)
    num_images = len({pair.image for pair in pairs})
    say(f"{len(pairs):,} pairs of {num_images:,} pictures, by {counts}: {out}")
    return {"images": float(num_images), **{f"pairs/{name}": float(count) for name, count in counts.items()}}


@torch.inference_mode()
def collect(
    model: Any, data: CaptionDataModule, reward: Reward, decoding: Decoding, cfg: DictConfig
) -> list[Preference]:
    """The pairs of the first `cfg.limit` training pictures, in their order.

    Captions longer than `data.max_length`, which training would cut, are in no pair.
    """
    device, pairs, too_long = default_device(), list[Preference](), 0
    start = len(prompt_ids(model.tokenizer, model.prompt))
    limit = data.num_images("train") if cfg.limit is None else min(cfg.limit, data.num_images("train"))

    def write(batch: CaptionBatch) -> list[Preference]:
        nonlocal too_long
        placed = batch.to(device)
        samples: Samples = model.generate(model.encode(placed), decoding, cfg.num_samples)
        raw = reward.score_alone(batch, samples)
        scores = {name: reward.terms[name].shape(values).tolist() for name, values in raw.items()}
        found: list[Preference] = []
        for row, key in enumerate(batch.keys):
            ids, texts = _ids(samples, row, start), samples.texts[row]
            fits = [start + len(own) <= data.max_length for own in ids]
            too_long += fits.count(False)
            for name in reward.terms:
                known = [value if fit else math.nan for value, fit in zip(scores[name][row], fits, strict=True)]
                chosen = pairs_of(texts, known, _margin(cfg, name), cfg.pairs_per_image)
                values = scores[name][row]
                for better, worse in chosen:
                    sides, given = (texts[better], texts[worse]), (values[better], values[worse])
                    found.append(Preference(key, *sides, model.prompt, name, given, (ids[better], ids[worse])))
        return found

    with phase("sampling and scoring", limit):
        for batch in data.eval_dataloader("train", limit):
            for part in map_in_chunks(batch, write, None, lambda size: None):
                pairs += part
    if too_long:
        say(
            f"{too_long:,} captions are longer than data.max_length={data.max_length} and in no pair; for pairs of "
            "them give a larger one, here and in training"
        )
    return pairs


def pairs_of(texts: Sequence[str], scores: Sequence[float], margin: float, most: int | None) -> list[tuple[int, int]]:
    """Places (better, worse) of captions whose scores differ by the margin or more, the largest difference first.

    Equal texts, of which the first counts, empty ones and captions without a score are in no pair. Of equal
    differences the earlier captions come first; at most `most` pairs, None: all.
    """
    first = {text: place for place, text in reversed(list(enumerate(texts))) if text.strip()}
    known = sorted(place for place in first.values() if scores[place] == scores[place])
    found = [(a, b) for a in known for b in known if scores[a] > scores[b] and scores[a] - scores[b] >= margin]
    return sorted(found, key=lambda pair: (scores[pair[1]] - scores[pair[0]], pair))[:most]


def _margin(cfg: Mapping[str, Any], name: str) -> float:
    return float(cfg["margins"].get(name, cfg["margin"]))


def _ids(samples: Samples, row: int, start: int) -> list[tuple[int, ...]]:
    """The token ids of each caption of a picture behind what was given, EOS included."""
    assert samples.tokens is not None and samples.mask is not None
    return [tuple(ids[real].tolist()[start:]) for ids, real in zip(samples.tokens[row], samples.mask[row], strict=True)]
