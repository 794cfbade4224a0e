"""open_clip's side of `benchmarks.contrastive`: its model, loss and optimizer; its step, plain and accumulated."""

from collections.abc import Callable
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from benchmarks.contrastive.workloads import Pairs, Size
from capkit.distributed.collectives import is_distributed, rank, world_size

VERSION = open_clip.__version__


def build(size: Size, device: str, lock_image: bool = False) -> nn.Module:
    image = CLIPVisionCfg(
        layers=size.layers, width=size.width, head_width=size.head, patch_size=size.patch, image_size=size.image
    )
    text = CLIPTextCfg(
        context_length=size.length,
        vocab_size=size.vocabulary,
        width=size.text_width,
        heads=size.text_width // size.head,
        layers=size.text_layers,
    )
    model = open_clip.CLIP(size.joint, image, text, output_dict=True).to(device).train()
    if lock_image:
        model.lock_image_tower()
    return model


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """As its main.py builds it: vectors and scalars without decay, torch's default implementation."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    vectors = [p for name, p in named if p.ndim < 2 or "bias" in name or "ln" in name]
    matrices = [p for name, p in named if not any(p is vector for vector in vectors)]
    groups = [{"params": vectors, "weight_decay": 0.0}, {"params": matrices, "weight_decay": 0.2}]
    return torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.98), eps=1e-6)


def plain_step(model: Any, pairs: Pairs, device: str) -> Callable[[], Tensor]:
    """One step over the whole batch at once (accum-freq 1, precision amp_bf16)."""
    optimizer, loss = adamw(model), ClipLoss()

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            total = sum(loss(**model(pairs.pixels, pairs.tokens), output_dict=True).values())
        total.backward()
        optimizer.step()
        return total.detach()

    return step


def accumulated_step(model: Any, pairs: Pairs, micro_batch: int, device: str) -> Callable[[], Tensor]:
    """One step by accum-freq: all micro-batches forward without gradient, then each once more, with a loss over all.

    Each of the k losses has the gradient of its own micro-batch alone; the others' features are the cached ones. Among
    several ranks by local loss, gathering with gradient.
    """
    ranks = {"local_loss": True, "gather_with_grad": True, "rank": rank(), "world_size": world_size()}
    optimizer, parts = adamw(model), pairs.parts(micro_batch)
    loss = ClipLoss(**ranks) if is_distributed() else ClipLoss()

    def features(part: Pairs) -> tuple[dict[str, Tensor], Tensor]:
        output = model(part.pixels, part.tokens)
        return {name: output[name] for name in ("image_features", "text_features")}, output["logit_scale"]

    def step() -> Tensor:
        cached: dict[str, list[Tensor]] = {"image_features": [], "text_features": []}
        for part in parts:
            with torch.no_grad(), torch.autocast(device, torch.bfloat16):
                for name, values in features(part)[0].items():
                    cached[name].append(values)
        optimizer.zero_grad()
        for j, part in enumerate(parts):
            with torch.autocast(device, torch.bfloat16):
                found, scale = features(part)
                joined = {n: torch.cat([*rows[:j], found[n], *rows[j + 1 :]]) for n, rows in cached.items()}
                total = sum(loss(**joined, logit_scale=scale, output_dict=True).values())
                del joined
            total.backward()
        optimizer.step()
        return total.detach()

    return step


def loss_of(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    return ClipLoss()(images, texts, scale)
