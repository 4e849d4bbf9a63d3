"""Jobs as tasks of Ray: several on this machine, or on all machines of a Ray cluster.

A task tells twice: that it has begun and where, then the answer. So it is a generator, whose two values come back
as they are made. Ray repeats nothing: a job that is lost is the scheduler's to place again, with another claim.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from regbench.engines.base import (
    Engine,
    EngineOptions,
    Happening,
    Lost,
    Resources,
    Returned,
    Setting,
    Started,
    Submission,
)
from regbench.engines.local import visible_gpus
from regbench.engines.ray_cluster import (
    NodeWatch,
    RayOptions,
    check_needs,
    join,
    leave,
    library,
    lines,
    slots,
    unreachable,
)
from regbench.engines.ray_task import Order, kill, perform
from regbench.errors import EnvironmentFault
from regbench.store.files import storage_errors

ENTRY = "regbench.execution.worker:run_job"
MOST_AT_A_TIME = 1000
"""Given to a cluster where the user does not say; its resources decide how many of them run."""
KILL_S = 5.0
"""So long after it was killed one way a process is killed another."""
CANCELLED = "it was cancelled"


@dataclass
class _Placed:
    """A job that Ray has."""

    handle: str
    stream: Any
    """Of references to what the task tells."""
    cancel: Path
    """A file that asks it to end."""
    node: str = ""
    """Ray's id of the node that it runs on; empty: not begun."""
    process: int = 0
    where: str = ""
    kill_at: float | None = None
    """When its grace ends, and when a kill should have helped; on the monotonic clock."""
    kills: int = 0


