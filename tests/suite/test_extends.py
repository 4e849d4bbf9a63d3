"""One suite file on top of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from regbench.errors import SuiteError
from regbench.plugins import Registry, registry
from regbench.suite import extends
from regbench.suite.load import load_suite

BASE = """
[suite]
name = "base"
description = "The whole thing."
seeds = 5
baseline = "AE"
[training]
epochs = 40
batch_size = 64
[[datasets]]
name = "digits"
[[regularizers]]
name = "ae"
label = "AE"
[[figures]]
kind = "curves"
"""
SMALL = """
[suite]
name = "small"
extends = "base.toml"
seeds = 2
[training]
epochs = 3
warmup = 1
[[datasets]]
name = "digits"
train_images = 100
"""


@pytest.fixture(scope="module")
def plugins() -> Registry:
    return registry()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


def test_tables_are_joined_and_lists_replaced(folder: Path, plugins: Registry) -> None:
    suite = load_suite(folder / "small.toml", plugins)
    assert suite.name == "small"
    assert suite.suite.description == "The whole thing."
    assert suite.seeds == (0, 1)
    assert suite.baseline == "AE"
    training = suite.training_for(suite.datasets[0], suite.regularizers[0])
    assert (training.epochs, training.warmup, training.batch_size) == (3, 1, 64)
    assert [entry.train_images for entry in suite.datasets] == [100]
    assert [figure.kind for figure in suite.figures] == ["curves"]
    assert suite.bases == (folder / "base.toml",)


def test_a_chain_is_followed_and_the_nearest_value_wins(folder: Path, plugins: Registry) -> None:
    (folder / "deeper").mkdir()
    tiny = '[suite]\nname = "tiny"\nextends = "../small.toml"\n[training]\nepochs = 2\n'
    (folder / "deeper" / "tiny.toml").write_text(tiny)
    suite = load_suite(folder / "deeper" / "tiny.toml", plugins)
    training = suite.training_for(suite.datasets[0], suite.regularizers[0])
    assert (suite.name, suite.seeds, training.epochs, training.warmup) == ("tiny", (0, 1), 2, 1)
    assert [base.name for base in suite.bases] == ["small.toml", "base.toml"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[suite]\nname = "x"\nextends = "bass.toml"', 'suite.extends = "bass.toml": .*not found'),
        ('[suite]\nname = "x"\nextends = "x.toml"', "circle"),
        ('[suite]\nname = "x"\nextends = "broken.toml"', "not TOML"),
        ('[suite]\nname = "x"\nextends = 3', "suite.extends = 3: expected a string"),
        ('[suite]\nextends = "base.toml"', "suite.name: required"),
        ('[suite]\nname = "x"\nextends = "base.toml"\nbaseline = "AF"', "baseline.*AF"),
    ],
)
def test_what_is_wrong_is_said(text: str, expected: str, folder: Path, plugins: Registry) -> None:
    (folder / "broken.toml").write_text("[suite\n")
    (folder / "x.toml").write_text(text)
    with pytest.raises(SuiteError, match=expected) as error:
        load_suite(folder / "x.toml", plugins)
    assert str(folder / "x.toml") in str(error.value)


def test_a_circle_of_three_ends(folder: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        (folder / f"{name}.toml").write_text(f'[suite]\nname = "{name}"\nextends = "{base}.toml"\n')
    with pytest.raises(SuiteError, match="circle"):
        extends.read(folder / "a.toml")


def test_a_chain_that_is_too_long_ends(folder: Path) -> None:
    for number in range(8):
        (folder / f"s{number}.toml").write_text(f'[suite]\nname = "s"\nextends = "s{number + 1}.toml"\n')
    with pytest.raises(SuiteError, match="too long"):
        extends.read(folder / "s0.toml")
