"""Faults done to real runs, again and again, and what was lost: `python -m benchmarks.faults --out DIR`.

    python -m benchmarks.faults --out runs/faults [--lives 60] [--only kill_all stop_one] [--seed 0] [--table-only]
    python -m benchmarks.faults --out runs/faults --gpu [--strategies ddp zero3+one] [--methods rl] [--only term_one]

A life is one run from its start to its end, with several faults in between, each at a random moment; after each of
them the same command is given again. At the end the run is compared with one that was left alone, to the last bit:
rows of metrics.jsonl, final numbers, predictions, images of each step, weights and optimizer. Results go to
DIR/faults.jsonl with their seeds; a campaign that was cut goes on with the next life. docs/resume.md says what is what.

`--gpu`: on two GPUs through NCCL in bf16-mixed, where two runs of one command differ by rounding. Each method and
strategy has one life with every fault of `--only` once. The data must be the same, and losses are compared: the largest
difference from the undisturbed run, beside that between two undisturbed runs. `ddp+one` starts on two GPUs, goes on on
one, then on two again.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.kinds import KINDS, Kind, Target, newest_step, own_disk
from benchmarks.faults.ranks import Ranks
from benchmarks.faults.runs import (
    CONDITIONS,
    METHODS,
    ON_GPUS,
    RANKS,
    RHYTHM,
    STEPS,
    STRATEGIES,
    Starts,
    data_differences,
    differences,
    final_state,
    gaps,
)
from capkit.run.folder import RunFolder

FAULTS_A_LIFE = 6
COLUMNS = (
    "fault", "tries", "lost committed steps", "hangs", "in runs that ended otherwise", "s to go on: median, worst",
    "s until the other ranks ended: median, worst",
)  # fmt: skip
LASTING = {"mle_nan": "NaN loss at a step", "mle_wandb": "wandb unreachable"}
RUN_S = 300.0  # in which an undisturbed run ends


@dataclass
class Fault:
    """One fault and what came of it. Times in seconds.

    `committed`: the step of the newest whole checkpoint at that moment. `resumed_from`: the step that the run went on
    from, the last one where it found that all was done. `ended_s`: until the run's other processes ended.
    `recovered_s`: from the command given again to training.
    """

    kind: str
    life: str
    seed: int
    after_s: float
    committed: int
    ended_s: float
    hung: bool
    wrong: str | None
    resumed_from: int | None = None
    recovered_s: float | None = None

    @property
    def lost(self) -> int:
        return max(0, self.committed - (self.resumed_from or 0))


@dataclass
class Life:
    """One run of a method under a strategy, and its faults in order; `ddp+one`: start after start under another one."""

    number: int
    method: str
    strategy: str
    kinds: list[str]
    seed: int
    faults: list[Fault] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.number:03d}-{self.method}-{self.strategy}"

    def strategy_of(self, start: int) -> str:
        strategies = self.strategy.split("+")
        return strategies[start % len(strategies)]


class Campaign:
    def __init__(self, out: Path, gpu: bool = False) -> None:
        self.out, self.gpu = out.resolve(), gpu
        self.out.mkdir(parents=True, exist_ok=True)
        self.starts = Starts(self.out / "starts")
        self.results = self.out / "faults.jsonl"

    def prepare(self) -> None:
        """What runs begin with."""
        for done, words in self.starts.commands():
            if not done.exists():
                self._run_to_end(words, 1, self.out / "starts" / "logs")

    def undisturbed(self, method: str, strategy: str, number: int = 0) -> tuple[RunFolder, float]:
        """The run that was left alone, and how many seconds it takes; the first, or another of the same command."""
        folder = RunFolder(self.out / "undisturbed" / f"{method}-{strategy}{f'-{number}' if number else ''}")
        clock = folder.path / "seconds"
        if not clock.exists():
            shutil.rmtree(folder.path, ignore_errors=True)
            words = self.words(method, strategy, folder.path)
            started = time.monotonic()
            self._run_to_end(words, RANKS[strategy], folder.path / "logs")
            clock.write_text(f"{time.monotonic() - started:.2f}")
        return folder, float(clock.read_text())

    def words(self, method: str, strategy: str, folder: Path) -> list[str]:
        trainer = ON_GPUS[strategy] if self.gpu else STRATEGIES[strategy]
        if self.gpu:  # the same validation, and no dropout, which draws by rank, on any number of ranks
            trainer = (*trainer, "trainer.limit_val_batches=1.0", *["model.dropout=0.0"] * (method == "mle"))
        return [*self.starts.words(method), *RHYTHM, *trainer, f"run_dir={folder}"]

    def _run_to_end(self, words: list[str], num_ranks: int, logs: Path) -> None:
        ranks = Ranks(words, num_ranks, logs)
        ended = ranks.wait(RUN_S)
        ranks.end()
        if not ended or any(ranks.exit_codes):
            raise RuntimeError(f"a run without a fault failed: {' '.join(words)}\n{ranks.output()[-3000:]}")

    def live(self, life: Life) -> dict[str, Any]:
        """A life from its start to its end; the row to record."""
        folder = self.out / "lives" / life.name
        shutil.rmtree(folder, ignore_errors=True)
        disk = any(KINDS[kind].disk for kind in life.kinds)
        with own_disk(folder / "checkpoints") if disk else nullcontext():
            ends = self._live(life, folder)
        if not ends["differences"] and not ends["failed"]:
            shutil.rmtree(folder)
        return {"life": life.name, "seed": life.seed, **ends, "faults": [asdict(fault) for fault in life.faults]}

    def _live(self, life: Life, folder: Path) -> dict[str, Any]:
        # What goes wrong with wandb changes nothing; a step that is left out does.
        once, seconds = self.undisturbed("mle" if life.method == "mle_wandb" else life.method, life.strategy_of(0))
        rng = random.Random(life.seed)
        for start, kind in enumerate([*life.kinds, None]):
            strategy = life.strategy_of(start)
            words = self.words(life.method, strategy, folder)
            ranks = Ranks(words, RANKS[strategy], folder / "logs" / str(len(life.faults)))
            if kind is not None:
                target = Target(ranks, folder, rng)
                done = newest_step(target.checkpoints) / STEPS
                after_s = rng.uniform(0.0, seconds * (1.0 - 0.8 * done))
                if self.gpu:  # a start there takes longer than all steps: after some of them, then at once
                    target.wait_until_saved(STEPS * (start + 1) // (len(life.kinds) + 2))
                    after_s = 0.0
                if self._strike(KINDS[kind], kind, target, life, after_s):
                    continue
            ended = ranks.wait(RUN_S)
            ranks.end()
            note_resume(life.faults, folder, ranks)
            if kind is None or any(ranks.exit_codes) or not ended:
                if "were done before" in ranks.output():
                    for fault in life.faults:
                        fault.resumed_from = STEPS if fault.resumed_from is None else fault.resumed_from
                return self._end(life, once, RunFolder(folder), ranks, ended)
        raise AssertionError("the last start has no fault")

    def _strike(self, kind: Kind, name: str, target: Target, life: Life, after_s: float) -> bool:
        """Whether the fault came before the run had ended."""
        ranks = target.ranks
        target.wait_until_due(after_s)
        if kind.many:
            target.wait_until_watched()
        if len(ranks.running()) < ranks.number:
            return False
        note_resume(life.faults, target.folder, ranks)
        outcome = kind.strike(target)
        if outcome is None:
            return False
        ranks.end()
        note_resume(life.faults, target.folder, ranks)
        committed = newest_step(target.checkpoints) if outcome.committed is None else outcome.committed
        for fault in life.faults:
            if fault.resumed_from is None:  # what this fault took is no loss of an earlier one
                fault.committed = min(fault.committed, committed)
        life.faults.append(
            Fault(
                name,
                life.name,
                life.seed,
                round(after_s, 2),
                committed,
                round(outcome.ended_s, 2),
                outcome.hung,
                outcome.wrong,
            )
        )
        return True

    def _end(self, life: Life, once: RunFolder, run: RunFolder, ranks: Ranks, ended: bool) -> dict[str, Any]:
        failed = None if ended and not any(ranks.exit_codes) else f"{ranks.exit_codes}: {ranks.output()[-1500:]}"
        if life.method in CONDITIONS:
            wrong = None if life.method != "mle_nan" or failed else wrong_about_nan(run)
            life.faults.append(Fault(life.method, life.name, life.seed, 0.0, 0, 0.0, False, wrong))
        if self.gpu and not failed:
            other, _ = self.undisturbed(life.method, life.strategy_of(0), number=1)
            rounding = {"gaps": gaps(once, run), "gaps between two undisturbed": gaps(once, other)}
            return {"failed": failed, "differences": data_differences(once, run), **rounding}
        return {"failed": failed, "differences": [] if failed else differences(once, run)}


def wrong_about_nan(run: RunFolder) -> str | None:
    """A step of NaN is left out once, and leaves no NaN behind."""
    skipped = max(row.get("train/skipped_steps", 0.0) for row in run.rows())
    state = final_state(run)["state_dict"]
    finite = all(bool(value.isfinite().all()) for value in state.values())
    return None if skipped == 1 and finite else f"{skipped} steps were left out, weights are finite: {finite}"


def note_resume(faults: list[Fault], folder: Path, ranks: Ranks) -> None:
    """For faults that no start has got over until now: the step that this one went on from, and when."""
    rows = [row for row in RunFolder(folder).rows() if "resumed_from" in row and row["time"] > ranks.started_at]
    for fault in faults if rows else ():
        if fault.resumed_from is None:
            fault.resumed_from = rows[-1]["resumed_from"]
            fault.recovered_s = round(rows[-1]["time"] - ranks.started_at, 2)


def lives(count: int, seed: int, only: list[str], methods: list[str]) -> list[Life]:
    """Methods, strategies and kinds of faults in turn; what a life is, follows from its number and the seed alone."""
    pairs = [(method, strategy) for strategy in STRATEGIES for method in methods]
    found = []
    for number in range(count):
        method, strategy = pairs[number % len(pairs)]
        rng = random.Random(f"{seed}-{number}")
        fit = [kind for kind in fitting(only, strategy) if not KINDS[kind].rounds]
        kinds = [rng.choice(fit) for _ in range(FAULTS_A_LIFE if fit else 0)]
        found.append(Life(number, method, strategy, kinds, rng.randrange(2**31)))
    return found


def lives_on_gpus(seed: int, only: list[str], methods: list[str], strategies: list[str]) -> list[Life]:
    """A life of each method and strategy, with every kind once."""
    pairs = [(method, strategy) for strategy in strategies for method in methods]
    return [
        Life(number, method, strategy, fitting(only, strategy), random.Random(f"{seed}-{number}").randrange(2**31))
        for number, (method, strategy) in enumerate(pairs)
    ]


def fitting(only: list[str], strategy: str) -> list[str]:
    """Kinds that such a run can meet."""
    is_root, always_many = os.geteuid() == 0, all(RANKS[name] > 1 for name in strategy.split("+"))
    return [kind for kind in only if (is_root or not KINDS[kind].disk) and (always_many or not KINDS[kind].many)]


def table(rows: list[dict[str, Any]]) -> str:
    """Each kind of fault in a line, and what was not as it should be."""
    bad = {row["life"] for row in rows if row["differences"] or row["failed"]}
    faults = [Fault(**fault) for row in rows for fault in row["faults"]]
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
    for name, what in [*((name, kind.what) for name, kind in KINDS.items()), *LASTING.items(), (None, "all")]:
        these = [fault for fault in faults if name in (None, fault.kind)]
        if not these:
            continue
        cells = [
            what, len(these), sum(fault.lost for fault in these), sum(fault.hung for fault in these),
            sum(fault.life in bad for fault in these),
            spread([fault.recovered_s for fault in these if fault.recovered_s is not None]),
            spread([fault.ended_s for fault in these if fault.ended_s > 0]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if any("gaps" in row for row in rows):
        lines += ["", "| run | fault: from step | loss | two undisturbed | validation | two undisturbed |"]
        lines += ["| --- | --- | --- | --- | --- | --- |", *(gap_line(row) for row in rows if "gaps" in row)]
        lines += ["", f"{len(rows)} runs, {len(rows) - len(bad)} of them with the data of the undisturbed one"]
    else:
        lines += ["", f"{len(rows)} runs, {len(rows) - len(bad)} of them equal to the undisturbed one to the last bit"]
    lines += [f"- {row['life']}: {row['failed'] or row['differences']}" for row in rows if row["life"] in bad]
    return "\n".join(lines + [f"- {fault.life}, {fault.kind}: {fault.wrong}" for fault in faults if fault.wrong])


def gap_line(row: dict[str, Any]) -> str:
    """Of a life on GPUs: its faults with the steps that it went on from, and the largest differences of its losses."""
    faults = ", ".join(f"{fault['kind']}: {fault['resumed_from']}" for fault in row["faults"])
    sides = [row["gaps"], row["gaps between two undisturbed"]]
    cells = [f"{side[name]:.1e}" if name in side else "" for name in ("train/loss", "val/loss") for side in sides]
    return f"| {row['life']} | {faults} | {' | '.join(cells)} |"


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f}, {max(seconds):.1f}" if seconds else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lives", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *CONDITIONS], default=[*METHODS, *CONDITIONS])
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--gpu", action="store_true", help="on two GPUs, one life of each method and strategy")
    parser.add_argument("--strategies", nargs="*", default=["ddp", "zero2", "zero3", "ddp+one"], help="of --gpu")
    arguments = parser.parse_args()
    if arguments.gpu:
        os.environ["FAULTS_ON_GPUS"] = "1"
    campaign = Campaign(arguments.out, arguments.gpu)
    rows = [json.loads(line) for line in campaign.results.read_text().splitlines()] if campaign.results.exists() else []
    if not arguments.table_only:
        campaign.prepare()
        given = (arguments.seed, arguments.only, arguments.methods)
        for life in lives_on_gpus(*given, arguments.strategies) if arguments.gpu else lives(arguments.lives, *given):
            if life.name in {row["life"] for row in rows}:
                continue
            row = campaign.live(life)
            rows.append(row)
            with campaign.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            came = row["failed"] or row["differences"] or "equal"
            print(life.name, *(fault.kind for fault in life.faults), came, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
