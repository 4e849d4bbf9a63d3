"""Making a result again from its own record, and judging whether the second agrees with the first."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regbench.errors import CellsFailed, EnvironmentFault
from regbench.execution.events import Listener, ignore
from regbench.reproduce.compare import (
    Change,
    Quantity,
    Verdict,
    compare_environments,
    compare_metrics,
    conclude,
    first_other_epoch,
)
from regbench.reproduce.find import find_cell
from regbench.reproduce.recorded import Recorded, changed_code, check_data, read_recorded
from regbench.resolve import load_plugins
from regbench.store.weights import weights_difference

__all__ = ["Change", "Quantity", "Reproduction", "Verdict", "reproduce"]


@dataclass(frozen=True)
class Reproduction:
    """A result and its second making."""

    cell: str
    """Title of the cell."""
    id: str
    result: str
    """Directory of the result that was made again."""
    verdict: Verdict
    why: str
    """The verdict in a sentence."""
    metrics: tuple[Quantity, ...]
    weights_difference: float | None
    """Largest absolute difference of a weight; ``None`` where all are the same bits."""
    first_other_epoch: int | None
    """The first epoch whose losses are not the same."""
    seeds: int
    """Seeds of the same method and settings that the run has results of, this one among them."""
    code: tuple[Change, ...]
    """What the code was then and is now, where it is not the same."""
    environment: tuple[Change, ...] | None
    """The same of the environment; ``None`` where the result has no record of it."""
    device: str
    out: str | None
    """Where the second result is kept."""


def reproduce(
    result: Path | str,
    cell: str | None = None,
    *,
    device: str = "auto",
    runs_dir: Path | None = None,
    data_dir: Path | None = None,
    plugins: Sequence[Path | str] = (),
    accept_stale: bool = False,
    out: Path | None = None,
    listener: Listener = ignore,
) -> Reproduction:
    """Train and evaluate a cell again from its record, elsewhere, and compare.

    Args:
        result: a cell's directory or anything in it; or a run, with ``cell`` naming one of its cells.
        accept_stale: go on although the code is not what made the result.
        out: a new directory to keep the second result in; it can be read like a run.

    Raises:
        StoreError: the result is not as its checksums say, or its record does not belong to it.
        DataError: the data are missing, or not those that the result was made from.
        EnvironmentFault: the code is another.
        CellsFailed: the second training failed.
    """
    from regbench.data.location import data_root
    from regbench.reproduce.again import run_again
    from regbench.training.precision import resolve_device, resolve_precision

    registry = load_plugins(plugins)
    record, run = find_cell(result, cell, runs_dir)
    recorded = read_recorded(record, run, registry)
    root, where = data_root(data_dir), resolve_device(device)
    resolve_precision(recorded.spec.training["precision"], where)
    changes = changed_code(recorded, registry)
    check_data(recorded, registry, root)
    if any(change.stale for change in changes) and not accept_stale:
        raise _stale(recorded, changes)
    with _home(out) as home:
        again, outcome = run_again(recorded, registry, where, root, home, listener)
        if outcome.status not in ("done", "diverged"):
            raise CellsFailed(
                f"{recorded.spec.title} could not be made again: {outcome.status}: {outcome.reason}",
                hint=f"log.txt below {home} has the traceback" if out else "--out DIR keeps its log",
            )
        return _judge(recorded, again, outcome.reason, changes, str(where), out)


def _stale(recorded: Recorded, changes: Sequence[Change]) -> EnvironmentFault:
    listing = "\n".join(f"  {each.what}: {each.then} then, {each.now} now" for each in changes)
    git = recorded.attempt.get("git") or {}
    commit = f", or check out commit {git['commit'][:12]}" if git.get("commit") else ""
    return EnvironmentFault(
        f"the code is not what made {recorded.spec.title}:\n{listing}",
        hint=f"install the versions that made it{commit}; --accept-stale goes on with the code as it is",
    )


@contextlib.contextmanager
def _home(out: Path | None) -> Iterator[Path]:
    """Where the second result is made; without ``out`` it is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="regbench-reproduce-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch) / "run"


def _judge(
    recorded: Recorded,
    again: Recorded,
    diverged: str,
    changes: Sequence[Change],
    device: str,
    out: Path | None,
) -> Reproduction:
    done = again.record.status == "done"
    metrics = compare_metrics(recorded, again) if done else ()
    weights = (
        weights_difference(recorded.record.verified("weights.pt"), again.record.verified("weights.pt"))
        if done
        else float("inf")
    )
    verdict, why = (
        conclude(metrics, weights) if done else ("different", f"the second training diverged: {diverged}")
    )
    return Reproduction(
        cell=recorded.spec.title,
        id=recorded.result["id"],
        result=str(recorded.record.result_dir),
        verdict=verdict,
        why=why,
        metrics=metrics,
        weights_difference=weights,
        first_other_epoch=first_other_epoch(recorded.record.history, again.record.history),
        seeds=len(recorded.seeds),
        code=tuple(changes),
        environment=compare_environments(recorded, again) if recorded.attempt else None,
        device=device,
        out=None if out is None else str(out),
    )
