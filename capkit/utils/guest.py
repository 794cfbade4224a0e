"""What capkit changes of the process around it, given back: for its use within another program."""

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


@contextmanager
def as_guest() -> Iterator[None]:
    """Context at whose end the process is as before: random states, torch's threads, warning filters, loggers, signal
    handlers, environment variables and `sys.path`.

    What a library does at its first import stays; import it before, where that matters.
    """
    with ExitStack() as stack, warnings.catch_warnings():
        for restore in (_random, _threads, _logging, _signals, _environment):
            stack.enter_context(restore())
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
def _threads() -> Iterator[None]:
    threads, path = torch.get_num_threads(), list(sys.path)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        sys.path[:] = path


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
def _signals() -> Iterator[None]:
    """Handlers of this process: only the main thread may set them, and capkit sets none in others."""
    is_main = threading.current_thread() is threading.main_thread()
    before: dict[int, Any] = {}
    if is_main:
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
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
