"""Whatever is in a file: it gives a plan or a clean error, and never another exception.

``REGBENCH_EXAMPLES=20000`` tries that many examples of each kind; by default few are tried.
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from contextlib import suppress
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regbench.api import Search
from regbench.errors import DataError, PluginError, SuiteError
from regbench.suite import toml
from regbench.suite.cells import expand
from regbench.suite.claims import KINDS
from regbench.suite.faults import show
from regbench.suite.load import build_suite, load_suite
from regbench.suite.methods import size
from regbench.suite.schema import (
    DatasetEntry,
    FigureEntry,
    Model,
    RegularizerEntry,
    Suite,
    SuiteHead,
    Training,
)
from regbench.suite.tuning import SharedSearch, Tuning
from regbench.tuning.study import studies_of
from tests.suite import fakes
from tests.suite.test_load import TEXT

REGISTRY = fakes.registry()

FIELDS = sorted(
    {
        name
        for model in (
            Suite,
            SuiteHead,
            Model,
            Training,
            DatasetEntry,
            RegularizerEntry,
            FigureEntry,
            Tuning,
            SharedSearch,
            Search,
            *KINDS.values(),
        )
        for name in model.model_fields
    }
    | {"weight", "prototypes", "path", "side", "kernel", "closed_form", "relative", "absolute", "of"}
)
WORDS = [
    *REGISTRY.regularizers,
    *REGISTRY.datasets,
    *REGISTRY.metrics,
    *KINDS,
    "curves",
    "bad",
    "{weight}",
    "AE",
]

keys = st.sampled_from(FIELDS) | st.text(max_size=4)
scalars = (
    st.booleans()
    | st.integers(-3, 40)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=6)
    | st.dates()
    | st.sampled_from([2**63, -(2**64), 10**4000, "x" * 5000])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(keys, values, max_size=5)
documents = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("suite", "model", "training", "tuning"), tables | values),
        **{
            name: st.lists(tables, max_size=3) | values
            for name in ("datasets", "regularizers", "figures", "claims")
        },
        "x": values,
    },
)
EXAMPLES = int(os.environ.get("REGBENCH_EXAMPLES", "120"))
MOST_CELLS = 200
"""Suites with more are not expanded here: each takes its time, and all cells are alike."""
SETTINGS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def check(document: dict[str, Any]) -> Suite | None:
    try:
        suite = build_suite(document, REGISTRY)
        plan(suite)
        return suite
    except SuiteError as error:
        faults = error.faults
    assert faults
    assert all(fault.where and fault.expected and len(fault.value) <= 60 for fault in faults)
    return None


def plan(suite: Suite) -> None:
    """What follows when a suite is sound: its cells, their ids and directories, and its studies."""
    methods = sum(size(entry) for entry in suite.regularizers)
    if methods * len(suite.datasets) * len(suite.seeds) > MOST_CELLS:
        return
    try:
        cells = expand(suite, REGISTRY, Path("/nowhere"), lambda precision: precision)
        studies_of(suite, REGISTRY, cells)
    except (DataError, PluginError):  # a set whose files are not there, and one with a bug
        return
    assert len({cell.slug.casefold() for cell in cells}) == len(cells)
    assert all(len(cell.slug.encode()) < 200 and "/" not in cell.slug for cell in cells)


@SETTINGS
@given(st.text() | st.text(alphabet="[]{}='\".,\n\t #abx0129_-\\:T"))
def test_any_text(text: str) -> None:
    try:
        document = toml.parse(text, "suite.toml")
    except SuiteError:
        return
    check(document)


edits = st.tuples(
    st.integers(0, 2000),
    st.integers(0, 40),
    st.text(max_size=8) | st.sampled_from(["[", "=", '"', "\n[[x]]\n"]),
)


def edited(text: str, changes: list[tuple[int, int, str]]) -> bytes:
    """The text with pieces cut out and others put in; what cannot be UTF-8 becomes bytes that are none."""
    for place, length, piece in changes:
        place %= len(text) + 1
        text = text[:place] + piece + text[place + length :]
    return text.encode(errors="surrogatepass")


@SETTINGS
@given(
    st.lists(edits, max_size=3), st.lists(edits, max_size=2), st.sampled_from(["a", "b", "c", "../x", "a\0"])
)
def test_files_that_extend_each_other(
    first: list[tuple[int, int, str]], second: list[tuple[int, int, str]], base: str
) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "a").write_bytes(edited(TEXT, first))
        extending = f'[suite]\nname = "b"\nextends = {json.dumps(base)}\n[training]\nepochs = 30\n'
        (Path(place) / "b").write_bytes(edited(extending, second))
        with suppress(SuiteError):
            plan(load_suite(Path(place) / "b", REGISTRY))


@SETTINGS
@given(documents)
def test_any_tables(document: dict[str, Any]) -> None:
    check(document)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [here] if here else []
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in children:
        found += places(item, (*here, key))
    return found


SOUND = tomllib.loads(TEXT)
PLACES = places(SOUND)


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from(PLACES), values), min_size=1, max_size=3))
def test_a_sound_suite_with_something_replaced(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = deepcopy(SOUND)
    for place, value in changes:
        table: Any = document
        try:
            for key in place[:-1]:
                table = table[key]
            table[place[-1]] = value
        except (LookupError, TypeError):  # an earlier change has taken the place away
            continue
    check(document)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_sound_suite_with_something_left_out(place: tuple[Any, ...]) -> None:
    document = deepcopy(SOUND)
    table: Any = document
    for key in place[:-1]:
        table = table[key]
    del table[place[-1]]
    check(document)


@SETTINGS
@given(values)
def test_shown_values_are_short_lines(value: Any) -> None:
    text = show(value)
    assert len(text) <= 60
    assert text.isprintable()


def test_shown_values_read_like_toml() -> None:
    shown = show({"a": [True, 1.5, "ü\n"], "b c": {}, "d": date(2024, 1, 2)})
    assert shown == '{ a = [true, 1.5, "\\u00fc\\n"], "b c" = {}, d = 2024-01-02 }'
    assert show([[[[1]]]]) == "[[[[...]]]]"
