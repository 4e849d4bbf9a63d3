"""What the code of plugins may do to the process that they run in, undone when they are done.

No sandbox: a plugin that wants to do harm can. This is against accidents, so that no cell depends on the one before it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import numpy as np
import torch

_cudnn: Any = torch.backends.cudnn
_CUDNN = ("enabled", "deterministic", "benchmark")
_autograd: Any = torch.autograd
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _default_device(device: torch.device) -> None:
    # The default of the default is not a device but no wish for one.
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_cudnn(values: tuple[bool, ...]) -> None:
    for name, value in zip(_CUDNN, values, strict=True):
        setattr(_cudnn, name, value)


def _handlers(before: tuple[Any, ...]) -> None:
    for number, handler in zip(_SIGNALS, before, strict=True):
        # A handler of ours puts the default in place of itself when it has been called twice: that stays.
        if signal.getsignal(number) is not signal.SIG_DFL and handler is not None:
            signal.signal(number, handler)


_STATE: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
    ("the working directory", os.getcwd, os.chdir),
    ("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("torch's default device", torch.get_default_device, _default_device),
    ("whether gradients are recorded", torch.is_grad_enabled, torch.set_grad_enabled),
    ("torch's CPU threads", torch.get_num_threads, torch.set_num_threads),
    (
        "torch's deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    ("torch's anomaly detection", torch.is_anomaly_enabled, _autograd.set_detect_anomaly),
    (
        "autocast on the CPU",
        lambda: torch.is_autocast_enabled("cpu"),
        lambda value: torch.set_autocast_enabled("cpu", value),
    ),
    (
        "cuDNN's settings",
        lambda: tuple(getattr(_cudnn, name) for name in _CUDNN),
        _set_cudnn,
    ),
    ("numpy's handling of errors", np.geterr, lambda value: np.seterr(**value)),
    ("sys.stdout", lambda: sys.stdout, lambda value: setattr(sys, "stdout", value)),
    ("sys.stderr", lambda: sys.stderr, lambda value: setattr(sys, "stderr", value)),
)
"""By what people call it: how it is read, and how it is put back."""


@contextmanager
def guarded(say: Callable[[str], object]) -> Iterator[None]:
    """What the block changes of the process is put back after it, and ``say`` is told what that was.

    Random numbers of Python and numpy, and the filters of warnings, are put back without a word. What the block
    prints goes to stderr: stdout is for regbench's own data.
    """
    main = threading.current_thread() is threading.main_thread()
    handlers = tuple(signal.getsignal(number) for number in _SIGNALS)
    python, numpy = random.getstate(), np.random.get_state()
    before = [read() for _, read, _ in _STATE]
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            yield
    finally:
        changed = []
        for (name, read, put_back), value in zip(_STATE, before, strict=True):
            if _read(read) != value:
                changed.append(name)
                put_back(value)
        if main and handlers != tuple(signal.getsignal(number) for number in _SIGNALS):
            _handlers(handlers)
        random.setstate(python)
        np.random.set_state(numpy)
        if changed:
            with suppress(Exception):  # the disk may be full, and what ended the block matters more
                say(f"a plugin has changed {', '.join(changed)}; put back for the next cell")


def _read(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except OSError as error:  # the working directory has been removed
        return error
