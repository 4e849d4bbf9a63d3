"""Whatever is in a file: it gives a suite or a ``SuiteError``, and never another exception."""

from __future__ import annotations

import tomllib
from copy import deepcopy
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regbench.errors import SuiteError
from regbench.suite import toml
from regbench.suite.claims import KINDS
from regbench.suite.faults import show
from regbench.suite.load import build_suite
from regbench.suite.schema import (
    DatasetEntry,
    FigureEntry,
    Model,
    RegularizerEntry,
    Suite,
    SuiteHead,
    Training,
)
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
        **dict.fromkeys(("suite", "model", "training"), tables | values),
        **{
            name: st.lists(tables, max_size=3) | values
            for name in ("datasets", "regularizers", "figures", "claims")
        },
        "x": values,
    },
)
SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def check(document: dict[str, Any]) -> Suite | None:
    try:
        return build_suite(document, REGISTRY)
    except SuiteError as error:
        faults = error.faults
    assert faults
    assert all(fault.where and fault.expected and len(fault.value) <= 60 for fault in faults)
    return None


@SETTINGS
@given(st.text() | st.text(alphabet="[]{}='\".,\n\t #abx0129_-\\:T"))
def test_any_text(text: str) -> None:
    try:
        document = toml.parse(text, "suite.toml")
    except SuiteError:
        return
    check(document)


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
