"""What reinforcement learning does to captions on SceneWorld: every effect with its controls, over seeds, as a table.

    python -m benchmarks.rl.effects --out runs/rl_effects [--seeds 0 1 2] [--only clip shuffled] [--table FILE.md]

Runs are kept in --out: a run that is complete is not made again, and one that was cut goes on. Each starts from a
captioner trained on captions that leave most colours out, judged by two dual encoders: one that rewards, and one that
the reward never saw. MOCHa starts from one that names objects which are not there, and is judged by the scenes;
`mocha_bert` wants MiniLM (`python train.py prepare data=minilm`). Each run takes a minute or two on one core.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
QUIET = ["trainer=cpu", "trainer.devices=1", "callback=[recorder,checkpoints]"]


@dataclass(frozen=True)
class Arm:
    """One row of the table: an experiment, what it starts from, and words that change it."""

    experiment: str
    start: str = "generic"
    words: tuple[str, ...] = ()
    encoder: str = "judge"  # that rewards

    @property
    def is_judged(self) -> bool:
        """Whether dual encoders reward or judge it."""
        return self.start in ("generic", "weak")


def mocha(alpha: float, adequacy: str = "fact_recall") -> Arm:
    terms = f"reward=[nli_scenes,{adequacy}]"
    weights = (terms, f"reward.nli_scenes.weight={alpha}", f"reward.{adequacy}.weight={2 * (1 - alpha)}")
    return Arm("mocha_sceneworld", "hallucinating", weights)


def degenerate(part: str = "") -> Arm:
    return Arm(f"clip_reward_degenerate{part}_sceneworld", "weak", encoder="weak_judge")


BASES = {
    "generic": ("experiment=generic_mle_sceneworld",),
    "hallucinating": ("experiment=hallucinating_mle_sceneworld",),
    "weak": ("experiment=generic_mle_sceneworld", "max_steps=500", "val_every=500"),
}
ENCODERS = {"judge": (), "weak_judge": ("max_steps=400", "val_every=400")}
ARMS = {
    "clip": Arm("clip_reward_sceneworld"),
    "clip_grammar": Arm("clip_reward_grammar_sceneworld"),
    "shuffled": Arm("clip_reward_shuffled_sceneworld"),
    "degenerate": degenerate(),
    "degenerate_grammar": degenerate("_grammar"),
    "degenerate_shuffled": degenerate("_shuffled"),
    "cider_greedy": Arm("cider_scst_sceneworld"),
    "cider_loo": Arm("cider_nsc_sceneworld"),
    "cider_no_eos": Arm("cider_scst_sceneworld", words=("reward.cider.scorer.append_eos=false",)),
    "retrieval": Arm("discritune_sceneworld"),
    "retrieval_shuffled": Arm("discritune_shuffled_sceneworld"),
    "mocha_0": mocha(0.0),
    "mocha_0.5": mocha(0.5),
    "mocha_1": mocha(1.0),
    "mocha_0_f1": mocha(0.0, "fact_f1"),
    "mocha_no_kl": Arm("mocha_sceneworld", "hallucinating", ("objective.kl_weight=0.0",)),
    "mocha_shuffled": Arm("mocha_shuffled_sceneworld", "hallucinating"),
    "mocha_bert": Arm("mocha_bert_score_sceneworld", "hallucinating"),
}
STILL = ("optimizer.lr=1e-12", "max_steps=60", "val_every=60", "callback.recorder.every_steps=1")
COLUMNS = {
    "CLIP-S": "test/clip_score_mean",
    "R@1 in 20": "test/rd20_r1",
    "CIDEr": "test/cider",
    "colours named": "test/color_recall",
    "colours right": "test/color_precision",
    "fact precision": "test/fact_precision",
    "repetition": "test/repetition",
    "bad endings": "test/bad_endings",
    "words": "test/length",
}
MOCHA_COLUMNS = {
    "fidelity": "test/nli_scenes",
    "fact recall": "test/fact_recall",
    "colours right": "test/color_precision",
    "CHAIR by colour": "test/scene_chair_i_color",
    "CIDEr": "test/cider",
    "repetition": "test/repetition",
    "words": "test/length",
    "KL": "rl/kl",
}


class Study:
    """Runs in a folder, each made once, also where several processes ask for it."""

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, words: list[str], made: str = "report.html") -> Path:
        """The folder of a run; it is there once its file `made` is."""
        folder = self.out / name
        with FileLock(self.out / f"{name}.lock"):
            if not (folder / made).exists():
                started = time.monotonic()
                command = [sys.executable, str(ROOT / "train.py"), *words, *QUIET, f"run_dir={folder}"]
                with (self.out / f"{name}.log").open("a") as log:
                    subprocess.run(command, cwd=self.out, stdout=log, stderr=log, check=True)
                print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        return folder

    def base(self, kind: str, seed: int) -> Path:
        return self.run(f"{kind}-{seed}", [*BASES[kind], f"seed={seed}", "controls=0"])

    def judge(self, seed: int, kind: str = "judge") -> Path:
        return self.run(f"{kind}-{seed}", ["experiment=judge_sceneworld", *ENCODERS[kind], f"seed={seed}"])

    def arm(self, name: str, seed: int, suffix: str = "", words: tuple[str, ...] = ()) -> Path:
        """The arm's run of a seed. Seeds beyond the third start from the first three's captioners."""
        arm = ARMS[name]
        start = self.base(arm.start, seed % 3)
        given = [f"experiment={arm.experiment}", f"init_from={start}", f"seed={seed}"]
        if arm.is_judged:
            given += [f"reward_encoder={self.judge(0, arm.encoder)}", f"eval_encoder={self.judge(1)}"]
        given += [*arm.words, *words]
        if name in ("clip_grammar", "degenerate_grammar", "degenerate_shuffled"):
            grammar = self.run("judge_grammar-0", ["experiment=judge_grammar_sceneworld"])
            given.append(f"reward.grammar.scorer.encoder.ckpt={grammar}")
        return self.run(f"{name}{suffix}-{seed}", given)


def numbers(folder: Path) -> dict[str, float]:
    """The run's final numbers, and the last step's KL to the start, where it was logged."""
    found = json.loads((folder / "metrics.json").read_text())
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        found |= {key: value for key, value in json.loads(line).items() if key == "rl/kl"}
    return found


def gradient_sizes(study: Study, name: str, seeds: list[int]) -> list[float]:
    """Mean square of the gradient's norm at the policy that the arm starts from, over 60 batches, for each seed.

    The policy stays where it is. Baselines that leave the expected gradient alone differ here by their variances.
    """
    sizes = []
    for seed in seeds:
        folder = study.arm(name, seed, "_still", STILL)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        norms = [row["train/grad_norm"] for row in rows if "train/grad_norm" in row]
        sizes.append(sum(norm**2 for norm in norms) / len(norms))
    return sizes


def table(study: Study, arms: list[str], seeds: list[int], columns: dict[str, str] = COLUMNS) -> str:
    """Each arm's numbers as "seed seed seed", and those of the captioners that it starts from."""
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for name in arms:
        found = [numbers(study.out / f"{name}-{seed}") for seed in seeds if finished(study, name, seed)]
        if not found:
            continue
        starts = [
            {key.replace("test/initial/", "test/"): v for key, v in f.items() if "initial/" in key} for f in found
        ]
        for label, rows in ((f"{name}: start", starts), (name, found)):
            cells = [" ".join(f"{row.get(key, float('nan')):.3f}" for row in rows) for key in columns.values()]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def finished(study: Study, name: str, seed: int) -> bool:
    return (study.out / f"{name}-{seed}" / "report.html").exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rl_effects"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--variance", action="store_true", help="also the gradient's size under both baselines")
    parser.add_argument("--table", type=Path, help="write the table to this file too")
    parser.add_argument("--no-runs", action="store_true", help="only the table of what is there")
    given = parser.parse_args()
    study = Study(given.out)
    if not given.no_runs:
        for seed in given.seeds:
            for name in given.only:
                study.arm(name, seed)
    text = f"Made {time.strftime('%Y-%m-%d')}, seeds {given.seeds}.\n"
    for columns, is_judged in ((COLUMNS, True), (MOCHA_COLUMNS, False)):
        if arms := [name for name in given.only if ARMS[name].is_judged == is_judged]:
            text += f"\n{table(study, arms, given.seeds, columns)}\n"
    for name in ("cider_greedy", "cider_loo") if given.variance else ():
        sizes = gradient_sizes(study, name, given.seeds)
        text += f"\n{name}: mean squared gradient norm {' '.join(f'{size:.4f}' for size in sizes)}\n"
    print(text)
    if given.table is not None:
        given.table.write_text(text)


if __name__ == "__main__":
    main()
