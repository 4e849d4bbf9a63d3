"""Real processes, killed and stopped at any moment: a run that is continued gives the numbers of an undisturbed one.

``REGBENCH_KILLS=20 pytest -s tests/execution/test_kill.py -k kills`` kills so often, and prints what it compares.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from regbench.report.tables import build_tables
from regbench.report.terminal import print_tables
from regbench.store.records import Run
from tests.execution.resuming import METHODS, SUITE, numbers

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of POSIX")

KILLS = int(os.environ.get("REGBENCH_KILLS", "3"))
EPOCHS = 8 if KILLS < 10 else 30
SPAWN = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else multiprocessing.get_context()
SPAWN.set_forkserver_preload(["tests.execution.preloaded"])


def command_line(folder: Path, arguments: list[str], out: Path) -> None:
    """What ``regbench`` does, in a process of its own; both of its outputs go to files."""
    os.chdir(folder)
    os.setpgid(0, 0)
    for stream, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(out.with_suffix(f".{ending}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = ["regbench", *arguments]
    from regbench.cli.app import main

    code = main()
    sys.stdout.flush()
    os._exit(code)


@dataclass
class Running:
    process: Any
    out: Path

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """The exit code; negative: the signal that killed it."""
        self.process.join(120)
        code = self.process.exitcode
        assert code is not None, "it does not end"
        return int(code)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All whole lines of the events so far."""
        with suppress(OSError):
            return [
                json.loads(line)
                for line in self.out.with_suffix(".out").read_text().splitlines(keepends=True)
                if line.endswith("\n")
            ]
        return []

    @property
    def stderr(self) -> str:
        return self.out.with_suffix(".err").read_text()

    def wait_for(self, wanted: Callable[[list[dict[str, Any]]], Any]) -> None:
        deadline = time.monotonic() + 120
        while not wanted(self.events):
            assert self.process.is_alive(), self.stderr
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.002)


@contextmanager
def running(folder: Path, *more: str, every: str = "1 epochs") -> Iterator[Running]:
    """``regbench run`` of the suite in ``folder``."""
    arguments = ["run", "resumed.toml", "--device", "cpu", "--json", "--checkpoint-every", every, *more]
    for ending in (".out", ".err"):
        (folder / "process").with_suffix(ending).unlink(missing_ok=True)  # those of the process before
    process = SPAWN.Process(target=command_line, args=(folder, arguments, folder / "process"))
    process.start()
    try:
        yield Running(process, folder / "process")
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def epochs_of(method: str, count: int) -> Callable[[list[dict[str, Any]]], Any]:
    def reached(events: list[dict[str, Any]]) -> Any:
        return sum(e["event"] == "EpochFinished" and method in e["cell"] for e in events) >= count

    return reached


