"""The project's wandb workspace as code: overview, RL health, retrieval, data, system.

    python launch/dashboard.py --check                              # lists sections and panels; sends nothing
    python launch/dashboard.py --entity NAME --project capkit       # sends them, where wandb has an API key

Sending needs the pip extra capkit[dashboard]. Each call makes a new saved view of the project; what others have made
stays. Reward terms are those of configs/reward; a term of your own: --terms mine,other.
"""

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capkit.config.locations import config_dir
from capkit.errors import UsageError
from capkit.run.metric_names import BAG_SIZE, POLICY, REWARD, SAMPLES, TRAIN, VALIDATION, of_term

# Sampled by wandb itself, for the first eight GPUs.
SYSTEM = (
    *(f"system/gpu.{number}.gpu" for number in range(8)),
    *(f"system/gpu.{number}.memoryAllocated" for number in range(8)),
    "system/cpu",
    "system/proc.memory.rssMB",
)


@dataclass(frozen=True)
class Panel:
    """`line`: numbers by step. `scatter`: the first number across, the second up, a point a run. `table`: a table."""

    title: str
    names: tuple[str, ...]
    kind: str = "line"


def sections(terms: Sequence[str]) -> dict[str, list[Panel]]:
    """The panels of each section, in their order."""
    raw, weighted = zip(*map(of_term, terms), strict=True)
    return {
        "overview": [
            Panel("CIDEr", ("val/cider",)),
            Panel("CLIPScore", ("val/clip_score_mean", "val/clip_score_ref")),
            Panel("retrieval R@1", ("val/retrieval_t2i_r1",)),
            Panel("frontier: R@1 against CIDEr", ("val/cider", "val/retrieval_t2i_r1"), "scatter"),
            Panel("facts", ("val/fact_f1", "val/fact_precision", "val/fact_recall")),
            Panel("loss", ("train/loss",)),
            Panel("captions before and now", (SAMPLES,), "table"),
        ],
        "RL health": [
            Panel("total reward: samples, greedy", ("reward/total", "reward/greedy")),
            Panel("reward terms, raw", raw),
            Panel("reward terms, weighted", weighted),
            Panel("KL to the start (nats a caption)", ("rl/kl",)),
            Panel("entropy (nats a token)", ("rl/entropy",)),
            Panel("repetition", ("rl/repetition", "val/repetition")),
            Panel("distinct bigrams", ("rl/distinct_2",)),
            Panel("bad endings", ("rl/bad_endings", "val/bad_endings")),
            Panel("length (words)", ("rl/length", "val/length")),
            Panel("captions that hit the length cap", ("rl/hit_max_length",)),
            Panel("spread of rewards", ("reward/std",)),
            Panel("images whose samples score alike", ("reward/zero_spread",)),
            Panel("log-probability gap (nats a token)", ("rl/logprob_gap",)),
            Panel("ratios clipped", ("rl/clip_fraction",)),
            Panel("baseline", ("rl/baseline",)),
        ],
        "retrieval": [
            Panel("caption to image: R@1, 5, 10", tuple(f"val/retrieval_t2i_r{k}" for k in (1, 5, 10))),
            Panel("image to caption: R@1, 5, 10", tuple(f"val/retrieval_i2t_r{k}" for k in (1, 5, 10))),
            Panel("caption to image: median rank", ("val/retrieval_t2i_median_rank",)),
            Panel("images in the pool", ("val/retrieval_pool",)),
            Panel("R@1 in bags of 3, 5, 7", tuple(f"val/truematch_{size}_r1" for size in (3, 5, 7))),
            Panel("images in a bag of training", (BAG_SIZE,)),
        ],
        "data": [
            Panel("images a second", ("train/images_per_second",)),
            Panel("tokens a caption", ("rl/tokens",)),
            Panel("captions that could not be scored", ("reward/failed",)),
            Panel("empty captions", ("val/empty",)),
            Panel("vocabulary of validation captions", ("val/vocabulary_size",)),
            Panel("BLEU-4, ROUGE-L", ("val/bleu_4", "val/rouge_l")),
        ],
        "system": [
            Panel("gradient norm", ("train/grad_norm",)),
            Panel("learning rate", ("train/lr",)),
            Panel("GPU use (%)", SYSTEM[:8]),
            Panel("GPU memory (%)", SYSTEM[8:16]),
            Panel("CPU (%)", ("system/cpu",)),
            Panel("memory of the process (MB)", ("system/proc.memory.rssMB",)),
        ],
    }


