"""Which Ray cluster, and getting into it and out of it."""

from __future__ import annotations

import atexit
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import field_validator

from regbench.engines.base import EngineOptions, Setting
from regbench.errors import EnvironmentFault

INSTALL = "pip install 'regbench[ray]'"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray prints what its daemons report to standard output, which is for results; all that matters comes in `poll`.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
OBJECT_STORE_BYTES = 100 * 2**20
"""Jobs and answers are short; Ray would take 30% of the memory."""
CONNECT_S = 10.0
WATCH_S = 2.0
"""How often the cluster is asked which of its nodes have died."""
SILENCE_S = 45.0
"""Ray ends a process whose cluster's head is gone after 60."""

_TOKEN = secrets.token_hex(32)  # one for the process: Ray keeps the first that it sees


class RayOptions(EngineOptions):
    """Which cluster, and which of its nodes."""

    address: str = "local"
    """``local``: a cluster of its own on this machine, ended with the run; ``auto``: the one that runs on this
    machine or that RAY_ADDRESS names; else ``host:port`` of a cluster's head."""
    labels: str = ""
    """Only on nodes with these labels, as ``ray start --labels`` has set them: ``gpu=h100,zone=a``."""

    @field_validator("address")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("local", "auto") and not re.fullmatch(r"[^/\s]+:\d{1,5}", value):
            raise ValueError("expected local, auto, or host:port of the head node, without ray://")
        return value

    @field_validator("labels")
    @classmethod
    def _pairs(cls, value: str) -> str:
        if value and not all(re.fullmatch(r"[^=,\s]+=[^=,\s]+", pair) for pair in value.split(",")):
            raise ValueError("expected NAME=VALUE, more of them separated by commas")
        return value

    @property
    def selector(self) -> dict[str, str]:
        return dict(pair.split("=") for pair in self.labels.split(",") if pair)

    @property
    def own(self) -> bool:
        """Whether the cluster is started for this run, and ends with it."""
        return self.address == "local"


def library() -> Any:
    """Ray, told to be quiet before it is imported. Raises ``EnvironmentFault`` where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise EnvironmentFault("the engine ray needs Ray, which is not installed", hint=INSTALL) from None
    return ray


def join(ray: Any, options: RayOptions, setting: Setting) -> None:
    """Connect to the cluster, or start one. Raises ``EnvironmentFault``."""
    if problem := unreachable(options.address):
        raise EnvironmentFault(problem)
    if ray.is_initialized():
        raise EnvironmentFault(
            "this process is connected to a Ray cluster already", hint="call ray.shutdown() before"
        )
    arguments: dict[str, Any] = {}
    if options.own:
        # A token of its own: Ray would write one into the home directory, which may be read-only or shared.
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
        arguments = {
            "num_cpus": slots(setting),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "labels": options.selector or None,
        }
        if setting.device != "cuda":
            arguments["num_gpus"] = 0
    try:
        with _handlers_kept():
            ray.init(address=options.address, log_to_driver=False, logging_level="error", **arguments)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = "cannot be started" if options.own else "cannot be joined"
        raise EnvironmentFault(
            f"the Ray cluster {options.address!r} {what}: {lines(error)[0]}", hint=_hint(error, options)
        ) from error


def leave(ray: Any, options: RayOptions, headless: bool) -> None:
    """What runs for this process ends; so does a cluster of its own."""
    if headless and not options.own:
        # Ray would say goodbye to the head, and wait for its answer, here as well as at the end of the process.
        atexit.unregister(ray.shutdown)
        return
    with _handlers_kept():
        ray.shutdown()


def slots(setting: Setting) -> int:
    """CPUs of a cluster of one's own: there it is ``--jobs`` alone that says how many run at a time."""
    return max(setting.jobs, os.cpu_count() or 1)


def check_needs(ray: Any, cpus: int, gpus: float, options: RayOptions) -> None:
    """Raise ``EnvironmentFault`` where no node can ever run a task: Ray would wait for one, and say nothing."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for node in nodes:
        has = node["Resources"]
        fits = has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus
        if fits and all(node["Labels"].get(name) == value for name, value in options.selector.items()):
            return
    labels = f" and the labels {options.labels}" if options.labels else ""
    count = "the only node" if len(nodes) == 1 else f"none of the {len(nodes)} nodes"
    verb = "lacks" if len(nodes) == 1 else "has"
    raise EnvironmentFault(
        f"{count} of the Ray cluster {verb} what a cell needs: {cpus} CPUs, {gpus:g} GPUs{labels}",
        hint="`ray status` shows what there is; start fitting nodes before the run",
    )


def unreachable(address: str) -> str:
    """Why no cluster can be there; empty: it may be. Ray itself would go on trying for long."""
    host, _, port = address.rpartition(":")
    if not host:
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        return f"nothing answers at {address} ({error}); start the cluster there with `ray start --head`"
    return ""


class NodeWatch:
    """Which nodes have died, asked again and again; in a thread, as a head that stands still never answers."""

    def __init__(self, ray: Any) -> None:
        self.dead: frozenset[str] = frozenset()
        """Ray's ids of those nodes, as last heard."""
        self._ray = ray
        self._heard = time.monotonic()
        self._gone = False
        self._end = threading.Event()
        threading.Thread(target=self._watch, name="nodes", daemon=True).start()

    @property
    def headless(self) -> bool:
        """The cluster's head is gone, or has not answered for ``SILENCE_S``. It stays so."""
        self._gone = self._gone or time.monotonic() - self._heard > SILENCE_S
        return self._gone

    def close(self) -> None:
        self._end.set()

    def _watch(self) -> None:
        head = self._ray.get_runtime_context().gcs_address
        while not self.headless and not self._end.is_set():
            if unreachable(head):  # asked after it is gone, Ray waits for a minute and then ends this process
                self._gone = True
                return
            self.dead = frozenset(node["NodeID"] for node in self._ray.nodes() if not node["Alive"])
            self._heard = time.monotonic()
            self._end.wait(WATCH_S)


def lines(error: Exception) -> list[str]:
    """Of its message; Ray's are long, with what counts in the first or, of a task's exception, in the last."""
    found = [line.strip().rstrip(".") for line in str(error).splitlines()]
    return [line for line in found if line] or [type(error).__name__]


def _hint(error: Exception, options: RayOptions) -> str:
    if options.own:
        return "Ray's own logs are below /tmp/ray/session_latest/logs"
    if "token" in f"{error} {error.__cause__}".lower():
        return (
            "give RAY_AUTH_MODE=token and the token as on the cluster's head: in RAY_AUTH_TOKEN or its file"
        )
    return "does it run? see `ray status`; Ray and Python must have the same versions everywhere"


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray handles SIGTERM in whatever process it is used from; here that is not its business."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
