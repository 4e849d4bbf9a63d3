"""The Ray engine on a cluster of several nodes, all of them on this machine: killed, frozen, thawed."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from regbench.errors import EnvironmentFault
from tests.engines.ray_nodes import ROOT, Node, Nodes, cluster
from tests.engines.test_ray import answer, lost, opened
from tests.execution.resuming import METHODS
from tests.execution.test_kill import finished, prepared

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 60
PATIENCE_S = 150.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head, and ``start`` for more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with cluster() as found:
            yield found


def test_a_lost_process_and_a_lost_node_are_told_apart(nodes: Nodes, tmp_path: Path) -> None:
    second = nodes.start("second")
    for engine in opened(tmp_path, jobs=3, address=nodes.address, labels="place=second"):
        (end,) = engine.ends(engine.submit({"do": "signal", "number": int(signal.SIGKILL)}))
        assert lost(end).cells_own
        (nap,) = engine.submit({"do": "nap", "seconds": 100})
        (started,) = engine.started([nap])
        process = psutil.Process(int(started.where.split()[-1]))
        assert process in second.processes(), "labels choose the node"
        second.send(signal.SIGKILL)
        (end,) = engine.ends([nap])
        assert not lost(end).cells_own
        assert "its node died" in lost(end).reason
    for engine in opened(tmp_path, jobs=3, address=nodes.address):
        naps = engine.submit({"do": "nap", "seconds": 100})
        left = [psutil.Process(int(each.where.split()[-1])) for each in engine.started(naps)]
    _, still = psutil.wait_procs(left, timeout=30)
    assert still == [], "a run that has ended leaves nothing running on a cluster"
    for engine in opened(tmp_path, address=nodes.address):
        assert answer(engine.ends(engine.submit({"do": "say", "text": "the cluster goes on"}))[0])


def test_what_no_node_has_is_refused_and_not_waited_for(nodes: Nodes, tmp_path: Path) -> None:
    for engine in opened(tmp_path, address=nodes.address, labels="place=nowhere"):
        with pytest.raises(EnvironmentFault, match="labels place=nowhere"):
            engine.submit({"do": "say", "text": "never"})


def test_a_disturbed_suite_gives_the_undisturbed_table(nodes: Nodes, tmp_path: Path) -> None:
    """A worker killed, a node killed, a node frozen that thaws late: each in the middle of a cell."""
    undisturbed, disturbed = (
        prepared(tmp_path / "undisturbed", EPOCHS),
        prepared(tmp_path / "disturbed", EPOCHS),
    )
    with running(undisturbed) as reference:
        killed, frozen = nodes.start("killed"), nodes.start("frozen")
        ended(reference)
    arguments = ("--engine", "ray", "--address", nodes.address, "--jobs", "3")
    with running(disturbed, *arguments, "--checkpoint-every", "5 epochs") as run:
        disturb: dict[str, Callable[[Node, str], None]] = {
            "head": lambda node, method: worker(node, method).kill(),
            "killed": lambda node, method: node.send(signal.SIGKILL),
            "frozen": lambda node, method: node.send(signal.SIGSTOP),
        }
        places = {"head": nodes.nodes[0], "killed": killed, "frozen": frozen}
        hit: dict[str, str] = {}
        sleeper: psutil.Process | None = None
        while len(hit) < len(disturb):
            name, method = until(run, lambda: first_under_way(disturbed, places, but=hit))
            if name == "frozen":
                sleeper = worker(frozen, method)
            disturb[name](places[name], method)
            hit[name] = method
        ended(run)
    assert sleeper is not None
    assert len(set(hit.values())) == len(hit), hit
    late = hit["frozen"]
    attempts = {method: sorted(cell(disturbed, method).glob("attempts/*")) for method in METHODS}
    assert {method for method in METHODS if len(attempts[method]) == 2} == set(hit.values())

    before = contents(disturbed)
    assert epochs(attempts[late][0]) < EPOCHS
    sleeper.resume()  # it alone, so that Ray does not stop it: its node still stands
    until(None, lambda: not title(sleeper).endswith("seed 0"))
    assert contents(disturbed) == before, "an attempt that was given up has written into the cell"
    assert epochs(attempts[late][0]) < EPOCHS, "it found that the cell is another's, and stopped"
    processes = frozen.processes()
    frozen.send(signal.SIGCONT)
    _, left = psutil.wait_procs(processes, timeout=30)
    assert left == [], "a node that was given up ends when it thaws"
    assert contents(disturbed) == before

    for method in METHODS:
        (result,) = cell(disturbed, method).glob("result*/result.json")
        assert json.loads(result.read_text())["attempt"] == attempts[method][-1].name
    assert finished(disturbed) == finished(undisturbed)


DRIVER = """
import json, sys
from pathlib import Path
from regbench.engines.base import Lost, Resources, Setting, Started, Submission
from regbench.engines.ray import Ray, RayOptions
from regbench.errors import EnvironmentFault

