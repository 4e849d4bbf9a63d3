"""What is searched for a method: what all share, what it declares, what its entry says, less what is fixed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from regbench.api import Search
from regbench.plugins import Plugin, Registry
from regbench.suite.load import build_suite
from regbench.suite.schema import RegularizerEntry
from regbench.suite.space import Parameter, check_tuning, space_of
from regbench.suite.tuning import Tuning
from tests.suite import fakes


class Searching(fakes.MMD):
    search: ClassVar = {"weight": Search(low=1, high=100), "kernel": Search(choices=("gaussian", "imq"))}


class Misdeclared(fakes.VAEKL):
    search: ClassVar = {"weight": Search(low=-1, high=1, log=False), "wait": Search(choices=(1,))}


SEARCHING = fakes.plugin("searching", Searching)
LR = {"lr": {"low": 1e-4, "high": 1e-2}}


def tuning(**fields: Any) -> Tuning:
    return Tuning.model_validate({"trials": 3, "search": LR, **fields})


def keys(table: Tuning, plugin: Plugin = SEARCHING, **fields: Any) -> list[str]:
    entry = RegularizerEntry.model_validate({"name": plugin.name, **fields})
    return [parameter.key for parameter in space_of(table, entry, plugin)]


def test_what_all_share_is_searched_for_every_method() -> None:
    assert keys(tuning()) == keys(tuning(), fakes.plugin("ae", fakes.AE)) == ["training.lr"]


def test_the_methods_own_options_are_searched_where_the_suite_asks_for_them() -> None:
    both = ["training.lr", "options.weight", "options.kernel"]
    assert keys(tuning(options=True)) == both
    assert keys(tuning(options=True), options={"weight": 3}) == ["training.lr", "options.kernel"]
    assert keys(tuning(options=True), sweep={"kernel": ["gaussian"]}) == ["training.lr", "options.weight"]
    assert keys(tuning(search={}, options=True), fakes.plugin("ae", fakes.AE)) == []


def test_an_entry_says_for_itself_what_is_searched() -> None:
    search = {"weight": {"low": 5, "high": 6}, "bandwidth": {"choices": [1, 2]}}
    assert keys(tuning(), search=search) == ["training.lr", "options.weight", "options.bandwidth"]
    entry = RegularizerEntry.model_validate({"name": "searching", "search": search})
    space = {
        parameter.key: parameter.search for parameter in space_of(tuning(options=True), entry, SEARCHING)
    }
    assert space["options.weight"].low == 5
    assert space["options.kernel"].choices == ("gaussian", "imq")


def test_a_setting_that_the_entry_fixes_is_not_searched() -> None:
    assert keys(tuning(), training={"lr": 1e-3}) == []
    assert keys(tuning(), training={"epochs": 3}) == ["training.lr"]


@pytest.mark.parametrize(
    ("plugin", "name", "whole"),
    [
        (fakes.plugin("p", fakes.Proto), "prototypes", True),
        (fakes.plugin("v", fakes.VAEKL), "weight", False),
        (SEARCHING, "weight", False),  # float or None
    ],
)
def test_options_that_take_integers_alone_get_integers_alone(plugin: Plugin, name: str, whole: bool) -> None:
    entry = RegularizerEntry.model_validate({"name": plugin.name, "search": {name: {"low": 2, "high": 9}}})
    *_, parameter = space_of(tuning(), entry, plugin)
    assert parameter.whole is whole


@pytest.mark.parametrize(
    ("search", "value", "found"),
    [
        (Search(low=1, high=3), 3, 3),
        (Search(low=1, high=3), 3.1, None),
        (Search(low=1, high=3), None, None),
        (Search(low=1, high=3), True, None),
        (Search(choices=(1, 2)), 2.0, 2),
        (Search(choices=(1, 2)), True, None),
        (Search(choices=(True, False)), False, False),
        (Search(choices=("a",)), "b", None),
    ],
)
def test_whether_a_value_lies_in_the_space(search: Search, value: Any, found: Any) -> None:
    seen = Parameter("options", "x", search, False).find(value)
    assert (seen, type(seen)) == (found, type(found))


def test_what_a_plugin_declares_wrongly_is_said_to_be_its_fault() -> None:
    plugin = fakes.plugin("misdeclared", Misdeclared)
    entry = RegularizerEntry.model_validate({"name": "misdeclared"})
    faults = check_tuning(tuning(options=True), {0: (entry, plugin)}, ["mse"])
    assert [str(fault) for fault in faults] == [
        'regularizers[0].name = "misdeclared": its declared search of weight has low = -1.0: expected a number >= 0',
        'regularizers[0].name = "misdeclared": its declared search has wait: unknown option of '
        'misdeclared; did you mean "weight"?',
    ]
    assert check_tuning(tuning(), {0: (entry, plugin)}, ["mse"]) == []


def test_a_suite_keeps_its_tuning() -> None:
    registry: Registry = fakes.registry()
    suite = build_suite(
        {
            "suite": {"name": "x"},
            "training": {"epochs": 20},
            "tuning": {"trials": 7, "search": LR},
            "datasets": [{"name": "squares"}],
            "regularizers": [{"name": "vae-kl", "search": {"weight": {"low": 1, "high": 2}}}],
        },
        registry,
    )
    assert suite.tuning is not None
    assert (suite.tuning.trials, suite.tuning.metric, suite.tuning.options) == (7, "mse", False)
    assert suite.regularizers[0].search["weight"].high == 2
