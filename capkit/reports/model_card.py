"""README.md of an export: a model card in the form that model hubs read.

What is not known is said to be unknown: nothing is filled in.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from capkit.reports.about import data_of, model_of
from capkit.reports.numbers import columns_of, explained, measured_numbers, shown_number
from capkit.reports.page import intervals_of
from capkit.run.about import read_starts
from capkit.run.changes import flatten
from capkit.run.folder import RunFolder
from capkit.utils.console import clock

_MARKED = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
_FOLDERS = re.compile(r"(?<![^\s=,:'\"\[{])[~/](?:[^/\s,'\"\]}]*/)+")  # of this machine, before a name
_TEMPLATES = Environment(
    loader=PackageLoader("capkit.reports"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)  # Markdown: what is not ours goes through `cell`
_REFERENCES = 2  # of a sample
_RECIPE = {
    "objective._target_": "Objective",
    "optimizer._target_": "Optimizer",
    "optimizer.lr": "Learning rate",
    "scheduler._target_": "Schedule",
    "data.batch_size": "Batch (images of a step)",
    "trainer.precision": "Precision",
    "seed": "Seed",
    "init_from": "Started from",
    "reward_encoder": "Rewarding encoder",
}


@dataclass(frozen=True)
class Exported:
    """What an export is, for its card.

    Args:
        name: of the folder, or the repository.
        purpose: what it does, in words.
        loading: lines that say how to load each part.
        is_plain: whether transformers loads it as one model.
        step: of the checkpoint.
        config: of the run.
        run: the run that trained it, where its folder is still there.
        measured: the run whose numbers are those of this very checkpoint; None where there is none.
        why_unmeasured: said in the place of numbers.
    """

    name: str
    purpose: str
    loading: Sequence[str]
    is_plain: bool
    step: int
    config: Mapping[str, Any]
    run: RunFolder | None = None
    measured: RunFolder | None = None
    why_unmeasured: str = ""


def model_card(
    exported: Exported,
    captions: Sequence[tuple[str, str, Sequence[str]]] = (),
    license: str | None = None,
    limits: str | None = None,
) -> str:
    """The card as Markdown with its YAML head.

    `captions`: key, caption and references of samples. `license`: the weights' licence as model hubs write it, such as
    apache-2.0; `limits`: what the model should not be used for, in your words.
    """
    head = ModelCardData(
        library_name="transformers" if exported.is_plain else "capkit",
        license=license,
        tags=["capkit"],
    )
    columns, rows = _numbers(exported)
    return _TEMPLATES.get_template("model_card.md").render(
        head=head.to_yaml(),
        exported=exported,
        pretrained=_pretrained(exported.config),
        data=cell(data_of(exported.config.get("data"), full_paths=False)),
        model=cell(model_of(exported.config)),
        recipe=_recipe(exported),
        columns=columns,
        rows=rows,
        samples=[
            (cell(key), cell(text), cell(" / ".join(references[:_REFERENCES]))) for key, text, references in captions
        ],
        licence=cell(license or ""),
        limits=limits,
    )


def cell(text: str) -> str:
    """Text as it stands in a table of Markdown: on one line, without marks that would be read as HTML or Markdown."""
    return _MARKED.sub(r"\\\1", " ".join(text.split()))


def _recipe(exported: Exported) -> list[tuple[str, str]]:
    flat = flatten(exported.config)
    found = {"Steps": f"{exported.step:,}"}
    for key, name in _RECIPE.items():
        if flat.get(key) is not None:
            text = str(flat[key])
            found[name] = text.rpartition(".")[2] if key.endswith("_target_") else Path(text).name
    if isinstance(rewards := exported.config.get("reward"), Mapping) and rewards:
        terms = (f"{name} (weight {flatten(term).get('weight', 1)})" for name, term in rewards.items())
        found["Rewards"] = ", ".join(terms)
    if exported.run is not None:
        seconds = exported.run.metrics().get("train/seconds")
        found |= {} if seconds is None else {"Time": clock(seconds)}
        if starts := read_starts(exported.run.path):
            found["Command"] = _FOLDERS.sub("", starts[-1]["command"])
            found["Versions"] = ", ".join(f"{name} {version}" for name, version in starts[-1]["versions"].items())
    return [(name, cell(text)) for name, text in found.items()]


def _numbers(exported: Exported) -> tuple[list[str], list[list[str]]]:
    """Heads of the columns, and a row a number: name, value with interval of each column, meaning."""
    if exported.measured is None:
        return [], []
    found = columns_of(measured_numbers(exported.measured))
    columns = dict(sorted((name, own) for name, own in found.items() if name.split("/")[0] != "val"))
    intervals = intervals_of(exported.measured)
    names = list(dict.fromkeys(name for own in columns.values() for name in own))
    rows = []
    for name in names:
        values = []
        for column, own in columns.items():
            text = shown_number(name, own.get(name))
            if "/" not in column and name in intervals and text and math.isfinite(own[name]):
                low, high = (shown_number(name, end) for end in intervals[name])
                text += f" ({low} to {high})"
            values.append(text)
        rows.append([cell(name), *values, cell(explained(name))])
    return [cell(column) for column in columns], rows


def _pretrained(config: Mapping[str, Any]) -> list[str]:
    """Names of the pretrained parts, whose licences count too."""
    flat = flatten(config.get("model") or {})
    named = (str(value) for key, value in flat.items() if value and key.rpartition(".")[2] in ("name", "lm"))
    names = list(dict.fromkeys(named))
    return [cell(Path(name).name if Path(name).is_absolute() else name) for name in names]
