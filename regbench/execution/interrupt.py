"""Ctrl-C, SIGTERM and other wishes to stop while a suite runs."""

from __future__ import annotations

import queue
import signal as signals
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from regbench.store.claims import StopLevel

LEVELS: tuple[StopLevel, ...] = ("", "epoch", "batch")

LOOK_EVERY_S = 1.0


class Stop(BaseException):
    """Ends what is running because of a signal. No ``Exception``: a plugin's ``except Exception`` lets it pass.

    ``exit_code`` is the process's: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, number: int, message: str = "stopped by a signal") -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class TimeLimit(BaseException):
    """Ends a cell that has taken longer than it may. No ``Exception``, for the same reason."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it was not finished after {seconds:g} s, its time limit")


class StopSignal:
    """What a running cell is asked to do: ``level`` is cheap enough to be looked at in every batch.

    ``also`` is asked at most once a second, when ``level`` is looked at, for a wish that comes another way than by
    a signal, for example through the store; what it raises comes through ``level``.

    A training looks at ``level`` itself and ends where it can be continued. All other code (planning, loading
    data, training the classifier, between two cells) has nothing to save: it calls :meth:`check`, and a signal
    that arrives there raises :class:`Stop` at once, see :meth:`finishing`.
    """

    def __init__(self, also: Callable[[], StopLevel] | None = None) -> None:
        self._also = also
        self._level: StopLevel = ""
        self._number: int = signals.SIGINT
        self._next_look = 0.0
        self._finishing: list[tuple[str, bool]] = []

    @property
    def level(self) -> StopLevel:
        if self._also is not None and (now := time.monotonic()) >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            self.ask(self._also())
        return self._level

    @property
    def asked(self) -> StopLevel:
        """The level as far as it is known; for handlers, which must not call ``also``."""
        return self._level

    def ask(self, level: StopLevel, number: int = signals.SIGINT) -> None:
        """Raise the level; it never falls. ``number``: the signal that the exit code will tell of."""
        if LEVELS.index(level) > LEVELS.index(self._level):
            self._level, self._number = level, number

    def check(self) -> None:
        """Raise :class:`Stop` if anything was asked; for places where there is nothing to finish."""
        if self.level:
            raise self.stop()

    def stop(self) -> Stop:
        """The exception that a cell raises once it has done what it was asked to."""
        return Stop(self._number)

    @contextmanager
    def finishing(self, what: str, *, batches: bool = True) -> Iterator[None]:
        """Inside the block a first signal only raises the level, and ``what`` (``the epoch``) is finished first.

        ``batches``: the block looks at the level in between, too; where it does not, a wish to stop at the next
        batch raises :class:`Stop` there and then.
        """
        self._finishing.append((what, batches))
        try:
            yield
        finally:
            self._finishing.pop()

    def finished_first(self, level: StopLevel) -> str:
        """What is finished before a stop of this level; empty where it comes at once."""
        what, batches = self._finishing[-1] if self._finishing else ("", False)
        return what if level == "epoch" or batches else ""


@contextmanager
def stoppable(
    signal: StopSignal | None = None, announce: Callable[[str], None] | None = None
) -> Iterator[StopSignal]:
    """SIGINT and SIGTERM reach the ``StopSignal`` that the block gets.

    Inside :meth:`StopSignal.finishing` the first SIGINT asks for ``epoch`` and the first SIGTERM for ``batch``, and
    ``announce`` is told at once what happens (by default a line on stderr). A second of the same kind, or the first
    outside such a block, raises :class:`Stop`; a further one while cleaning up ends the process.

    Python runs handlers in the main thread, between two of its own instructions: code that hangs inside a library
    is not reached. Elsewhere than in the main thread nothing is handled; whoever runs us there handles signals.
    """
    signal = signal or StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield signal
        return
    seen: set[int] = set()
    with _announcer(announce or _to_stderr) as say:

        def handle(number: int, frame: FrameType | None) -> None:
            again = number in seen
            seen.add(number)
            level: StopLevel = "batch" if number == signals.SIGTERM else "epoch"
            what = signal.finished_first(level)
            if what and not again:
                signal.ask(level, number)
                say(_announcement(what, signal.asked))
                return
            signal.ask("batch", number)  # should somebody swallow the exception
            for each in handled:
                signals.signal(each, signals.SIG_DFL)
            raise Stop(number)

        handled = (signals.SIGINT, signals.SIGTERM)
        before = {number: signals.signal(number, handle) for number in handled}
        try:
            yield signal
        finally:
            for number, handler in before.items():
                signals.signal(number, handler)


def _announcement(what: str, level: StopLevel) -> str:
    if level == "batch":
        return "stopping at the next batch"
    return f"finishing {what}, then stopping; Ctrl-C again stops now and loses what came after the last checkpoint"


def _to_stderr(text: str) -> None:
    print(f"regbench: {text}", file=sys.stderr, flush=True)


@contextmanager
def _announcer(announce: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Calls ``announce`` from a thread of its own: a signal may arrive in the middle of a print, and a handler that
    prints, too, would fail or wait for itself. ``SimpleQueue.put`` is made for such callers.
    """
    texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def work() -> None:
        while (text := texts.get()) is not None:
            with suppress(OSError, ValueError):  # stderr is closed, or nobody reads it any more
                announce(text)

    thread = threading.Thread(target=work, name="announcer", daemon=True)
    thread.start()
    try:
        yield texts.put
    finally:
        texts.put(None)
        thread.join(timeout=1)
