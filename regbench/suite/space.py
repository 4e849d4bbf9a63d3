"""What tuning may try for a method: settings of ``[training]`` that all share, and options of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal, get_args

from regbench.api import Search
from regbench.errors import Fault
from regbench.plugins import Plugin
from regbench.suite.faults import join, show, sound, unknown, validate
from regbench.suite.methods import check_options
from regbench.suite.schema import RegularizerEntry, TrainingPart
from regbench.suite.tuning import SharedSearch, Tuning

WHOLE_SETTINGS = ("batch_size",)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that is searched."""

    place: Literal["training", "options"]
    """Whether it is a setting of ``[training]`` or an option of the method."""
    name: str
    search: Search
    whole: bool
    """Whether only whole numbers of a range are tried."""

    @property
    def key(self) -> str:
        """``training.lr``, ``options.weight``."""
        return f"{self.place}.{self.name}"

    def find(self, value: Any) -> Any:
        """The value as the space has it; ``None`` where it lies outside."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.search.choices is not None:
            same = (
                c
                for c in self.search.choices
                if c == value and isinstance(c, bool) is isinstance(value, bool)
            )
            return next(same, None)
        low, high = self.search.low, self.search.high
        return value if number and low is not None and high is not None and low <= value <= high else None


Space = tuple[Parameter, ...]


def space_of(tuning: Tuning, entry: RegularizerEntry, plugin: Plugin) -> Space:
    """What is searched for the methods of one entry; empty where there is nothing.

    What the entry fixes itself (``options``, ``sweep``, ``training``) stays as it is.
    """
    shared = [
        Parameter("training", name, search, name in WHOLE_SETTINGS)
        for name, search in tuning.search.given()
        if name not in entry.training.model_fields_set
    ]
    own = {**(declared(plugin) if tuning.options else {}), **entry.search}
    fixed = {*entry.options, *entry.sweep}
    return (
        *shared,
        *(
            Parameter("options", name, search, _whole(plugin, name))
            for name, search in own.items()
            if name not in fixed
        ),
    )


def declared(plugin: Plugin) -> Mapping[str, Search]:
    """The search space that a method declares for its options."""
    return dict(getattr(plugin.cls, "search", {}))


def check_tuning(
    tuning: Tuning | None,
    entries: Mapping[int, tuple[RegularizerEntry, Plugin]],
    metrics: Sequence[str] | None,
) -> list[Fault]:
    """Faults of ``[tuning]`` and of each entry's ``search``.

    Args:
        entries: the sound ``[[regularizers]]`` by their index.
        metrics: the suite's, where they are known.
    """
    if tuning is None:
        problem = "nothing is tuned without a [tuning] table"
        return [
            Fault(f"regularizers[{index}].search", show(list(entry.search)), problem)
            for index, (entry, _) in entries.items()
            if entry.search
        ]
    faults: list[Fault] = []
    if metrics is not None and tuning.metric not in metrics:
        problem = unknown("metric of this suite", tuning.metric, metrics)
        faults.append(Fault("tuning.metric", show(tuning.metric), problem))
    for name, search in tuning.search.given():
        faults += _check_setting(name, search)
    for index, (entry, plugin) in entries.items():
        faults += _check_entry(tuning, entry, plugin, f"regularizers[{index}]")
    return faults


def check_not_empty(tuning: Tuning, entries: Mapping[int, tuple[RegularizerEntry, Plugin]]) -> list[Fault]:
    """One fault where no method has anything to search."""
    if any(space_of(tuning, entry, plugin) for entry, plugin in entries.values()):
        return []
    settings = " or ".join(SharedSearch.model_fields)
    expected = (
        f"nothing to search: give search = {{ lr = {{ low = 1e-4, high = 1e-2 }} }} (of {settings}), "
        "a `search` in an entry of [[regularizers]], or options = true"
    )
    return [Fault("tuning", "", expected)]


def _check_setting(name: str, search: Search) -> Iterator[Fault]:
    where = join("tuning.search", name)
    for place, value in _values(search, name in WHOLE_SETTINGS):
        path = join(where, name)
        for fault in validate(TrainingPart, {name: value}, where)[1]:
            if not sound([fault.where], path):
                yield Fault(f"{where}{place}", show(value), fault.expected)


def _check_entry(tuning: Tuning, entry: RegularizerEntry, plugin: Plugin, where: str) -> Iterator[Fault]:
    known = list(plugin.cls.Options.model_fields)
    searched = {**(declared(plugin) if tuning.options else {}), **entry.search}
    for name, search in searched.items():
        own = name in entry.search
        place = join(f"{where}.search", name) if own else f"{where}.name"
        if name not in known:
            problem = unknown(f"option of {plugin.name}", name, known)
            if name in SharedSearch.model_fields:
                problem = f"no option of {plugin.name}; settings of [training] are searched in [tuning]"
            problem = problem if own else f"its declared search has {name}: {problem}"
            yield Fault(place, "" if own else show(plugin.name), problem)
        elif own and (name in entry.options or name in entry.sweep):
            yield Fault(place, "", "also set in options or sweep; leave it in one of the two")
        elif name not in entry.options and name not in entry.sweep:
            yield from _check_option(entry, plugin, name, search, place, own)
            yield from _check_label(entry, name, f"{where}.label")


def _check_option(
    entry: RegularizerEntry, plugin: Plugin, name: str, search: Search, place: str, own: bool
) -> Iterator[Fault]:
    """Each end of a range, or each choice, by itself; the method's own ``Options`` judge."""
    base = {**entry.options, **{key: values[0] for key, values in entry.sweep.items()}}
    for end, value in _values(search, _whole(plugin, name)):
        for fault in check_options(plugin, {**base, name: value}, "options")[1]:
            if sound([fault.where], join("options", name)):
                continue  # of another option, and said there
            if own:
                yield Fault(f"{place}{end}", show(value), fault.expected)
            else:
                problem = f"its declared search of {name} has {end[1:]} = {show(value)}: {fault.expected}"
                yield Fault(place, show(plugin.name), problem)


def _check_label(entry: RegularizerEntry, name: str, where: str) -> Iterator[Fault]:
    fields = [field for _, field, _, _ in _fields(entry.label or "")]
    if name in fields:
        yield Fault(where, show(entry.label), f"{{{name}}} is searched, and has no one value")


def _fields(label: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(label))
    except ValueError:  # braces that do not match; said elsewhere
        return []


def _values(search: Search, whole: bool) -> list[tuple[str, Any]]:
    """The choices, or both ends of the range, each with its place."""
    if search.choices is not None:
        return [(f".choices[{index}]", choice) for index, choice in enumerate(search.choices)]
    ends = ((".low", search.low), (".high", search.high))
    return [(place, whole_number(value) if whole else value) for place, value in ends if value is not None]


def whole_number(value: float) -> int | float:
    """An integer where the value is one."""
    return int(value) if float(value).is_integer() else value


def _whole(plugin: Plugin, name: str) -> bool:
    """Whether an option takes integers and no other numbers."""
    annotation = (
        plugin.cls.Options.model_fields[name].annotation if name in plugin.cls.Options.model_fields else None
    )
    kinds = {annotation, *get_args(annotation)}
    return int in kinds and float not in kinds
