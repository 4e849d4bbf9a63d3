"""A Ray cluster of several nodes on this machine, of real processes as ``ray start`` makes them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
START_S = 90.0
NOTICED_SOON = {
    # Of a frozen node; as docs/engines/ray.md tells to, only shorter.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",  # on a busy machine a live node takes its time, too
    "RAY_health_check_failure_threshold": "5",
}


@dataclass
class Node:
    """One node: the process that started it, and all that came of it."""

    starter: subprocess.Popen[bytes]
    name: str
    log: Path

    def processes(self) -> list[psutil.Process]:
        """All that there are, workers too."""
        with suppress(psutil.NoSuchProcess):
            starter = psutil.Process(self.starter.pid)
            return [starter, *starter.children(recursive=True)]
        return []

    def send(self, number: signal.Signals) -> None:
        """To the node as a whole, as if its machine were switched off, or stood still."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@dataclass
class Nodes:
    """A cluster: started with :func:`cluster`, which ends it."""

    folder: Path
    port: int
    nodes: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, name: str, *, cpus: int = 1, head: bool = False) -> Node:
        where = (
            ["--head", f"--port={self.port}", "--include-dashboard=False", f"--temp-dir={self.folder}"]
            if head
            else [f"--address={self.address}"]
        )
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where),
            *(f"--num-cpus={cpus}", "--num-gpus=0", f"--labels=place={name}", "--node-ip-address=127.0.0.1"),
            *("--object-store-memory=80000000", "--include-log-monitor=False", "--disable-usage-stats"),
            *("--min-worker-port=0", "--max-worker-port=0"),
        ]
        log = self.folder.with_name(f"{self.folder.name}-{name}.log")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env={**os.environ, **NOTICED_SOON},
            )
        node = Node(process, name, log)
        self.nodes.append(node)
        self._wait(node)
        return node

    def _wait(self, node: Node) -> None:
        deadline = time.monotonic() + START_S
        while b"--block" not in node.log.read_bytes():
            if time.monotonic() > deadline or node.starter.poll() is not None:
                raise RuntimeError(f"no node {node.name!r}: {node.log.read_text()}")
            time.sleep(0.1)

    def end(self) -> None:
        for node in reversed(self.nodes):
            processes = node.processes()
            node.send(signal.SIGKILL)
            node.starter.wait()
            psutil.wait_procs(processes, timeout=10)
            node.log.unlink()


@contextmanager
def cluster() -> Iterator[Nodes]:
    """A head named ``head`` with one CPU; all that was started ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))  # sockets allow only short paths
    nodes = Nodes(folder / "ray", free_port())
    try:
        nodes.start("head", head=True)
        yield nodes
    finally:
        nodes.end()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
