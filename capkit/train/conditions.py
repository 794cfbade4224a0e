"""Conditions that captions are asked to be written under: checked before any weights load, given to each batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from capkit.checkpoint.files import ABOUT, is_export
from capkit.config.instantiate import build, plain
from capkit.config.run_config import read_run_config
from capkit.data.conditions.bins import ScoreBin
from capkit.data.datamodule import CaptionDataModule
from capkit.errors import UsageError
from capkit.models.conditions.base import ConditionKind, Value
from capkit.models.conditions.bins import Bins
from capkit.models.conditions.parts import build_kinds, parse_values
from capkit.run.folder import read_object
from capkit.types import CaptionBatch

FROM_DATA = "data"  # in the place of a value: each caption's own


@dataclass(frozen=True)
class Requested:
    """`values` by name for all captions; of the names in `from_data`, the values that the batch came with.

    A condition that is in neither is not given.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    from_data: tuple[str, ...] = ()

    def __call__(self, batch: CaptionBatch) -> CaptionBatch:
        """The batch with these conditions and no others. Raises UsageError where the data has no captions to read."""
        if missing := [name for name in self.from_data if name not in batch.conditions]:
            raise UsageError(
                f"conditions.{missing[0]}={FROM_DATA}: expected images with captions, whose values it asks for, got "
                f"images alone; give a value, conditions.{missing[0]}=VALUE"
            )
        conditions = {name: batch.conditions[name] for name in self.from_data}
        for name, value in self.values.items():
            of_one = torch.tensor(value, dtype=torch.float32)
            conditions[name] = of_one.expand(len(batch), *of_one.shape)
        return replace(batch, conditions=conditions)


UNCONDITIONED = Requested()


def requested_conditions(cfg: DictConfig, model: Mapping[str, Any] | None) -> Requested:
    """What `cfg.conditions` asks of the captioner with this config; `NAME=null` asks for nothing.

    Raises UsageError for a name that the captioner has no part for, for a value outside of its range, for values from
    data that has none, and for a kind that there is not.
    """
    asked = {str(name): value for name, value in plain(cfg.conditions).items() if value is not None}
    kinds = kinds_of(model)
    if not asked:
        return UNCONDITIONED
    from_data = tuple(name for name, value in asked.items() if value == FROM_DATA and name in kinds)
    given = OmegaConf.select(cfg, "data.conditions") or {} if "images" not in cfg else {}
    if missing := [name for name in from_data if name not in given]:
        raise UsageError(
            f"conditions.{missing[0]}={FROM_DATA}: expected data that gives {missing[0]}, got "
            f"{', '.join(map(str, given)) or 'data without conditions'}; give a value, or data.conditions.{missing[0]}"
        )
    return Requested(parse_values(kinds, {k: v for k, v in asked.items() if k not in from_data}), from_data)


def kinds_of(model: Mapping[str, Any] | None) -> dict[str, ConditionKind]:
    """The conditions of a captioner with this config, for what they say of values: they have no trained weights."""
    return build_kinds(_settings(model), width=1)


def check_training_conditions(cfg: DictConfig) -> None:
    """What `fit` and `fit_rl` tell before processes are started.

    Raises UsageError for what `requested_conditions` refuses, and where `model.conditions` are of a kind of captioner
    that takes none. Configs are read, no weights.
    """
    model = plain(cfg.model)
    requested_conditions(cfg, model)
    check = getattr(get_object(model["_target_"]), "check_conditions", None)
    if check is not None and model.get("conditions"):
        check({**model, "lm": build(cfg.model.lm)} if "lm" in model else model)


def check_bins(data: CaptionDataModule, model: Any) -> None:
    """Raises UsageError where the data has bins of another number than the captioner that learns them."""
    kinds = model.conditions.kinds if getattr(model, "conditions", None) is not None else {}
    for name, reader in data.conditions.items():
        kind = kinds.get(name)
        if isinstance(reader, ScoreBin) and isinstance(kind, Bins) and kind.count != len(reader.bins):
            num_bins = len(reader.bins)
            raise UsageError(
                f"model.conditions.{name}: expected as many bins as data.conditions.{name} has, {num_bins}; got "
                f"{kind.count}; give model.conditions.{name}={{kind:bins,count:{num_bins}}}"
            )


def _settings(model: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """`conditions` of a captioner's config; of one that goes on from a checkpoint, those of that one."""
    if model is None:
        return {}
    if "conditions" not in model and isinstance(ckpt := model.get("ckpt"), str):
        return _settings(model_config(ckpt))
    found = model.get("conditions")
    return found if isinstance(found, Mapping) else {}


def model_config(ckpt: str) -> Mapping[str, Any] | None:
    """The config of a checkpoint's model, without reading its weights; None where that says nothing of it."""
    path = Path(ckpt)
    if is_export(path):
        node = read_object(path / ABOUT, "export the checkpoint again").get("config")
    else:
        run = read_run_config(path)
        node = None if run is None else run.body.get("model")
    return node if isinstance(node, Mapping) else None
