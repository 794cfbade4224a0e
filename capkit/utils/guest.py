"""What capkit and the libraries it calls change of the process around it, given back: for use in another program."""

import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from capkit.utils.own_process import lent_process


@contextmanager
def as_guest() -> Iterator[None]:
    """Context at whose end the process is as before, and in which nothing of capkit ends it.

    That is: random states; torch's threads, dtype, device, precision, determinism and process group; warning filters,
    loggers and libraries' progress bars; signal handlers and faulthandler; environment variables, `sys.argv`,
    `sys.path` and `sys.excepthook`. What a library does at its first import stays; import it before, where that
    matters.
    """
    with ExitStack() as stack, warnings.catch_warnings():
        for enter in (
            lent_process, _random, _torch, _process_group, _interpreter, _logging, _progress_bars, _faults, _signals,
            _environment,
        ):  # fmt: skip
            stack.enter_context(enter())
        yield


@contextmanager
def _random() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _torch() -> Iterator[None]:
    """What a Trainer's settings and a model's precision set for all of torch."""
    cudnn = torch.backends.cudnn
    threads, dtype, grad = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    precision = _precision()
    strict = _determinism()
    flags = cudnn.benchmark, cudnn.deterministic
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if precision is not None and _precision() != precision:
            torch.set_float32_matmul_precision(precision)
        if _determinism() != strict:  # setting it imports torch's compiler, which sets variables and filters
            torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        cudnn.benchmark, cudnn.deterministic = flags
        if device is not None:
            torch.cuda.set_device(device)


def _precision() -> str | None:
    """Of float32 products; None where the program set it by torch's newer names, which capkit and Lightning leave."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # both ways of setting it were mixed
        return None


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@contextmanager
def _process_group() -> Iterator[None]:
    """Lightning's strategies leave theirs open, also that of one process alone.

    DeepSpeed's stays: it keeps groups of it for its next engine in this process. So does one of several ranks after an
    error: to close it may mean to wait for ranks that are gone.
    """
    is_there = dist.is_available()
    had_one = is_there and dist.is_initialized()
    has_ended = False
    try:
        yield
        has_ended = True
    finally:
        of_deepspeed = sys.modules.get("deepspeed.comm")
        is_kept = had_one or (of_deepspeed is not None and of_deepspeed.is_initialized())
        if is_there and dist.is_initialized() and not is_kept and (has_ended or dist.get_world_size() == 1):
            dist.destroy_process_group()


@contextmanager
def _interpreter() -> Iterator[None]:
    argv, path, hook = list(sys.argv), list(sys.path), sys.excepthook  # torch's process groups set the hook
    try:
        yield
    finally:
        sys.argv[:], sys.path[:], sys.excepthook = argv, path, hook


@contextmanager
def _logging() -> Iterator[None]:
    loggers = [logging.root, *(x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger))]
    before = [(x, x.level, x.propagate, x.disabled, list(x.handlers), list(x.filters)) for x in loggers]
    filters = [(handler, list(handler.filters)) for x in loggers for handler in x.handlers]
    try:
        yield
    finally:
        for logger, level, propagate, disabled, handlers, own in before:
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
            logger.handlers[:], logger.filters[:] = handlers, own
        for handler, own in filters:
            handler.filters[:] = own


@contextmanager
def _progress_bars() -> Iterator[None]:
    """Those of transformers and of the hub, which a run turns off (capkit/utils/quiet.py)."""
    of_models, of_hub = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        yield
    finally:
        if transformers_logging.is_progress_bar_enabled() != of_models:
            (transformers_logging.enable_progress_bar if of_models else transformers_logging.disable_progress_bar)()
        if are_progress_bars_disabled() == of_hub:
            (enable_progress_bars if of_hub else disable_progress_bars)()


@contextmanager
def _faults() -> Iterator[None]:
    """Python's handler of crashes, which the watchdog of several ranks points at a file of its own."""
    was_on = faulthandler.is_enabled()
    try:
        yield
    finally:
        if was_on and not faulthandler.is_enabled() and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)  # a notebook's sys.stderr is no file


@contextmanager
def _signals() -> Iterator[None]:
    """Handlers of this process, and who is told of signals: none but the main thread may set them, or has them set."""
    is_main = threading.current_thread() is threading.main_thread()
    before: dict[int, Any] = {}
    if is_main:
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    try:
        yield
    finally:
        if is_main:
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                with suppress(OSError, ValueError):
                    signal.signal(number, handler)


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
