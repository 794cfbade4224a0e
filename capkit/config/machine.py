"""What this machine has, asked without importing anything slow."""

import os
import sys
from pathlib import Path

# Device nodes of NVIDIA's driver, of Windows' GPUs under WSL, of AMD's driver, and of NVIDIA's boards with an own chip.
_GPU_NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-caps", "dxg", "kfd", "nvmap", "nvhost*")


def has_no_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether it is certain that torch sees no GPU: none is there, or CUDA_VISIBLE_DEVICES hides them all.

    False where only torch itself can tell: on other systems than Linux, and where there is a driver.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return True
    return sys.platform == "linux" and not any(any(devices.glob(node)) for node in _GPU_NODES)
