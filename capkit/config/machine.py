"""Hardware of this machine, determined without slow imports."""

import os
import sys
from pathlib import Path

# Device nodes of NVIDIA's driver, of GPUs under WSL, of AMD's driver, and of NVIDIA's systems on a chip.
_GPU_NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-caps", "dxg", "kfd", "nvmap", "nvhost*")


def has_no_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether torch certainly sees no GPU: there is none, or CUDA_VISIBLE_DEVICES hides all.

    False if only torch can tell: on systems other than Linux, and if there is a driver.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return True
    return sys.platform == "linux" and not any(any(devices.glob(node)) for node in _GPU_NODES)
