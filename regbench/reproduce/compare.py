"""Two makings of one cell, side by side: metrics, history, environments, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from regbench.statistics import Rerun, rerun_agreement

if TYPE_CHECKING:
    from regbench.reproduce.recorded import Recorded

Verdict = Literal["identical", "statistically equal", "different"]
MODES = {"mean": "", "sampled": ", sampled codes"}
"""How a metric is called, by the codes that it was measured at."""
NO_ENVIRONMENT = ("started", "command", "cell", "spec", "token")
"""Parts of ``attempt.json`` that say which attempt it is, not where it was made."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was ``then`` and is something else ``now``."""

    what: str
    then: str
    now: str
    stale: bool = False
    """Whether numbers may be others for it though nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One metric of both."""

    name: str
    rerun: Rerun


def compare_metrics(recorded: Recorded, again: Recorded) -> tuple[Quantity, ...]:
    """All metrics of the result, at the mean code and at sampled ones, with the spread over its seeds."""
    found = []
    for mode, ending in MODES.items():
        now = again.result["metrics"][mode] or {}
        for name, original in (recorded.result["metrics"][mode] or {}).items():
            values = [_value(other.result["metrics"][mode], name) for other in recorded.seeds]
            rerun = rerun_agreement(float(original), float(now[name]), [v for v in values if v is not None])
            found.append(Quantity(f"{name}{ending}", rerun))
    return tuple(found)


def _value(metrics: Mapping[str, Any] | None, name: str) -> float | None:
    return None if metrics is None or name not in metrics else float(metrics[name])


def first_other_epoch(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> int | None:
    """The first epoch whose losses or logged quantities differ in any bit; ``None`` where none does."""
    for number, (a, b) in enumerate(zip(then, now, strict=False), 1):
        if any(a.get(part) != b.get(part) for part in ("losses", "log", "log_max")):
            return number
    return None if len(then) == len(now) else min(len(then), len(now)) + 1


def conclude(metrics: Sequence[Quantity], weights: float | None) -> tuple[Verdict, str]:
    """The verdict, and the sentence that says what it rests on."""
    if weights is None and all(each.rerun.agreement == "identical" for each in metrics):
        return "identical", "every metric and every weight, bit for bit"
    beyond = [each for each in metrics if not each.rerun.agrees]
    seeds = max((each.rerun.n for each in metrics), default=0)
    if not beyond:
        if any(each.rerun.agreement == "within" for each in metrics):
            return (
                "statistically equal",
                f"no metric is further off than another run may be, judged by {seeds} seeds",
            )
        return "statistically equal", "the weights differ, every metric agrees to five significant digits"
    names = ", ".join(f"{each.name} by {_size(each.rerun)}" for each in beyond)
    if any(each.rerun.half_width is None for each in beyond):
        few = "1 seed is" if seeds == 1 else f"{seeds} seeds are"
        return "different", f"{names}; {few} too few to know what another run may give"
    return "different", f"{names}: further off than another run may be, judged by {seeds} seeds"


def _size(rerun: Rerun) -> str:
    if math.isnan(rerun.difference) or rerun.original == 0:
        return f"{rerun.original:.6g} to {rerun.again:.6g}"
    return f"{rerun.difference / abs(rerun.original):+.2%}"


def compare_environments(recorded: Recorded, again: Recorded) -> tuple[Change, ...]:
    """What differs between the two attempts' surroundings."""
    then, now = (dict(_flat(_surroundings(each))) for each in (recorded, again))
    names = dict.fromkeys([*then, *now])
    return tuple(
        Change(name, _said(then.get(name)), _said(now.get(name)))
        for name in names
        if then.get(name) != now.get(name)
    )


def _surroundings(each: Recorded) -> dict[str, Any]:
    attempt = {name: value for name, value in each.attempt.items() if name not in NO_ENVIRONMENT}
    known = {"engine", "device", "device_name"}  # the attempt says the same
    made = {name: value for name, value in each.result.get("environment", {}).items() if name not in known}
    return {**attempt, **made}


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            # libraries.torch is torch's version, and torch.device the device: both read best without the first word.
            inner = "" if name in ("libraries", "torch") else f"{name} "
            yield from _flat(value, prefix + inner)
        else:
            yield f"{prefix}{name}".replace("_", " "), value


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not recorded" if value is None else str(value)
