"""task=export: a trained dual encoder as plain folders that transformers loads, adapters merged and alone."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from rich.console import Console
from safetensors.torch import save_file
from transformers import PreTrainedModel

from capkit.checkpoint import load_dual_encoder
from capkit.errors import UsageError
from capkit.models.adapters import adapted_part, merged, save_adapters
from capkit.models.hf_two_tower import HFTwoTower
from capkit.models.pair_model import PairModel


def run(cfg: DictConfig) -> dict[str, float]:
    """Writes `cfg.out` from `cfg.ckpt`; returns how many files there are.

    A whole dual encoder of transformers becomes one folder, with tokenizer and image processor. Of two towers each one
    that is transformers' becomes a folder; projections and scale go into projections.safetensors. Adapters are merged
    into the weights, and also saved alone in adapters/. Raises UsageError where the folder is not empty.
    """
    out = Path(cfg.out)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"out={out} is not empty; give a new folder")
    model = load_dual_encoder(cfg.ckpt)
    for side in ("image", "text"):
        tower = model.side(side)[0]
        if any(isinstance(module, BaseTunerLayer) for module in tower.modules()):
            save_adapters(tower, out / "adapters" / side)
    if isinstance(model, HFTwoTower):
        _save(merged(model.plain_network()), model, out)
    else:
        _save_towers(model, out)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    Console().print("\n".join(str(path) for path in files), highlight=False, soft_wrap=True, markup=False)
    return {"files": float(len(files))}


def _save(network: Any, model: PairModel, folder: Path) -> None:
    network.save_pretrained(folder)
    tokenizer: Any = model.tokenizer
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    processor: Any = getattr(model, "image_processor", None)
    if processor is not None:
        processor.save_pretrained(folder)


def _save_towers(model: PairModel, out: Path) -> None:
    saved = set()
    for side in ("image", "text"):
        network = adapted_part(model.side(side)[0])
        if isinstance(network, PreTrainedModel):
            _save(merged(network), model, out / f"{side}_tower")
            saved.add(f"{side}_tower.")
    rest = {name: value for name, value in model.state_dict().items() if not name.startswith(tuple(saved))}
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in rest.items()}, out / "projections.safetensors")
    about = {"embed_dim": model.embed_dim, "prompt": model.prompt, "logit_scale": float(model.logit_scale)}
    (out / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
