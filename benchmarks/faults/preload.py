"""What every run imports, imported once: the server that forks the ranks of `benchmarks.faults.ranks` loads it."""

import os

os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1")
os.environ.update(WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="0" * 40)  # nobody listens there

import deepspeed  # noqa: F401
import torch

import capkit.tasks.bags
import capkit.tasks.fit
import capkit.tasks.fit_encoder
import capkit.tasks.fit_rl
import capkit.tasks.mine  # noqa: F401

torch.set_num_threads(1)