def prepared(folder: Path, epochs: int = EPOCHS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resumed.toml").write_text(SUITE.format(epochs=epochs, precision="fp32"))
    return folder


def finished(folder: Path) -> dict[str, dict[str, str]]:
    """Hashes of every method's numbers, and of the table."""
    run = Run.open(folder / "runs" / "resumed")
    assert [cell.status for cell in run.cells] == ["done"] * len(METHODS)
    text = io.StringIO()
    tables = build_tables(run)
    groups = [group for group in tables[0].groups if group != "cost"]
    print_tables(tables, Console(file=text, width=250), groups=groups)
    table = text.getvalue()
    assert all(method in table for method in METHODS)
    return {
        **{cell.method: numbers(cell) for cell in run.cells},
        "table": {"all": hashlib.sha256(table.encode()).hexdigest()},
    }


@dataclass
class Whole:
    """An undisturbed run."""

    folder: Path
    numbers: dict[str, dict[str, str]]
    seconds: float
    """From the first cell's first epoch to the end."""

    def judged(self, folder: Path) -> Path:
        """A run directory that has the classifier already."""
        shutil.copytree(self.folder / "runs" / "resumed" / "derived", folder / "runs" / "resumed" / "derived")
        return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = prepared(tmp_path_factory.mktemp("whole"))
    with running(folder, every="off") as run:
        run.wait_for(epochs_of("AE", 1))
        started = time.monotonic()
        assert run.end() == 0, run.stderr
    return Whole(folder, finished(folder), time.monotonic() - started)


def show(title: str, found: dict[str, dict[str, str]]) -> None:
    print(f"{title}:")
    for name, hashes in found.items():
        print(f"  {name:<12}", "  ".join(f"{what} {value[:16]}" for what, value in hashes.items()))


def kill(run: Running, chance: random.Random, seconds: float) -> None:
    """At any moment: while it starts, in the time that a run takes, or in an epoch; not if it ends before."""
    kind = chance.choice(["start", "run", "run", "epoch", "epoch", "epoch"])
    count, moment = chance.randint(1, 2 * EPOCHS), chance.uniform(0, seconds)
    while kind != "start" and run.process.is_alive():
        events = run.events
        if len(events) and (kind == "run" or sum(e["event"] == "EpochFinished" for e in events) >= count):
            break
        time.sleep(0.002)
    run.process.join(moment if kind == "run" else moment / 20)
    if run.process.is_alive():
        run.send(signal.SIGKILL)


def test_kills_at_random_moments(tmp_path: Path, whole: Whole) -> None:
    chance = random.Random(int(os.environ.get("REGBENCH_SEED", "0")))
    show("uninterrupted", whole.numbers)
    kills, rounds, continued = 0, 0, 0
    while kills < KILLS:
        rounds += 1
        folder = prepared(tmp_path / f"round-{rounds}")
        if KILLS < 10 or rounds % 2:  # kills in the classifier's training, too, but not only
            whole.judged(folder)
        while True:
            with running(folder) as run:
                if kills < KILLS:
                    kill(run, chance, whole.seconds)
                code = run.end()
                events = run.events
            resumed = [event for event in events if event["event"] == "CellResumed"]
            continued += len(resumed)
            assert not any(event["notes"] for event in resumed), "a kill leaves no bad checkpoint"
            if code == 0:
                break
            assert code == -signal.SIGKILL, run.stderr
            kills += 1
            last = " ".join(f"{value}" for value in list(events[-1].values())[:3]) if events else "nothing"
            print(f"kill {kills:>2}: its last event: {last}; cells it went on with: {len(resumed)}")
        found = finished(folder)
        show(f"round {rounds}", found)
        assert found == whole.numbers
    print(f"{kills} kills in {rounds} rounds; cells continued from a checkpoint: {continued}")
    assert not list(tmp_path.rglob("*.ckpt")), "finished cells keep none"


@pytest.fixture
def long(tmp_path: Path, whole: Whole) -> Path:
    """A run that does not end before a signal can reach it."""
    return whole.judged(prepared(tmp_path, epochs=4000))


def checkpoints(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.glob("runs/resumed/cells/*/attempts/*/checkpoints/*"))]


def test_ctrl_c_once_finishes_the_epoch_says_so_and_keeps_it(long: Path) -> None:
    with running(long, every="off") as run:
        run.wait_for(epochs_of("AE", 3))
        run.send(signal.SIGINT)
        assert run.end() == 130
        done = sum(event["event"] == "EpochFinished" for event in run.events)
    assert "finishing the epoch, then stopping; Ctrl-C again stops now" in run.stderr
    assert "run the same command again" in run.stderr
    assert "Traceback" not in run.stderr
    assert checkpoints(long) == [f"{done:06d}-000000.ckpt"]
    with running(long, every="off") as run:
        run.wait_for(lambda events: any(event["event"] == "CellResumed" for event in events))
    (resumed,) = (event for event in run.events if event["event"] == "CellResumed")
    assert (resumed["epoch"], resumed["batch"], resumed["notes"]) == (done, 0, [])


def test_ctrl_c_twice_stops_at_once(long: Path) -> None:
    with running(long, "--only", "AE", every="3 epochs") as run:
        run.wait_for(epochs_of("AE", 4))
        run.send(signal.SIGSTOP)  # so that both arrive in the same epoch
        run.send(signal.SIGINT)
        run.send(signal.SIGCONT)
        run.send(signal.SIGINT)
        assert run.end() == 130
    assert "Traceback" not in run.stderr
    assert 1 <= len(checkpoints(long)) <= 2


def test_sigterm_stops_at_the_next_batch(long: Path) -> None:
    with running(long, every="off") as run:
        run.wait_for(epochs_of("AE", 2))
        run.send(signal.SIGTERM)
        assert run.end() == 143
    assert "stopping at the next batch" in run.stderr
    assert len(checkpoints(long)) == 1


def test_stopped_by_signals_and_gone_on_with(tmp_path: Path, whole: Whole) -> None:
    folder = whole.judged(prepared(tmp_path))
    for number, method in [(signal.SIGINT, "AE"), (signal.SIGTERM, "VAE-KL"), (signal.SIGTERM, "ProtoVAE")]:
        with running(folder, every="off") as run:
            run.wait_for(epochs_of(method, 1))
            run.send(number)
            code = run.end()
        assert code in (0, 128 + number), run.stderr  # 0: the suite's last cell was being evaluated
    with running(folder, every="off") as run:
        assert run.end() == 0, run.stderr
    assert finished(folder) == whole.numbers
