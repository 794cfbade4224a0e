"""Runs of a few seconds to break: likelihood, rewards and contrast, in one process, under DDP, ZeRO-2 and ZeRO-3."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from capkit.checkpoint.loading import read_checkpoint
from capkit.run.folder import RunFolder

STEPS = 24
STRATEGIES = {
    "one": ("trainer=cpu", "trainer.devices=1"),
    "ddp": ("trainer=ddp_cpu", "trainer.devices=2"),
    "zero2": ("trainer=deepspeed_2_cpu", "trainer.devices=2"),
    "zero3": ("trainer=deepspeed_3_cpu", "trainer.devices=2"),
}
ON_GPUS = {name: tuple(word.removesuffix("_cpu") for word in words) for name, words in STRATEGIES.items()}
ON_GPUS["one"] = ("trainer=gpu",)
RANKS = {"one": 1, "ddp": 2, "zero2": 2, "zero3": 2}
TIMES = ("attempt", "time", "train/images_per_second", "train/seconds")
METHODS = ("mle", "rl", "contrastive")
# Likelihood under what lasts for a whole run: a step whose loss is NaN, a wandb that does not answer.
CONDITIONS = {
    "mle_nan": ("+callback.nan._target_=benchmarks.faults.keys.NaNPixels", "callback.nan.step=9"),
    "mle_wandb": ("logger=[wandb]", "logger.wandb.mode=online"),
}

COUNTS = tuple(f"data.{split}.count={count}" for split, count in (("train", 24), ("val", 8), ("test", 8)))
SMALL = (
    "debug=tiny", *COUNTS, "data.batch_size=8", "micro_batch_size=null", "torch_threads=1", "eval_limit=8",
    "trainer.enable_progress_bar=false", "callback=[watchdog,guard,memory,preemption,recorder,checkpoints]",
    "callback.watchdog.timeout_s=8.0", "+callback.keys._target_=benchmarks.faults.keys.BatchKeys",
    "+callback.memory_ends._target_=benchmarks.faults.keys.MemoryEnds",
)  # fmt: skip
CAPTIONER = (
    "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]",
    "model.image_encoder.width=32", "model.dropout=0.2", "decoding.max_length=6",
)  # fmt: skip
ENCODER = (
    "task=fit_encoder", "model=sceneworld_clip", "model.image_tower.width=16", "model.embed_dim=16",
    "model.text_tower.config.hidden_size=16", "model.text_tower.config.intermediate_size=16", "evaluator=[retrieval]",
    "evaluator.retrieval.fold_size=null",
)  # fmt: skip
# Rows fall between checkpoints, some validations on them and some not.
RHYTHM = (
    f"max_steps={STEPS}", "val_every=6", "callback.checkpoints.every_steps=2", "callback.recorder.every_steps=3",
)  # fmt: skip
WHOLE_CARD = (
    "task=fit_rl", "model.lora={decoder: {rank: 2, targets: [query_key_value]}}", "decoding.max_length=6",
    "reward=[clip_score_trained,self_retrieval_trained]", "objective=self_critical",
    "objective.baseline=running_mean", "objective.num_samples=3", "objective.kl=k2", "objective.kl_weight=0.1",
    "optimizer.lr=1e-2", "curriculum=bags", "curriculum.by=step",
)  # fmt: skip


class Starts:
    """What runs by rewards begin with, made once in a folder: a captioner, a judge, bags of look-alikes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commands(self) -> Iterator[tuple[Path, list[str]]]:
        """Each command, and the file that tells that it was run."""
        judge = self.folder / "judge"
        yield (
            self.folder / "captioner/report.html",
            [*self.words("mle"), "max_steps=2", "controls=0", *STRATEGIES["one"], *self._to("captioner")],
        )
        yield (
            judge / "report.html",
            [*self.words("contrastive"), "max_steps=2", "controls=0", *STRATEGIES["one"], *self._to("judge")],
        )
        encoder = f"encoder={{_target_: capkit.checkpoint.loading.load_dual_encoder, ckpt: {judge}}}"
        data = ["data=sceneworld", *COUNTS, *self._caches()]
        mine = ["num_neighbors=10", "duplicate_threshold=1", encoder, *self._to("mine")]
        yield self.folder / "mine/metrics.json", ["mine", *data, *mine]
        bags = [f"neighbors={self.folder / 'mine'}", "sizes=[2,4]", *self._to("bags")]
        yield self.folder / "bags/metrics.json", ["bags", *bags]

    def words(self, method: str) -> list[str]:
        """The words of a command, all but strategy, length and run folder."""
        if method == "mle" or method in CONDITIONS:
            return [*SMALL, *CAPTIONER, *CONDITIONS.get(method, ()), *self._caches()]
        if method == "contrastive":
            return [*SMALL, *ENCODER, *self._caches()]
        judges = [
            f"reward.{name}.scorer.encoder.ckpt={self.folder / 'judge'}" for name in ("clip_score", "self_retrieval")
        ]
        bags = [f"curriculum.folder={self.folder / 'bags'}", "curriculum.stages={7: hard-2, 15: hard-4}"]
        return [*SMALL, *WHOLE_CARD, *judges, *bags, f"init_from={self.folder / 'captioner'}", *self._caches()]

    def _caches(self) -> list[str]:
        return [f"data.{split}.cache_dir={self.folder / 'scenes'}" for split in ("train", "val", "test")]

    def _to(self, name: str) -> list[str]:
        return [f"run_dir={self.folder / name}"]


