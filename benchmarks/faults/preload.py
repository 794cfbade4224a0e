"""What every run imports, imported once: the server that forks the ranks of `benchmarks.faults.ranks` loads it."""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
os.environ.update(WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="0" * 40)  # nobody listens there
if os.environ.get("FAULTS_ON_GPUS") == "1":
    # Forked processes can use a GPU that the server has not looked at, as deepspeed does when it is imported.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
else:
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: F401

import torch

import capkit.tasks.bags
import capkit.tasks.fit
import capkit.tasks.fit_encoder
import capkit.tasks.fit_rl
import capkit.tasks.mine  # noqa: F401

torch.set_num_threads(1)
