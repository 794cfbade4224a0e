"""What a program may rely on in its own process, whatever it calls; and how a library would change each of it."""

import faulthandler
import gc
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import warnings

import numpy as np
import torch
import torch._inductor.config
import torch.distributed as dist
from huggingface_hub.utils import are_progress_bars_disabled
from hydra.core.global_hydra import GlobalHydra
from transformers.utils import logging as transformers_logging

OBSERVER = "child-process-observer"  # Lightning's of DDP, which ends by itself within 5 s


def state():
    """Each part by its name; two states are compared by `differing`."""
    loggers = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    cudnn = torch.backends.cudnn
    return {
        "warnings": (list(warnings.filters), warnings.showwarning, warnings.formatwarning),
        "logging": {
            x.name: (x.level, x.propagate, x.disabled, list(x.handlers), list(x.filters), [h.level for h in x.handlers])
            for x in [logging.root, *loggers]
        },
        "progress bars": (transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "wakeup": _wakeup(),
        "faults": faulthandler.is_enabled(),
        "environment": dict(os.environ),
        "random": random.getstate(),
        "numpy's random": str(np.random.get_state()),
        "torch's random": torch.get_rng_state().tolist(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's dtype": (torch.get_default_dtype(), torch.get_default_device()),
        "torch's precision": (torch.get_float32_matmul_precision(), cudnn.allow_tf32),
        "determinism": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn.benchmark,
            cudnn.deterministic,
        ),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "process group": dist.is_initialized(),
        "threads": sorted({thread.name for thread in threading.enumerate()} - {OBSERVER}),
        "children": multiprocessing.active_children(),
        "paths": list(sys.path),
        "arguments": list(sys.argv),
        "folder": os.getcwd(),
        "hydra": GlobalHydra.instance().hydra,
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook, sys.stdout, sys.stderr, gc.isenabled()),
    }


def _wakeup():
    before = signal.set_wakeup_fd(-1)
    if before >= 0:
        signal.set_wakeup_fd(before)
    return before


def differing(before, after):
    """Names of the parts that changed. Loggers that came since are none of the program's own."""
    loggers = after["logging"]
    after = {**after, "logging": {name: loggers[name] for name in before["logging"]}}
    return [name for name in before if before[name] != after[name]]


def _group():
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    free.close()
    dist.init_process_group("gloo", init_method=address, rank=0, world_size=1)


_sockets = socket.socketpair()
_sockets[0].setblocking(False)


def _wake():
    signal.set_wakeup_fd(_sockets[0].fileno())


LEAKS = {
    "warnings": lambda: warnings.filterwarnings("ignore", "planted"),
    "logging": lambda: logging.getLogger("transformers").setLevel(logging.CRITICAL),
    "progress bars": lambda: (
        transformers_logging.disable_progress_bar()
        if transformers_logging.is_progress_bar_enabled()
        else transformers_logging.enable_progress_bar()
    ),
    "signals": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "wakeup": _wake,
    "faults": lambda: faulthandler.disable() if faulthandler.is_enabled() else None,
    "environment": lambda: os.environ.update(PLANTED="1"),
    "random": random.random,
    "numpy's random": lambda: np.random.seed(1),
    "torch's random": lambda: torch.manual_seed(1),
    "torch threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's precision": lambda: torch.set_float32_matmul_precision("medium"),
    "determinism": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "gradients": lambda: torch.set_grad_enabled(False),
    "process group": _group,
    "paths": lambda: sys.path.append("/planted"),
    "arguments": lambda: sys.argv.append("--planted"),
}
