"""The sampler: what it asks lies in the space, and the same answers lead to the same questions."""

from __future__ import annotations

import math
import sys
from typing import Any

import optuna
import pytest

from regbench.api import Search
from regbench.errors import UsageError
from regbench.suite.space import Parameter, Space
from regbench.tuning.sampler import Sampler

SPACE: Space = (
    Parameter("training", "lr", Search(low=1e-4, high=1e-1), False),
    Parameter("training", "batch_size", Search(low=8, high=64), True),
    Parameter("options", "shift", Search(low=-2, high=2, log=False), False),
    Parameter("options", "kernel", Search(choices=("gaussian", "imq", True)), False),
)


def error(values: dict[str, Any]) -> float:
    """Least at lr = 0.003 and shift = 1."""
    return (math.log10(values["training.lr"]) - math.log10(3e-3)) ** 2 + (values["options.shift"] - 1) ** 2


def play(
    trials: int, *, seed: int = 0, better: str = "lower", fail: int = -1, **more: Any
) -> list[dict[str, Any]]:
    sampler = Sampler(more.pop("space", SPACE), trials, seed, better, more.pop("start", {}))
    asked = []
    for number in range(trials):
        values = sampler.ask()
        asked.append(values)
        sign = 1 if better == "lower" else -1
        sampler.tell(None if number == fail else sign * error(values))
    return asked


def test_what_it_asks_lies_in_the_space() -> None:
    for values in play(25):
        assert list(values) == [parameter.key for parameter in SPACE]
        for parameter in SPACE:
            assert parameter.find(values[parameter.key]) == values[parameter.key]
        assert isinstance(values["training.batch_size"], int)


def test_the_same_answers_lead_to_the_same_questions() -> None:
    assert play(20) == play(20)
    assert play(20) != play(20, seed=1)
    assert play(20, fail=3)[:4] == play(20)[:4]
    assert play(20, fail=3)[12:] != play(20)[12:], "what is told matters"


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_it_learns_from_what_it_is_told(better: str) -> None:
    """Over many seeds the trials after the random ones are better than those, in either direction."""
    early, late = [], []
    for seed in range(8):
        errors = [error(values) for values in play(40, seed=seed, better=better)]
        early += errors[:10]
        late += errors[10:]
    assert sum(late) / len(late) < 0.6 * sum(early) / len(early)


def test_the_first_trial_is_the_suites_own_as_far_as_it_lies_in_the_space() -> None:
    own = {"training.lr": 2e-3, "options.kernel": "imq"}
    first, *others = play(4, start=own)
    assert {key: first[key] for key in own} == own
    assert any(values["training.lr"] != 2e-3 for values in others)


def test_fewer_choices_than_trials_are_asked_again() -> None:
    space = (Parameter("options", "kernel", Search(choices=("a", "b")), False),)
    sampler = Sampler(space, 6, 0, "lower", {})
    asked = []
    for _ in range(6):
        asked.append(sampler.ask()["options.kernel"])
        sampler.tell(1.0)
    assert set(asked) <= {"a", "b"}
    assert len(asked) == 6


def test_optuna_says_nothing_and_keeps_its_own_settings(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    play(3, fail=1)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_a_missing_optuna_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match="Optuna cannot be imported") as caught:
        Sampler(SPACE, 3, 0, "lower", {})
    assert caught.value.hint == "pip install 'regbench[tuning]'"