class Ray(Engine):
    """Several cells at a time as tasks of Ray, here or on a cluster."""

    name: ClassVar[str] = "ray"
    Options = RayOptions
    entry: str = ENTRY
    """What a worker calls, as ``module:function``."""

    def __init__(self, options: EngineOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self._ray: Any = None
        self._task: Any = None
        self._queue: deque[tuple[str, Submission]] = deque()
        self._placed: dict[str, _Placed] = {}
        self._happened: list[Happening] = []
        self._taken = 0
        self._id = secrets.token_hex(4)
        self._folder = setting.run / "workers"
        self._nodes: NodeWatch | None = None

    @classmethod
    def elsewhere(cls, options: EngineOptions) -> bool:
        assert isinstance(options, RayOptions)
        return not options.own

    @classmethod
    def default_jobs(cls, options: EngineOptions, device: str) -> int:
        """On this machine as the local engine; on a cluster as many as its nodes take."""
        if cls.elsewhere(options):
            return MOST_AT_A_TIME
        return max(1, len(visible_gpus())) if device == "cuda" else 1

    @classmethod
    def check(cls, options: EngineOptions) -> list[str]:
        assert isinstance(options, RayOptions)
        try:
            library()
        except EnvironmentFault as fault:
            return [f"{fault}: {fault.hint}"]
        problem = unreachable(options.address)
        return [problem] if problem else []

    def open(self) -> None:
        ray = library()
        join(ray, self.options, self.setting)
        self._ray, self._nodes = ray, NodeWatch(ray)
        # Where a node has several GPUs, a worker's next job may get another one than its torch has: a new process each.
        several = any(node["Resources"].get("GPU", 0) > 1 for node in ray.nodes())
        calls = 1 if several and self.setting.device == "cuda" else 0
        self._task = ray.remote(num_returns="streaming", max_retries=0, max_calls=calls)(perform)

    def close(self) -> None:
        """End what still runs and leave the cluster; one of its own ends."""
        self._queue.clear()
        ray, self._ray = self._ray, None
        if ray is None:
            return
        assert self._nodes is not None
        self._nodes.close()
        for placed in list(self._placed.values()):
            if not self._nodes.headless:
                with suppress(ray.exceptions.RayError):
                    ray.cancel(placed.stream, force=True)
            self._forget(placed)
        leave(ray, self.options, self._nodes.headless)

    def submit(self, jobs: Sequence[Submission]) -> list[str]:
        if not self._taken:  # later a node may be away for a while
            for needs in {job.needs for job in jobs}:
                check_needs(self._ray, self._cpus(needs), needs.gpus, self.options)
        handles = []
        for job in jobs:
            self._taken += 1
            handles.append(str(self._taken))
            self._queue.append((handles[-1], job))
        self._place()
        return handles

    def _cpus(self, needs: Resources) -> int:
        return min(needs.cpus, slots(self.setting) // self.setting.jobs) if self.options.own else needs.cpus

    def _place(self) -> None:
        """Give Ray as many jobs as may run: the others are kept here, where they cost nothing."""
        assert self._nodes is not None
        if self._queue and self._nodes.headless:
            raise EnvironmentFault(
                "the head of the Ray cluster no longer answers",
                hint="nothing that was committed is lost: run again once the cluster is back",
            )
        while self._queue and len(self._placed) < self.setting.jobs:
            handle, job = self._queue.popleft()
            task = self._task.options(
                name=job.name,
                num_cpus=self._cpus(job.needs),
                num_gpus=job.needs.gpus,
                label_selector=self.options.selector or None,
            )
            cancel = self._folder / f"cancel-{self._id}-{handle}"
            order = Order(job.job, self.entry, self._folder, cancel, dict(self.setting.environment))
            self._placed[handle] = _Placed(handle, task.remote(order), cancel)

    def poll(self, seconds: float) -> list[Happening]:
        deadline = time.monotonic() + seconds
        while True:
            self._place()
            self._enforce()
            left = 0.0 if self._happened else max(0.0, min(deadline - time.monotonic(), 0.2))
            self._listen(left)
            self._watch()
            if self._happened or time.monotonic() >= deadline:
                happened, self._happened = self._happened, []
                return happened

    def _listen(self, seconds: float) -> None:
        """Take in all that the tasks have told; wait at most so long for the first."""
        while True:
            streams = {placed.stream: placed for placed in self._placed.values()}
            if not streams:
                time.sleep(seconds)
                return
            ready, _ = self._ray.wait(list(streams), timeout=seconds, fetch_local=False)
            if not ready:
                return
            seconds = 0.0
            for stream in ready:
                self._hear(streams[stream])

    def _hear(self, placed: _Placed) -> None:
        """One thing that a task told, or its end."""
        errors = self._ray.exceptions
        try:
            kind, *told = self._ray.get(next(placed.stream))
        except StopIteration:
            self._lose(placed, "it ended without an answer", cells_own=False)
        except errors.TaskCancelledError:
            self._lose(placed, CANCELLED)
        except errors.OutOfMemoryError:
            reason = "its process was killed by Ray, as its node ran out of memory"
            self._lose(placed, reason, number=signal.SIGKILL)
        except (errors.NodeDiedError, errors.LocalRayletDiedError):
            self._lose(placed, _died(placed), cells_own=False)
        except errors.WorkerCrashedError:
            self._lose(placed, f"its process died ({placed.where or 'before it began'})")
        except errors.RayTaskError as error:
            self._lose(placed, f"its worker raised {lines(error)[-1]}")
        except errors.RayError as error:
            self._lose(placed, f"Ray could not run it: {lines(error)[0]}", cells_own=False)
        else:
            if kind == "started":
                placed.node, host, placed.process = told
                placed.where = f"{host}, process {placed.process}"
                self._happened.append(Started(placed.handle, placed.where))
                return
            self._returned(placed, *told)

    def _returned(self, placed: _Placed, answer: str, retire: bool) -> None:
        self._forget(placed)
        self._happened.append(Returned(placed.handle, answer))
        if retire:
            self._ray.cancel(placed.stream, force=True)  # it waits for this: what it told has come

    def _lose(
        self, placed: _Placed, reason: str, *, number: int | None = None, cells_own: bool = True
    ) -> None:
        self._forget(placed)
        if placed.kill_at is not None:
            reason = f"it was cancelled: {reason}" if reason != CANCELLED else reason
        self._happened.append(Lost(placed.handle, reason, number, cells_own))

    def _forget(self, placed: _Placed) -> None:
        del self._placed[placed.handle]
        if placed.kill_at is not None:
            with suppress(OSError):
                placed.cancel.unlink(missing_ok=True)

    def _watch(self) -> None:
        """Give up what runs on nodes that are dead, or frozen: of these Ray itself tells only after minutes."""
        assert self._nodes is not None
        headless, dead = self._nodes.headless, self._nodes.dead
        for placed in list(self._placed.values()):
            if headless or placed.node in dead:
                self._lose(placed, _died(placed), cells_own=False)

    def cancel(self, handle: str, grace_seconds: float) -> None:
        for index, (queued, _) in enumerate(self._queue):
            if queued == handle:
                del self._queue[index]
                self._happened.append(Lost(handle, "it was cancelled before it began"))
                return
        placed = self._placed.get(handle)
        if placed is None:
            return
        kill_at = time.monotonic() + grace_seconds
        if placed.kill_at is None and grace_seconds > 0:
            with storage_errors(placed.cancel):
                self._folder.mkdir(parents=True, exist_ok=True)
                placed.cancel.touch()
        placed.kill_at = kill_at if placed.kill_at is None else min(placed.kill_at, kill_at)
        self._enforce()

    def _enforce(self) -> None:
        """Kill what was cancelled and did not end in its grace."""
        now = time.monotonic()
        for placed in list(self._placed.values()):
            if placed.kill_at is None or now < placed.kill_at:
                continue
            placed.kill_at = now + KILL_S
            placed.kills += 1
            if placed.kills == 1:
                self._ray.cancel(placed.stream, force=True)  # asks the process to end itself
            elif placed.kills == 2 and placed.node:
                self._kill(placed)
            else:
                self._lose(placed, "it could not be ended")

    def _kill(self, placed: _Placed) -> None:
        """From outside: a process that is frozen does nothing that it is asked."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(placed.node, soft=False)
        task = self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(kill)
        task.remote(placed.process)


def _died(placed: _Placed) -> str:
    return f"its node died or no longer answers ({placed.where or 'before it began'})"
