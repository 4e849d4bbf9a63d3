"""A job: one cell as text, with all that a worker elsewhere needs to run it against the store."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from regbench import __version__
from regbench.errors import PluginError
from regbench.plugins import Registry
from regbench.suite.cells import CellSpec

SAME_VERSIONS = "install the same versions everywhere; nothing was trained"


@dataclass(frozen=True)
class Site:
    """What all jobs of a run share."""

    run: str
    """The run directory; absolute."""
    plugins: tuple[str, ...]
    """Files named with ``--plugin``; absolute."""
    metrics: tuple[str, ...]
    data_root: str
    device: str
    """``cpu`` or ``cuda``; which GPU is the engine's to say."""
    engine: str
    eager: bool = False
    deterministic: bool = False
    checkpoints: str = "5m"
    """Policy, as :class:`regbench.execution.checkpoint_policy.CheckpointPolicy` reads it."""
    limit: float | None = None
    """Seconds that one attempt may take."""
    grace: float = 15.0
    """Seconds that it then has to end by itself, before its process is ended whatever it is doing."""
    threads: int | None = None
    """Of the CPU, for one worker; ``None``: as torch finds them."""


@dataclass(frozen=True)
class Job:
    """One attempt at one cell."""

    site: Site
    spec: CellSpec
    slug: str
    """The cell's directory below ``cells/``."""
    token: str
    """Of the attempt: only whose token the cell's claim holds may commit."""
    code: dict[str, Any]
    """What the worker must find; see :func:`code_of`."""
    replace: bool = False
    remeasure: bool = False

    def to_json(self) -> str:
        return json.dumps({"version": __version__, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The inverse of :meth:`to_json`. Raises ``PluginError`` for a job of another version of regbench."""
        fields = json.loads(text)
        version = fields.pop("version", "another version")
        if version != __version__:
            raise PluginError(
                f"the worker on {platform.node()} has regbench {__version__}, the suite was planned with {version}",
                hint=SAME_VERSIONS,
            )
        site = fields["site"]
        for name in ("plugins", "metrics"):
            site[name] = tuple(site[name])
        spec = CellSpec.from_json(json.dumps(fields["spec"]))
        return cls(**{**fields, "site": Site(**site), "spec": spec})


def code_of(spec: CellSpec, metrics: Sequence[str], registry: Registry) -> dict[str, Any]:
    """Versions and hashes of all code that a cell's numbers come from, as found in this process."""
    plugin = registry.regularizer(spec.regularizer)
    found = {"distribution": plugin.distribution, "version": plugin.version, "source": plugin.source}
    return {
        "regbench": {"version": __version__, "source": harness_source()},
        f"regularizer {spec.regularizer}": found,
        f"data set {spec.dataset_name}": {"source": registry.dataset(spec.dataset_name).source},
        **{f"metric {name}": {"source": registry.metric(name).source} for name in metrics},
    }


def check_code(job: Job, registry: Registry, host: str) -> None:
    """Raise ``PluginError`` where this process would run other code than the job was planned with."""
    here = code_of(job.spec, job.site.metrics, registry)
    differing = [
        f"{name}: {part} {_short(here.get(name, {}).get(part))} here, {_short(value)} planned"
        for name, expected in job.code.items()
        for part, value in expected.items()
        if here.get(name, {}).get(part) != value
    ]
    if differing:
        raise PluginError(
            f"the worker on {host} has other code than the suite was planned with: {'; '.join(differing)}",
            hint=SAME_VERSIONS,
        )


def _short(value: Any) -> str:
    text = str(value) or "none"
    return f"{text[:12]}..." if len(text) == 64 else text


@cache
def harness_source() -> str:
    """SHA-256 of all of regbench's own code, newlines normalised."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        content = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.relative_to(root).as_posix()}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
