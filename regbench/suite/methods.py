"""From ``[[regularizers]]`` entries to methods: options checked, sweeps multiplied out, labels made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import Formatter
from typing import Any

from pydantic import BaseModel

from regbench.errors import Fault
from regbench.plugins import Plugin, Registry
from regbench.suite.faults import guess, join, show, sound, unknown, validate
from regbench.suite.schema import RegularizerEntry, check_label

MOST_FAULTY_COMBINATIONS = 5
"""How many combinations of swept values one entry reports; the others are as a rule wrong in the same way."""


@dataclass(frozen=True, slots=True)
class Method:
    """One regularizer with one setting of its options."""

    label: str
    entry: int
    """Which of the suite's ``[[regularizers]]``, from 0."""
    plugin: Plugin
    options: Mapping[str, Any]
    """Every option, the defaults filled in, as JSON holds them."""


def check_options(
    plugin: Plugin, given: Mapping[str, Any], where: str
) -> tuple[BaseModel | None, list[Fault]]:
    """Validate ``given`` by the plugin's own ``Options``; a plugin that fails at it becomes a fault, too."""
    try:
        options, faults = validate(plugin.cls.Options, dict(given), where)
        if options is not None:
            json.dumps(options.model_dump(mode="json"), allow_nan=False)  # the cell's id is made of this
    except Exception as error:  # a plugin's code runs in there
        problem = f"the Options of {plugin.name} ({plugin.origin}) failed: {type(error).__name__}: {error}"
        return None, [Fault(where, show(given), problem)]
    return options, faults


def methods_of(entry: RegularizerEntry, index: int, plugin: Plugin) -> tuple[list[Method], list[Fault]]:
    """The methods of one entry, in the order of its sweep (the last swept option varies fastest)."""
    where = f"regularizers[{index}]"
    faults = [*_check_template(entry, plugin, where), *_check_values(entry, plugin, where)]
    if faults:
        return [], faults
    methods: list[Method] = []
    for swept in combinations(entry.sweep):
        options, wrong = check_options(plugin, {**entry.options, **swept}, f"{where}.options")
        if options is None:
            # Each value was fine by itself, so what is wrong is the combination.
            faults += (
                [Fault(f"{where}.sweep", show(swept), fault.expected) for fault in wrong] if swept else wrong
            )
            if len(faults) >= MOST_FAULTY_COMBINATIONS:
                break
            continue
        resolved = options.model_dump(mode="json")
        label = _label(entry, resolved)
        try:
            check_label(label)
        except ValueError as error:
            faults.append(Fault(f"{where}.label", show(label), str(error)))
            break
        methods.append(Method(label, index, plugin, resolved))
    return methods, faults or _check_distinct(entry, methods, where)


def families_of(entries: Sequence[RegularizerEntry], registry: Registry) -> dict[str, str]:
    """The family of each method that has one, by its label; for entries that are known to be sound."""
    return {
        method.label: entry.family
        for index, entry in enumerate(entries)
        if entry.family is not None
        for method in methods_of(entry, index, registry.regularizer(entry.name))[0]
    }


def size(entry: RegularizerEntry) -> int:
    """Number of methods that the entry's sweep makes."""
    return math.prod(len(values) for values in entry.sweep.values())


def combinations(sweep: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """The Cartesian product; one empty combination where nothing is swept."""
    for values in product(*sweep.values()):
        yield dict(zip(sweep, values, strict=True))


def _check_values(entry: RegularizerEntry, plugin: Plugin, where: str) -> list[Fault]:
    """The options, and each swept value by itself: the other swept options are at their first value."""
    sweep, faults = _known_sweep(entry, plugin, f"{where}.sweep")
    options = f"{where}.options"
    base = {**entry.options, **{key: values[0] for key, values in sweep.items()}}
    for fault in check_options(plugin, base, options)[1]:
        of_swept_value = any(not sound([fault.where], join(options, key)) for key in sweep)
        of_combination = bool(sweep) and fault.where == options
        if not of_swept_value and not of_combination:
            faults.append(fault)
    for key, values in sweep.items():
        path = join(options, key)
        seen: dict[str, int] = {}
        for i, value in enumerate(values):
            place = join(join(f"{where}.sweep", key), i)
            resolved, wrong = check_options(plugin, {**base, key: value}, options)
            for fault in wrong:
                if not sound([fault.where], path):
                    faults.append(Fault(place + fault.where.removeprefix(path), fault.value, fault.expected))
            if resolved is not None:
                text = json.dumps(resolved.model_dump(mode="json")[key], sort_keys=True)
                if seen.setdefault(text, i) != i:
                    faults.append(Fault(place, show(value), f"the same value as sweep.{key}[{seen[text]}]"))
    return faults


def _known_sweep(
    entry: RegularizerEntry, plugin: Plugin, where: str
) -> tuple[dict[str, tuple[Any, ...]], list[Fault]]:
    """The swept options that exist and are set nowhere else, and a fault for each of the others."""
    known = list(plugin.cls.Options.model_fields)
    sweep: dict[str, tuple[Any, ...]] = {}
    faults = []
    for key, values in entry.sweep.items():
        if key not in known:
            problem = unknown(f"option of {plugin.name}", key, known)
            faults.append(Fault(join(where, key), show(list(values)), problem))
        elif key in entry.options:
            problem = "also set in options; leave it in one of the two"
            faults.append(Fault(join(where, key), show(list(values)), problem))
        else:
            sweep[key] = values
    return sweep, faults


def _check_template(entry: RegularizerEntry, plugin: Plugin, where: str) -> list[Fault]:
    """A label may hold ``{option}``, and nothing else in braces."""
    if entry.label is None:
        return []
    known = list(plugin.cls.Options.model_fields)
    try:
        parts = list(Formatter().parse(entry.label))
    except ValueError:
        return [Fault(f"{where}.label", show(entry.label), "expected braces in pairs; {{ stands for a brace")]
    faults = []
    for _, name, specification, conversion in parts:
        if name is not None and (specification or conversion or name not in known):
            field = "".join(
                [name, f"!{conversion}" if conversion else "", f":{specification}" if specification else ""]
            )
            problem = f"{{{field[:40]}}} is no option of {plugin.name}{guess(name, known)}"
            faults.append(Fault(f"{where}.label", show(entry.label), problem))
    return faults


def _label(entry: RegularizerEntry, options: Mapping[str, Any]) -> str:
    if entry.label is None:
        return " ".join([entry.name, *(f"{name}={_plain(options[name])}" for name in entry.sweep)])
    parts = Formatter().parse(entry.label)
    return "".join(text + (_plain(options[name]) if name is not None else "") for text, name, _, _ in parts)


def _plain(value: Any) -> str:
    """An option's value as a label shows it: 10, 0.5, gaussian."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, str):
        return value
    return "none" if value is None else show(value)


def _check_distinct(entry: RegularizerEntry, methods: list[Method], where: str) -> list[Fault]:
    if len({method.label for method in methods}) == len(methods):
        return []
    missing = [f"{{{key}}}" for key in entry.sweep if f"{{{key}}}" not in (entry.label or "")]
    mend = f"add {' and '.join(missing)}" if entry.label and missing else "their values look alike in a label"
    problem = f"methods of the sweep would share a label; {mend}"
    return [Fault(f"{where}.label", show(methods[0].label if entry.label is None else entry.label), problem)]