def differences(once: RunFolder, again: RunFolder) -> list[str]:
    """What a run that was interrupted left otherwise than one that was not; nothing where it was exactly resumed."""
    parts: dict[str, Callable[[RunFolder], Any]] = {
        "rows": numbers,
        "final numbers": lambda run: without_times(run.metrics()),
        "predictions": lambda run: {path.name: path.read_bytes() for path in sorted(run.predictions.rglob("*.json"))},
        "last checkpoint": final_state,
    }
    found = [name for name, read in parts.items() if not equal(read(once), read(again))]
    return found + [
        f"batches of rank {rank}" for rank, seen in batches(again).items() if seen != batches(once).get(rank)
    ]


def gaps(once: RunFolder, again: RunFolder) -> dict[str, float]:
    """Largest difference of the loss over the logged steps, as a share, and of the validation's loss; below 0.1 of 0.1.

    For GPUs, where two runs of one command differ by rounding.
    """
    found = {}
    for name in ("train/loss", "val/loss"):
        ours, theirs = ({row["step"]: row[name] for row in run.current_rows() if name in row} for run in (again, once))
        if theirs:
            assert ours.keys() == theirs.keys(), f"{again.path} has {name} of {list(ours)}, not of {list(theirs)}"
            found[name] = max(abs(ours[step] - theirs[step]) / max(0.1, abs(theirs[step])) for step in theirs)
    return found


def data_differences(once: RunFolder, again: RunFolder) -> list[str]:
    """Steps in which not the same images were seen, by whichever ranks; a step may have been made several times."""
    ours, theirs = ({step: sorted(seen) for step, seen in images(run).items()} for run in (again, once))
    return [f"images of step {step}" for step in sorted(ours | theirs) if ours.get(step) != theirs.get(step)]


def images(run: RunFolder) -> dict[int, set[str]]:
    seen: dict[int, set[str]] = {}
    for steps in batches(run).values():
        for step, kept in steps.items():
            seen.setdefault(step, set()).update(key for keys in kept for key in keys)
    return seen


def numbers(run: RunFolder) -> list[dict[str, Any]]:
    """What each step and each validation logged; wall times and checkpoints' troubles left out."""
    rows = [row for row in run.current_rows() if not any(name.startswith("checkpoint/") for name in row)]
    return [without_times(row) for row in rows]


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMES}


def batches(run: RunFolder) -> dict[str, dict[int, set[tuple[str, ...]]]]:
    """By rank and step: the images that any attempt saw there. A set of more than one is a fault of the data."""
    seen: dict[str, dict[int, set[tuple[str, ...]]]] = {}
    for path in sorted(run.path.glob("batches/*.jsonl")):
        steps = seen.setdefault(path.stem, {})
        for line in path.read_text().splitlines():
            if line.endswith("}"):  # a kill may cut a line
                row = json.loads(line)
                steps.setdefault(row["step"], set()).add(tuple(row["keys"]))
    return seen


def final_state(run: RunFolder) -> dict[str, Any]:
    """Everything in the last checkpoint but the config, which names the run's folder, and numbers of the loop."""
    checkpoint = read_checkpoint(run.checkpoints)
    return {name: checkpoint.get(name) for name in ("global_step", "state_dict", "optimizer_states", "rl")}


def equal(a: Any, b: Any) -> bool:
    """To the last bit; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)
