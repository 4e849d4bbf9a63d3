"""From a suite file to a :class:`Suite`, or to every fault of the file at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from regbench.errors import Fault, SuiteError
from regbench.plugins import Registry
from regbench.suite import checks, extends, toml
from regbench.suite.claims import KINDS, Claim
from regbench.suite.faults import join, salvage, show, show_path, unknown
from regbench.suite.schema import (
    DatasetEntry,
    FigureEntry,
    Model,
    ModelPart,
    RegularizerEntry,
    Suite,
    SuiteHead,
    Training,
    TrainingPart,
)
from regbench.suite.table import Table
from regbench.suite.tuning import Tuning

Entry = TypeVar("Entry", bound=Table)

HINT = "docs/suites.md describes every field; `regbench schema` helps editors to complete them"

TABLES: dict[str, type[Table]] = {"suite": SuiteHead, "model": Model, "training": Training}
LISTS = ("datasets", "regularizers", "figures", "claims")


def load_suite(path: Path | str, registry: Registry) -> Suite:
    """Read and check a suite file; the data are not looked at.

    Raises :class:`regbench.errors.SuiteError` with every fault of the file.
    """
    path = Path(path)
    document, bases = extends.read(path)
    return build_suite(document, registry, path, bases)


def build_suite(
    document: dict[str, Any], registry: Registry, path: Path = Path("suite"), bases: Sequence[Path] = ()
) -> Suite:
    """Check a suite that has been parsed already; ``path`` is where it was read from, ``bases`` what it extends."""
    document, implausible = toml.plain(document)
    parts = _Parts(document, registry)
    draft = parts.draft()
    methods, found = checks.check(draft, registry)
    faults = _merged(implausible, [*parts.faults, *found])
    if faults or draft.head is None:
        ordered = sorted(faults, key=_file_order(document))
        hints = dict.fromkeys(fault.hint or HINT for fault in ordered)
        raise SuiteError(_shown(path, bases), ordered, hint="; ".join(hints))
    baseline = draft.head.baseline or next((m.label for m in methods if m.plugin.name == "ae"), None)
    suite = Suite(
        suite=draft.head.model_copy(update={"baseline": baseline}),
        model=draft.model,
        training=draft.training,
        datasets=tuple(draft.datasets.values()),
        regularizers=tuple(draft.regularizers.values()),
        figures=tuple(draft.figures.values()),
        claims=tuple(draft.claims.values()),
        tuning=draft.tuning,
    )
    suite._path, suite._bases = path, tuple(bases)
    return suite


def _shown(path: Path, bases: Sequence[Path]) -> str:
    """A fault may lie in a table that another file has."""
    extended = ", ".join(show_path(base) for base in bases)
    return show_path(path) + (f" (with what it extends, {extended})" if bases else "")


def _merged(implausible: list[Fault], others: list[Fault]) -> list[Fault]:
    """Each fault once; of a value that no suite can hold nothing else is said."""
    places = {fault.where for fault in implausible}
    return list(dict.fromkeys([*implausible, *(fault for fault in others if fault.where not in places)]))


class _Parts:
    """The tables of a document, each validated by itself, so that a fault in one does not hide another's."""

    def __init__(self, document: Mapping[str, Any], registry: Registry) -> None:
        self.document = document
        self.registry = registry
        self.faults = [
            Fault(join("", key), show(value), self._unknown(key))
            for key, value in document.items()
            if key not in Suite.model_fields
        ]

    def draft(self) -> checks.Draft:
        """All that is valid by itself, and where the rest was."""
        head = self.table("suite", SuiteHead, required=True)
        model, training = self.table("model", ModelPart), self.table("training", TrainingPart)
        datasets = self.entries("datasets", DatasetEntry, required=True)
        regularizers = self.entries("regularizers", RegularizerEntry, required=True)
        figures, claims = self.entries("figures", FigureEntry), self.claims()
        return checks.Draft(
            head=head,
            model=model or ModelPart(),
            training=training or TrainingPart(),
            datasets=datasets,
            regularizers=regularizers,
            figures=figures,
            claims=claims,
            tuning=self.table("tuning", Tuning),
            faulty=frozenset(fault.where for fault in self.faults),
        )

    def table(self, name: str, model: type[Entry], *, required: bool = False) -> Entry | None:
        """One ``[table]``, as far as it is valid; ``None`` where it is absent."""
        if name not in self.document:
            if required:
                self.faults.append(Fault(name, "", f"required, but not given: write a [{name}] table"))
            return None
        value = self.document[name]
        if isinstance(value, list):
            self.faults.append(
                Fault(name, show(value), f"expected one table: write [{name}], not [[{name}]]")
            )
            return None
        table, faults = salvage(model, value, name, _elsewhere(besides=name))
        self.faults += faults
        return table

    def rows(self, name: str, *, required: bool = False) -> dict[int, Any]:
        """The tables of one ``[[list]]`` by their index, not validated."""
        value = self.document.get(name, [])
        if not isinstance(value, list):
            self.faults.append(Fault(name, show(value), f"expected a list of tables: write [[{name}]]"))
        elif required and not value:
            self.faults.append(Fault(name, "", f"required, but not given: write a [[{name}]] table"))
        else:
            return dict(enumerate(value))
        return {}

    def entries(self, name: str, model: type[Entry], *, required: bool = False) -> dict[int, Entry]:
        """The tables of one ``[[list]]`` by their index, as far as they are valid."""
        valid = {}
        for index, row in self.rows(name, required=required).items():
            entry, faults = salvage(model, row, f"{name}[{index}]", self._options_elsewhere(name, row))
            self.faults += faults
            if entry is not None:
                valid[index] = entry
        return valid

    def claims(self) -> dict[int, Claim]:
        """The claims by their index, as far as they are valid; the kind says which fields a claim has."""
        valid: dict[int, Claim] = {}
        for index, row in self.rows("claims").items():
            where = f"claims[{index}]"
            kind = row.get("kind") if isinstance(row, dict) else None
            if isinstance(row, dict) and (not isinstance(kind, str) or kind not in KINDS):
                problem = (
                    f"required: one of {', '.join(KINDS)}"
                    if kind is None
                    else unknown("kind", str(kind), KINDS)
                )
                self.faults.append(Fault(f"{where}.kind", show(kind), problem))
                continue
            claim, faults = salvage(KINDS[kind or "ordering"], row, where)
            self.faults += faults
            if claim is not None:
                valid[index] = claim
        return valid

    def _options_elsewhere(self, name: str, row: Any) -> dict[str, str]:
        """Options written beside ``options``, and settings written beside ``training``."""
        if name not in ("datasets", "regularizers") or not isinstance(row, dict):
            return {}
        offered = self.registry.datasets if name == "datasets" else self.registry.regularizers
        plugin = offered.get(str(row.get("name")))
        options = getattr(getattr(plugin, "cls", None), "Options", None)
        settings = {
            key: f"write {table} = {{ {key} = ... }}"
            for table in ("model", "training")
            for key in TABLES[table].model_fields
        }
        return settings | {
            key: f"write options = {{ {key} = ... }}" for key in getattr(options, "model_fields", {})
        }

    def _unknown(self, key: str) -> str:
        where = _elsewhere(besides="")
        return (
            f"unknown key here; {where[key]}" if key in where else unknown("table", key, Suite.model_fields)
        )


def _elsewhere(besides: str) -> dict[str, str]:
    """Keys of the single tables, for those who write them into another one."""
    others = {
        key: f"it belongs in [{name}]"
        for name, model in TABLES.items()
        if name != besides
        for key in model.model_fields
    }
    lists = {name: f"write [[{name}]] as a table of its own" for name in LISTS} if besides else {}
    return others | lists


def _file_order(document: Mapping[str, Any]) -> Callable[[Fault], tuple[int, int]]:
    """Sort faults by where their table stands in the file; what is missing comes first."""
    tables = {key: position for position, key in enumerate(document)}

    def position(fault: Fault) -> tuple[int, int]:
        found = re.match(r"([\w-]+)(?:\[(\d+)\])?", fault.where)
        table, entry = found.groups() if found else ("", None)
        return tables.get(table, -1), -1 if entry is None else int(entry)

    return position
