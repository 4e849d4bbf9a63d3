"""The suites of runs that are to be joined: what must be the same, and what is put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regbench.merge.cells import Source, awaits_tuning

SAME = ("metrics", "metric_info", "baseline", "claims")
"""What a report rests on; in these, suites must not differ."""
FIRST = ("name", "description", "figures")
"""What is taken from the first suite."""
TUNING = ("trials", "metric", "better", "seed", "epochs", "space")
"""The budget of tuning, which methods share."""


@dataclass(frozen=True)
class Joined:
    """``suite.lock.json`` of the merged run."""

    suite: dict[str, Any]
    methods: list[str]
    datasets: list[str]
    cells: list[dict[str, Any]]


def other_suites(sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """Differences between suites: those that forbid joining them, and those that do not."""
    faults, notes = [], []
    first, *others = sources
    for other in others:
        places = f"({first.path}, {other.path})"
        for part in SAME:
            a, b = first.run.suite.get(part), other.run.suite.get(part)
            if a != b:
                faults.append(
                    f"the suites have other {part.replace('_', ' ')}: {_said(a)} and {_said(b)} {places}"
                )
        for part in FIRST:
            a, b = first.run.suite.get(part), other.run.suite.get(part)
            if a != b:
                notes.append(
                    f"the suites have other {part}: {_said(a)} and {_said(b)}; the first is kept {places}"
                )
        notes += _only_one_names(first, other)
        faults += _tuning_faults(first, other)
    return faults, notes


def _only_one_names(a: Source, b: Source) -> list[str]:
    """Seeds, methods and data sets that one lock has and the other has not."""
    parts = {
        "seeds": (a.run.suite.get("seeds", []), b.run.suite.get("seeds", [])),
        "methods": (a.run.methods, b.run.methods),
        "data sets": (a.run.datasets, b.run.datasets),
    }
    notes = []
    for what, (mine, its) in parts.items():
        for here, only in ((a, [x for x in mine if x not in its]), (b, [x for x in its if x not in mine])):
            if only:
                notes.append(f"only {here.path} has {what} {', '.join(map(str, only))}")
    return notes


def _tuning_faults(a: Source, b: Source) -> list[str]:
    one, other = a.run.suite.get("tuning"), b.run.suite.get("tuning")
    if one is None and other is None:
        return []
    places = f"({a.path}, {b.path})"
    if one is None or other is None:
        return [f"only one of the suites is tuned {places}"]
    faults = [
        f"the suites are tuned otherwise, {part}: {_said(one.get(part))} and {_said(other.get(part))} {places}"
        for part in TUNING
        if part != "space" and one.get(part) != other.get(part)
    ]
    for method in one["space"].keys() & other["space"].keys():
        if one["space"][method] != other["space"][method]:
            faults.append(f"{method} is tuned over another space {places}")
    known = _studies(one)
    for place, study in _studies(other).items():
        if place in known and known[place]["trials"] and study["trials"] and known[place] != study:
            faults.append(f"{' '.join(place)} has been tuned in both, to other trials {places}")
    return faults


def _studies(tuning: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(study["dataset"], study["method"]): study for study in tuning["studies"]}


def joined_lock(sources: Sequence[Source]) -> Joined:
    """The suite of the merged run: the first one's, with the cells of all."""
    suite = dict(sources[0].run.suite)
    methods = _distinct(method for source in sources for method in source.run.methods)
    datasets = _distinct(dataset for source in sources for dataset in source.run.datasets)
    suite["seeds"] = sorted({seed for source in sources for seed in source.run.suite.get("seeds", [])})
    suite["families"] = {
        name: family
        for source in reversed(sources)
        for name, family in source.run.suite.get("families", {}).items()
    }
    if suite.get("tuning") is not None:
        suite["tuning"] = _joined_tuning([source.run.suite["tuning"] for source in sources])
    entries: dict[tuple[str, str, int], dict[str, Any]] = {}
    for source in sources:
        for entry in source.lock["cells"]:
            at = entry["dataset"], entry["method"], entry["seed"]
            if at not in entries or awaits_tuning(entries[at]["key"]):
                entries[at] = dict(entry)
    order = sorted(entries, key=lambda at: (datasets.index(at[0]), methods.index(at[1]), at[2]))
    return Joined(suite, methods, datasets, [entries[at] for at in order])


def _joined_tuning(tunings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    studies: dict[tuple[str, str], dict[str, Any]] = {}
    for tuning in tunings:
        for place, study in _studies(tuning).items():
            if not studies.get(place, {}).get("trials"):
                studies[place] = study
    space = {method: each for tuning in reversed(tunings) for method, each in tuning["space"].items()}
    return {**tunings[0], "space": space, "studies": list(studies.values())}


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _said(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
