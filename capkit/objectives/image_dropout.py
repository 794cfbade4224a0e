"""Image dropout: a captioner learns to write without an image too, so that it can be guided away from that."""

from dataclasses import replace

import numpy as np
import torch

from capkit.types import Context
from capkit.utils import rng


def drop_images(context: Context, probability: float | int, seed: int, step: int) -> Context:
    """The context with a share of its images replaced by zeros, behind all that maps them to the decoder.

    Kornblith et al. 2023 (arXiv 2307.16686, section 3.2). Whether an image is missing depends on the seed, the step and
    its key: not on the batch, the number of ranks or a resume.
    """
    ids = np.array([rng.stable_hash(seed, "image_dropout", key) for key in context.keys], dtype=np.int64)
    kept = torch.from_numpy(rng.uniform(ids, step) >= probability).to(context.states.device)
    return replace(context, states=context.states.where(kept[:, None, None], 0.0))
