"""Contestants take turns, each in a process of its own: what one sets for its process cannot help or harm another."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.common import Timing, timed

Work = Callable[[], object]
AT_ONCE = {"cpu": 2, "cuda": 8}
"""How many make themselves ready side by side."""


@dataclass(frozen=True)
class Entry:
    """A contestant: ``make(*args, **options)`` is called in its process and gives what is timed."""

    make: Callable[..., Work]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class Contestant:
    """A process that waits to be told to work."""

    def __init__(self, name: str, entry: Entry, device: torch.device, warmups: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, entry, device, warmups), daemon=True)
        self._process.start()

    def begin(self) -> None:
        """Work once, beside whoever else does."""
        self._pipe.send("go")

    def answer(self) -> float:
        """Seconds it took; waits. Raises ``RuntimeError`` with the contestant's own traceback where it failed."""
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.name}: its process ended") from None
        if kind == "failed":
            raise RuntimeError(f"{self.name}: {value}")
        return float(value)

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, entry: Entry, device: torch.device, warmups: int) -> None:
    try:
        work = entry.make(*entry.args, **entry.options)
        for _ in range(warmups):
            timed(work, device)
        pipe.send(("ready", 0.0))
        while pipe.recv() == "go":
            pipe.send(("done", timed(work, device)))
    except EOFError:
        return
    except Exception:
        pipe.send(("failed", traceback.format_exc()))


@contextmanager
def contestants(
    entries: Mapping[str, Entry],
    device: torch.device,
    warmups: int = 2,
    failed: dict[str, str] | None = None,
) -> Iterator[dict[str, Contestant]]:
    """All of them, ready to work. With ``failed``, those that cannot be are noted there, not raised."""
    with ExitStack() as stack:
        ready: dict[str, Contestant] = {}
        names, at_once = list(entries), AT_ONCE[device.type]
        for first in range(0, len(names), at_once):
            group = names[first : first + at_once]
            for name in group:
                ready[name] = Contestant(name, entries[name], device, warmups)
                stack.callback(ready[name].close)
            for name in group:
                try:
                    ready[name].answer()
                except RuntimeError as error:
                    if failed is None:
                        raise
                    failed[name] = str(error)
        yield ready


def contest(
    entries: Mapping[str, Entry], rounds: int, device: torch.device
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Every contestant once per round; the order turns by one place each round.

    A turn is an epoch that is not timed and one that is: while others work, the system takes back memory of a
    process that sits idle. Returns the timings, and why those failed that have none.
    """
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    failed: dict[str, str] = {}
    with contestants(entries, device, failed=failed) as ready:
        for round_ in range(rounds):
            for name in _turned([name for name in ready if name not in failed], round_):
                try:
                    for _ in range(2):
                        ready[name].begin()
                        taken = ready[name].answer()
                    seconds[name].append(taken)
                except (RuntimeError, OSError) as error:
                    failed[name] = str(error)
    return {name: Timing(tuple(values)) for name, values in seconds.items() if name not in failed}, failed


def _turned(names: Sequence[str], places: int) -> list[str]:
    places %= max(len(names), 1)
    return [*names[places:], *names[:places]]
