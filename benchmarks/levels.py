"""Settings of alignment levels on SceneWorld, beside each other, on seeds that no test uses.

    python -m benchmarks.levels [--seeds 10 11 12] [--shares 0.8 0.9] [--only WORD ...] [--jobs N] [--out DIR]

Each cell aligns a corpus, trains a captioner of levels and one without, and prints fact F1 of the top level over that
of the captioner without levels, Spearman's correlation of level and fact F1, and what the top bin holds. What is done
already is read; a cell that failed is left out of its row, and the command exits with 1. tests/effects/test_noc.py
measures with the same `Corpus`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from benchmarks.starts import folder_of
from capkit.checkpoint.loading import load_dual_encoder
from capkit.cli import main as capkit
from capkit.data.alignment_bins import AlignmentBins, Strategy, bins_of_corpus
from capkit.data.features import FeatureWriter
from capkit.data.records import read_manifest, write_manifest
from capkit.data.sources.manifest import Manifest
from capkit.metrics.correlation import spearman
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.utils.files import write_atomically

ROOT = Path(__file__).parents[1]
ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
COLORS = ["red", "yellow", "green", "cyan", "blue", "purple"]
SHAPES = ["circle", "square", "triangle", "cross"]
OPTIONS = WorldOptions(SHAPES, COLORS, ["large"], ["white", "black"], min_objects=1, max_objects=1)
WORLD = [f"colors={COLORS}".replace(" ", ""), "min_objects=1", "max_objects=1"]
VANILLA = ["~model.conditions", "conditions.alignment=null"]


@dataclass(frozen=True)
class Setting:
    """Captions of the corpus, its bins, steps of so many captions, and further words of the training.

    `encoder`: further words of the training of a dual encoder, whose cosines are the scores; None: noisy facts are.
    """

    count: int = 1200
    bins: int = 6
    strategy: Strategy = "uniform"
    steps: int = 900
    batch: int = 16
    words: tuple[str, ...] = ()
    encoder: tuple[str, ...] | None = None


class Corpus:
    """A scored corpus, features of its pictures, and captioners of it: each is trained once.

    Args:
        folder: Where the corpus comes to lie, as `aligned`.
        run_once: The run folder of a command, by a name and the command's words; made if it is not there.
        judge: A dual encoder whose image tower reads the pictures.
    """

    def __init__(self, folder: Path, run_once: Callable[..., Path], judge: Path, seed: int, setting: Setting) -> None:
        self.folder, self._run_once, self._judge = folder / "aligned", run_once, judge
        self._seed, self.setting = seed, setting
        self.features = self.folder / "features"

    def align(self, share: float, *scorer: str) -> "Corpus":
        """Score and cut the corpus, unless it is there. `scorer`: words that choose one, of noisy facts otherwise."""
        if (self.features / "keys.json").exists():
            return self
        options = [f"data.train.source.options.{word}" for word in WORLD]
        words = ["align", "data=sceneworld_graded_noise", f"data.train.share={share}", *options, f"seed={self._seed}"]
        words += [f"data.train.source.count={self.setting.count}", f"bins={self.setting.bins}"]
        words += [f"strategy={self.setting.strategy}", f"out={self.folder}"]
        before = Path.cwd()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        os.chdir(self.folder.parent)  # where scenes are drawn
        try:
            if capkit([*words, *(scorer or ["scorer=noisy_facts"])]):
                raise SystemExit(f"capkit {' '.join(words)} failed; its message stands above")
        finally:
            os.chdir(before)
        self._write_features()
        return self

    def shuffled(self) -> "Corpus":
        """The same captions, their scores passed on to others at random."""
        other = Corpus(self.folder.with_name("shuffled"), self._run_once, self._judge, self._seed, self.setting)
        records = list(read_manifest(self.folder / "train.jsonl"))
        order = np.random.default_rng(self._seed).permutation(len(records))
        scores = [records[place].captions[0].score for place in order]
        write_manifest(
            other.folder / "train.jsonl",
            (
                replace(record, captions=[replace(record.captions[0], score=score)])
                for record, score in zip(records, scores, strict=True)
            ),
        )
        manifest = Manifest(str(other.folder / "train.jsonl"))
        bins = bins_of_corpus(manifest, self.setting.bins, self.setting.strategy, "shuffled")
        bins.write(other.folder / "bins.json")
        other.features = self.features
        return other

    def top_bin(self) -> tuple[int, float]:
        """How many captions the top bin holds, and the share of them that are clean."""
        bins = AlignmentBins.read(self.folder / "bins.json")
        scored = [(r.captions[0].score, r.metadata["noise"]) for r in read_manifest(self.folder / "train.jsonl")]
        clean = [noise == 0 for score, noise in scored if score is not None and bins(score) == len(bins) - 1]
        return len(clean), mean(clean)

    def _write_features(self) -> None:
        judge = load_dual_encoder(str(self._judge))
        sources: list[Manifest | SceneWorld] = [Manifest(str(self.folder / "train.jsonl"))]
        sources += [SceneWorld(split, 600, 32, style="short", options=OPTIONS) for split in ("val", "test")]
        keys = [source.record(index).key for source in sources for index in range(len(source))]
        pictures = [source.image(index) for source in sources for index in range(len(source))]
        with torch.inference_mode():
            pixels = judge.preprocess(pictures).split(200)
            found = torch.cat([judge.get_submodule("image_tower")(some) for some in pixels]).numpy()
        with FeatureWriter(self.features, keys, found.shape[1:]) as writer:
            writer.write(keys, found)

    def train(self, *words: str) -> Path:
        """The run folder of a captioner: unless words say otherwise, of levels, and asked for the top one."""
        chosen = self.setting
        given = ["experiment=noc_sceneworld", f"data.train.path={self.folder / 'train.jsonl'}"]
        given += [f"data.val.options.{word}" for word in WORLD]
        given += [f"data.conditions.alignment.file={self.folder / 'bins.json'}", f"data.features={self.features}"]
        given += [f"model.conditions.alignment.count={chosen.bins}", "data.transform=null"]
        given += ["model.image_encoder=null", "model.feature_width=64", "model.num_layers=1"]
        given += ["data.val.count=20", "data.test.count=600", "controls=0", "metric=[facts]", *ONE_CORE]
        given += [f"max_steps={chosen.steps}", f"val_every={chosen.steps}", f"data.batch_size={chosen.batch}"]
        return self._run_once(f"noc_{self._seed}", [*given, *chosen.words, f"seed={self._seed}", *words])

    def f1(self, *words: str) -> float:
        """Fact F1 of that captioner on the test split."""
        return float(json.loads((self.train(*words) / "metrics.json").read_text())["test/fact_f1"])

    def of_levels(self, *words: str) -> list[float]:
        """Fact F1 of the captions of each level."""
        command = ["evaluate", f"ckpt={self.train(*words)}", "conditions.alignment=sweep", *ONE_CORE]
        swept = self._run_once(f"noc_sweep_{self._seed}", command, "sweep.html")
        return [row["numbers"]["test/fact_f1"] for row in json.loads((swept / "sweep.json").read_text())]


def encoder_words(seed: int, *words: str) -> list[str]:
    """The training of a dual encoder of complete captions of this world."""
    world = [f"data.train.source.options.{word}" for word in WORLD]
    return ["experiment=judge_sceneworld", *world, "val_every=600", "controls=0", *ONE_CORE, f"seed={seed}", *words]


COSINES = Setting(steps=450, batch=32, encoder=())
SETTINGS = {
    "short": Setting(),
    "long": Setting(steps=1800),
    "wide": Setting(batch=32),
    "long and wide": Setting(steps=1800, batch=32),
    "of twice the captions": Setting(count=2400, steps=1800, batch=32),
    "of four times the captions": Setting(count=4800),
    "cosines": COSINES,
    "cosines in bins of equal numbers": replace(COSINES, strategy="quantile"),
    "cosines after 200 steps": replace(COSINES, encoder=("max_steps=200", "val_every=200")),
    "cosines after 1,800 steps": replace(COSINES, encoder=("max_steps=1800",)),
    "cosines of fewer pictures": replace(COSINES, encoder=("data.train.source.count=1200",)),
}


def measure(name: str, share: float, seed: int, out: Path) -> dict[str, float]:
    """What the levels of one setting are worth, at a share of noise and a seed; written to a file of its own."""

    def run_once(_: str, words: list[str], made: str = "report.html") -> Path:
        run = out / f"run-{len(list(out.glob('run-*')))}"
        if capkit([*words, f"run_dir={run}"]) or not (run / made).exists():
            raise SystemExit(f"capkit {' '.join(words)} failed; its message stands above")
        return run

    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    setting, scorer = SETTINGS[name], []
    if setting.encoder is not None:
        encoder = run_once("encoder", encoder_words(seed, *setting.encoder))
        scorer = ["scorer=cosine_trained", f"scorer.encoder.ckpt={encoder}"]
    corpus = Corpus(out, run_once, folder_of("judge", 0), seed, setting).align(share, *scorer)
    vanilla, levels, (held, clean) = corpus.f1(*VANILLA), corpus.of_levels(), corpus.top_bin()
    found = {"top": levels[-1], "vanilla": vanilla, "spearman": spearman(range(len(levels)), levels)}
    found |= {"held": held, "clean": clean}
    write_atomically(out / "found.json", json.dumps({**found, "levels": levels}))
    return found


def line(name: str, share: float, rows: Sequence[dict[str, float]]) -> str:
    def listed(values: Sequence[float]) -> str:
        return " ".join(f"{value:.2f}" for value in values)

    gains = listed([row["top"] - row["vanilla"] for row in rows])
    cells = [gains, *(listed([row[key] for row in rows]) for key in ("top", "vanilla", "spearman", "clean"))]
    cells.append(" ".join(f"{row['held']:.0f}" for row in rows))
    return f"| {name} | {share:.0%} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.9], help="of noisy captions")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="settings whose name holds one")
    parser.add_argument("--jobs", type=int, default=1, help="how many cells at once, of one core each")
    parser.add_argument("--out", type=Path, default=Path("runs/levels"))
    given = parser.parse_args()
    names = [name for name in SETTINGS if any(word in name for word in given.only)]
    cells = [(name, share, seed) for name in names for share in given.shares for seed in given.seeds]

    def attempt(cell: tuple[str, float, int]) -> dict[str, float] | None:
        name, share, seed = cell
        folder = given.out.resolve() / f"{name.replace(' ', '-')}-{share:g}-{seed}"
        if not (folder / "found.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            code = f"from benchmarks.levels import *; measure({name!r}, {share}, {seed}, Path({str(folder)!r}))"
            path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
            with (folder / "log").open("w") as log:
                command = [sys.executable, "-c", code]
                status = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
            if status:
                print(f"{folder.name} failed:\n{(folder / 'log').read_text()[-2000:]}", file=sys.stderr, flush=True)
                return None
        return json.loads((folder / "found.json").read_text())  # type: ignore[no-any-return]

    with ThreadPoolExecutor(given.jobs) as pool:
        found = dict(zip(cells, pool.map(attempt, cells), strict=True))
    print(
        "| setting | noise | top over vanilla | top | vanilla | Spearman | clean in the top bin | of |\n|"
        + " --- |" * 8
    )
    for name in names:
        for share in given.shares:
            rows = [found[name, share, seed] for seed in given.seeds]
            print(line(name, share, [row for row in rows if row is not None]))
    sys.exit(int(None in found.values()))


if __name__ == "__main__":
    main()