def until(kind):
    while not (found := [each for each in engine.poll(1) if isinstance(each, kind)]):
        pass
    return found[0]

nap = Submission(json.dumps({"do": "nap", "seconds": 100}), "a nap", Resources())
engine = Ray(RayOptions(address=sys.argv[2]), Setting(Path(sys.argv[1]), 1, "cpu"))
engine.entry = "tests.engines.ray_jobs:act"
with engine:
    engine.submit([nap])
    until(Started)
    print("started", flush=True)
    print(until(Lost).cells_own, flush=True)
    try:
        while True:  # as the scheduler does; at first it may not be known that it is the head
            engine.submit([nap])
            until(Lost)
    except EnvironmentFault as fault:
        print(fault, flush=True)
print("closed", flush=True)
"""


def test_a_head_that_dies_ends_the_run_with_a_sentence(nodes: Nodes, tmp_path: Path) -> None:
    """The last test of this cluster. In a process of its own: Ray would end this one."""
    command = [sys.executable, "-c", DRIVER, str(tmp_path), nodes.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        nodes.nodes[0].send(signal.SIGKILL)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert said.splitlines() == ["False", "the head of the Ray cluster no longer answers", "closed"]
    finally:
        process.kill()
        process.wait()


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    """``regbench run`` in ``folder``; what it says goes to a file there."""
    command = [sys.executable, "-m", "regbench", "run", "resumed.toml", "--device", "cpu"]
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen([*command, *arguments], cwd=folder, stdout=said, stderr=said)
    try:
        yield Running(process, folder)
    finally:
        process.kill()
        process.wait()


def ended(run: Running) -> None:
    assert run.process.wait(PATIENCE_S) == 0, run.said


def until(run: Running | None, ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := ready()):
        assert run is None or run.process.poll() is None, run.said
        assert time.monotonic() < deadline, run and run.said
        time.sleep(0.02)
    return found


def cell(folder: Path, method: str) -> Path:
    (directory,) = folder.glob(f"runs/resumed/cells/digits-{method.lower()}-s0-*")
    return directory


def epochs(attempt: Path) -> int:
    file = attempt / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def title(process: psutil.Process) -> str:
    """What a Ray worker is doing; empty: it has ended."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def worker(node: Node, method: str) -> psutil.Process:
    (found,) = (
        each for each in node.processes() if method in title(each) and title(each).startswith("ray::")
    )
    return found


def first_under_way(folder: Path, nodes: dict[str, Node], but: dict[str, str]) -> tuple[str, str] | None:
    """A node and the method whose cell is in the middle there, with a checkpoint."""
    for name in nodes.keys() - but.keys():
        if method := under_way(folder, nodes[name]):
            return name, method
    return None


def under_way(folder: Path, node: Node) -> str:
    busy = " ".join(title(each) for each in node.processes() if title(each).startswith("ray::"))
    for method in METHODS:
        if f" {method} " not in busy.replace("::", " "):
            continue
        last = sorted(cell(folder, method).glob("attempts/*"))[-1:]
        if last and 10 <= epochs(last[0]) < EPOCHS - 20 and list(last[0].glob("checkpoints/*.ckpt")):
            return method
    return ""


def contents(folder: Path) -> dict[str, str]:
    """Of all results and claims."""
    files = [*folder.glob("runs/resumed/cells/*/result*/*"), *folder.glob("runs/resumed/cells/*/claim.json")]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
