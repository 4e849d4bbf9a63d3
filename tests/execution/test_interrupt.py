"""Signals reach what runs: at once where there is nothing to finish, by a level that only rises where there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from regbench.errors import UsageError
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.interrupt import Stop, StopSignal, stoppable
from regbench.store.claims import ClaimLost

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test does, the handlers are as before afterwards."""
    before = {number: signal.getsignal(number) for number in (INT, TERM)}
    yield
    assert {number: signal.getsignal(number) for number in (INT, TERM)} == before


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 143)])
def test_where_there_is_nothing_to_finish_a_signal_raises_at_once(number: int, code: int) -> None:
    with pytest.raises(Stop) as stopped, stoppable():
        send(number)
    assert stopped.value.exit_code == code


@pytest.mark.parametrize(
    ("number", "level", "code", "said"),
    [
        (INT, "epoch", 130, "finishing the epoch, then stopping; Ctrl-C"),
        (TERM, "batch", 143, "stopping at the next"),
    ],
)
def test_where_there_is_it_raises_the_level_and_is_announced(
    number: int, level: str, code: int, said: str
) -> None:
    heard: list[str] = []
    with stoppable(announce=heard.append) as asked:
        with asked.finishing("the epoch"):
            send(number)
            assert asked.level == level
        with pytest.raises(Stop) as stopped:
            asked.check()
        assert asked.stop().exit_code == stopped.value.exit_code == code
    assert len(heard) == 1
    assert heard[0].startswith(said)


@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 143)])
def test_a_second_one_of_a_kind_raises_at_once(number: int, code: int) -> None:
    with (
        pytest.raises(Stop) as stopped,
        stoppable(announce=lambda text: None) as asked,
        asked.finishing("it"),
    ):
        send(number, number)
    assert stopped.value.exit_code == code
    assert asked.level == "batch", "should somebody swallow the exception"


def test_the_level_never_falls_and_the_exit_code_is_that_of_the_strongest_wish() -> None:
    with stoppable(announce=lambda text: None) as asked, asked.finishing("the epoch"):
        send(INT)
        assert (asked.level, asked.stop().exit_code) == ("epoch", 130)
        send(TERM)
        assert (asked.level, asked.stop().exit_code) == ("batch", 143)
    asked.ask("epoch", INT)
    asked.ask("")
    assert (asked.level, asked.stop().exit_code) == ("batch", 143)


def test_a_block_that_looks_at_no_batches_is_left_at_once_by_a_wish_for_the_next_one() -> None:
    with stoppable(announce=lambda text: None) as asked, asked.finishing("the cell", batches=False):
        send(INT)
        assert asked.level == "epoch"
        with pytest.raises(Stop):
            send(TERM)


def test_a_wish_that_comes_another_way_is_asked_for_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked_at = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def also() -> Any:
        asked_at.append(now[0])
        return "epoch" if now[0] >= 102 else ""

    asked = StopSignal(also)
    levels = []
    for now[0] in (100.0, 100.4, 100.9, 101.1, 102.2, 102.3):
        levels.append(asked.level)
    assert levels == ["", "", "", "", "epoch", "epoch"]
    assert asked_at == [100.0, 101.1, 102.2]


def test_what_the_other_way_raises_comes_through() -> None:
    def also() -> Any:
        raise ClaimLost("gone")

    with pytest.raises(ClaimLost):
        _ = StopSignal(also).level


def careless() -> None:
    try:
        send(INT)
    except Exception:
        raise AssertionError from None


def test_a_plugins_except_exception_lets_a_stop_pass() -> None:
    with pytest.raises(Stop), stoppable():
        careless()


def test_elsewhere_than_in_the_main_thread_nothing_is_handled() -> None:
    before = signal.getsignal(INT)
    seen: list[Any] = []

    def work() -> None:
        with stoppable() as asked:
            seen.extend([signal.getsignal(INT), asked.level])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, ""]


def test_a_wait_of_the_system_goes_on_after_a_wish() -> None:
    """A handler that raises nothing does not break what the program waits for."""
    with stoppable(announce=lambda text: None) as asked, asked.finishing("the epoch"):
        sender = threading.Timer(0.05, lambda: os.kill(os.getpid(), INT))
        sender.start()
        done = subprocess.run(
            [sys.executable, "-S", "-c", "import time; time.sleep(0.3); print('done')"], capture_output=True
        )
        sender.join()
    assert done.stdout.strip() == b"done"
    assert asked.level == "epoch"


def test_an_announcement_that_nobody_reads_is_no_fault() -> None:
    def broken(text: str) -> None:
        raise BrokenPipeError

    with stoppable(announce=broken) as asked, asked.finishing("the epoch"):
        send(INT)
    assert asked.level == "epoch"


LIVE = """
import os, signal, sys, time
from regbench.cli.progress import listener
from regbench.execution.events import CellStarted, SuiteStarted
from regbench.execution.interrupt import stoppable

with listener(quiet=False, as_json=False) as say, stoppable() as asked, asked.finishing("the epoch"):
    say(SuiteStarted("tiny", "runs/tiny", 1, 1, "cpu"))
    say(CellStarted("digits AE seed 0", 1, 5))
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
print("level", asked.level)
"""


def test_the_announcement_is_seen_above_live_progress() -> None:
    """In a real terminal, in whose last lines the progress is being redrawn."""
    pty = pytest.importorskip("pty")
    terminal, end = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", LIVE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        timeout=100,
    )
    os.close(end)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert done.stdout == "level epoch\n", shown
    assert "finishing the epoch, then stopping" in " ".join(shown.split())


# --- how often to save


@pytest.mark.parametrize(
    ("text", "seconds", "epochs"),
    [
        ("90s", 90, None),
        ("5m", 300, None),
        (" 2 H ", 7200, None),
        ("0.5m", 30, None),
        ("10 epochs", None, 10),
        ("1 epoch", None, 1),
        ("OFF", None, None),
    ],
)
def test_intervals_are_read_and_written(text: str, seconds: float | None, epochs: int | None) -> None:
    policy = CheckpointPolicy.parse(text)
    assert (policy.seconds, policy.epochs) == (seconds, epochs)
    assert CheckpointPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize(
    "text",
    ["", "5", "m", "0s", "0 epochs", "-5m", "1e3s", "5 minutes", "nan", "9" * 5000 + "s", "5m 3s", "\u0665m"],
)
def test_anything_else_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(
        UsageError, match="expected a time like 90s, 5m or 2h, a number of epochs like"
    ) as raised:
        CheckpointPolicy.parse(text)
    assert len(str(raised.value)) < 250


def test_when_it_is_time() -> None:
    assert str(CheckpointPolicy()) == "300s"
    timed, counted, off = (CheckpointPolicy.parse(text) for text in ("5m", "3 epochs", "off"))
    assert [timed.due(seconds=s, epochs=99) for s in (0, 299.9, 300, 1e9)] == [False, False, True, True]
    assert [counted.due(seconds=1e9, epochs=n) for n in (0, 2, 3, 9)] == [False, False, True, True]
    assert not off.due(seconds=1e12, epochs=10**9)
