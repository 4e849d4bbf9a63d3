"""Options of the Slurm engine, and what they are for submitit and ``sbatch``."""

from __future__ import annotations

import math
import shlex
from typing import Any

from pydantic import Field, field_validator, model_validator

from regbench.engines.base import EngineOptions, Resources, Setting
from regbench.errors import EnvironmentFault

START_S = 180
"""A job's time limit leaves so much for starting Python and for ending."""


class SlurmOptions(EngineOptions):
    """Options of ``--engine slurm``."""

    partition: str | None = None
    """Partition of the jobs; the cluster's default if not given."""
    account: str | None = None
    """Account that the jobs are charged to."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have, such as `a100|h100`."""
    minutes: int | None = Field(None, ge=1)
    """Time limit of a job in minutes; by default `--time-limit` and some minutes, or the partition's."""
    mem_gb: float | None = Field(None, gt=0)
    """Memory of a job in GB; the partition's default if not given."""
    gres: str | None = None
    """Generic resources of a job, such as `gpu:a100:1` or `shard:2`; by default whole GPUs as cells need them."""
    setup: str = ""
    """Shell commands before Python starts, such as `module load cuda/12.6; export NCCL_DEBUG=WARN`."""
    python: str = ""
    """Shell command for the interpreter on the nodes; this one's path if not given."""
    sbatch: str = ""
    """Further options of sbatch as on its command line, such as `--reservation=night --exclusive`."""
    requeue: bool = True
    """Whether Slurm may put a job back into its queue when its node fails or it is pre-empted."""
    warn_seconds: int = Field(90, ge=0, le=3600)
    """So long before its time limit a job is told to stop at its next batch; Slurm may be a minute early."""
    poll_seconds: float = Field(5.0, ge=0.5, le=600)
    """Slurm is asked no more often than this, with one call for all jobs."""

    @model_validator(mode="after")
    def _time_to_work(self) -> SlurmOptions:
        if self.minutes is not None and self.minutes * 60 <= self.warn_seconds:
            raise ValueError(
                f"{self.minutes} min: every job would be told to stop as it begins (warn_seconds)"
            )
        return self

    @field_validator("sbatch")
    @classmethod
    def _readable(cls, value: str) -> str:
        _flags(value)
        return value


def parameters(
    options: SlurmOptions, setting: Setting, needs: Resources, name: str, comment: str
) -> dict[str, Any]:
    """For ``submitit.SlurmExecutor``; what it would set by itself and must not is ``None``."""
    return {
        "job_name": f"regbench {name}",
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "time": options.minutes or _minutes(needs.seconds, options.warn_seconds),
        "mem": None if options.mem_gb is None else f"{math.ceil(options.mem_gb * 1024)}M",
        "cpus_per_task": needs.cpus,
        "gres": options.gres or _gpus(needs.gpus),
        "comment": comment,
        "wckey": None,
        "array_parallelism": setting.jobs,
        "setup": _setup(options, setting),
        "stderr_to_stdout": True,
        "use_srun": False,
        "additional_parameters": {
            "signal": f"B:TERM@{options.warn_seconds}",
            "requeue" if options.requeue else "no-requeue": True,
            **_flags(options.sbatch),
        },
    }


def _setup(options: SlurmOptions, setting: Setting) -> list[str]:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in setting.environment.items()]
    return [*exports, options.setup] if options.setup else exports


def _minutes(seconds: float | None, warn_seconds: int) -> int | None:
    """A limit that comes after the worker's own; ``None``: the partition's."""
    return None if seconds is None else math.ceil((seconds + START_S + warn_seconds) / 60)


def _gpus(share: float) -> str | None:
    """Whole GPUs only: sharing is the cluster's to arrange."""
    if share == 0:
        return None
    if share != int(share):
        raise EnvironmentFault(
            f"Slurm gives out whole GPUs, and {share:g} of one was asked for",
            hint="leave --gpus-per-cell out, or, where the cluster has shards or MPS, name them: "
            "--engine-option gres=shard:1",
        )
    return f"gpu:{int(share)}"


def _flags(text: str) -> dict[str, str | bool]:
    """Options of ``sbatch`` as on its command line: ``--name=value`` and ``--name``."""
    flags: dict[str, str | bool] = {}
    for word in shlex.split(text):
        name, is_set, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ValueError(f"{word!r} is not of the form --name=value or --name")
        flags[name] = value if is_set else True
    return flags