def shipped_terms() -> list[str]:
    """The reward terms of configs/reward, by the first lines of its files."""
    first_lines = [file.read_text(encoding="utf-8").split("\n", 1)[0] for file in (config_dir() / "reward").iterdir()]
    return sorted(line.removeprefix("# @package reward.") for line in first_lines if "@package reward." in line)


def unknown_names(spec: Mapping[str, Sequence[Panel]], terms: Sequence[str]) -> list[str]:
    """Names that panels ask for and no run logs."""
    logged = {
        *TRAIN,
        BAG_SIZE,
        *REWARD,
        *POLICY,
        *VALIDATION,
        SAMPLES,
        *SYSTEM,
        *(n for term in terms for n in of_term(term)),
    }
    return sorted({name for panels in spec.values() for panel in panels for name in panel.names} - logged)


def workspace(spec: Mapping[str, Sequence[Panel]], entity: str, project: str) -> Any:
    """The workspace as wandb's library has it. Raises UsageError without the pip extra."""
    try:
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UsageError("a dashboard needs wandb-workspaces: pip install 'capkit[dashboard]'") from error
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="capkit",
        sections=[
            workspaces.Section(name=name, panels=[_as_wandb(panel) for panel in panels], is_open=True)
            for name, panels in spec.items()
        ],
    )


def _as_wandb(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as reports

    if panel.kind == "table":
        return reports.WeavePanelSummaryTable(table_name=panel.names[0])
    if panel.kind == "scatter":
        x, y = map(reports.SummaryMetric, panel.names)
        return reports.ScatterPlot(title=panel.title, x=x, y=y)
    return reports.LinePlot(title=panel.title, x="Step", y=list(panel.names))


def has_key() -> bool:
    import wandb

    return bool(wandb.api.api_key)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entity", help="the user or team that the project belongs to")
    parser.add_argument("--project", default="capkit", help="as in logger.wandb.project")
    parser.add_argument("--terms", default="", help="reward terms of your own, with commas between them")
    parser.add_argument("--check", action="store_true", help="build it, list its panels, send nothing")
    given = parser.parse_args(arguments)
    terms = shipped_terms() + [term for term in given.terms.split(",") if term]
    spec = sections(terms)
    try:
        if unknown := unknown_names(spec, terms):
            raise UsageError(f"panels ask for what no run logs: {', '.join(unknown)}; see capkit/run/metric_names.py")
        if given.check:
            return check(spec)
        if given.entity is None:
            raise UsageError("whose project? give --entity NAME, or --check to send nothing")
        made = workspace(spec, given.entity, given.project)
        if not has_key():
            raise UsageError("wandb has no API key here, so nothing was sent; run `wandb login`, or set WANDB_API_KEY")
        made.save()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check(spec: Mapping[str, Sequence[Panel]]) -> int:
    """Lists the panels and builds them, offline."""
    for name, panels in spec.items():
        print(f"{name} ({len(panels)} panels)")
        for panel in panels:
            print(f"  {panel.title} [{panel.kind}]: {', '.join(panel.names)}")
    if importlib.util.find_spec("wandb_workspaces") is None:
        print("every name is one that runs log; not built: pip install 'capkit[dashboard]'")
    else:
        built = workspace(spec, "nobody", "nothing")
        print(f"every name is one that runs log; built: {sum(len(s.panels) for s in built.sections)} panels")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
