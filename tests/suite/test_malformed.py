"""Malformed suites: all faults at once, each with its place, what stands there, and what was expected.

Each file in ``malformed/`` says in its ``#!`` lines which faults it has, in this order and no others.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regbench.errors import SuiteError
from regbench.suite.load import load_suite
from tests.suite import fakes

FILES = sorted((Path(__file__).parent / "malformed").glob("*.toml"))
REGISTRY = fakes.registry()

SOUND = """
[suite]
name = "x"
[training]
epochs = 20
[[datasets]]
name = "squares"
[[regularizers]]
name = "vae-kl"
"""


def faults(path: Path) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        load_suite(path, REGISTRY)
    error = caught.value
    assert error.exit_code == 2
    assert error.hint
    first, *lines = str(error).splitlines()
    count = len(error.faults)
    assert first == f"{path}: {count} fault{'s' if count > 1 else ''}"
    assert lines == [f"  {fault}" for fault in error.faults]
    return [str(fault) for fault in error.faults]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_all_faults_are_said(file: Path) -> None:
    expected = re.findall(r"^#! (.*)$", file.read_text(encoding="utf-8"), re.M)
    assert faults(file) == expected


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 25


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(SOUND, encoding="utf-8")
    return path


def test_a_sound_suite_has_none(suite: Path) -> None:
    assert load_suite(suite, REGISTRY).name == "x"


def test_long_values_are_shortened(suite: Path) -> None:
    suite.write_text(f"{SOUND}options = {{ weight = '{'x' * 5000}' }}\n", encoding="utf-8")
    assert faults(suite) == [f'regularizers[0].options.weight = "{"x" * 56}...: expected a number']


def test_too_many_cells(suite: Path) -> None:
    many = list(range(1, 401))
    suite.write_text(
        SOUND.replace("vae-kl", "infovae-mmd") + f"sweep = {{ weight = {many}, bandwidth = {many} }}\n",
        encoding="utf-8",
    )
    assert faults(suite) == ["regularizers: 480,000 cells (methods x data sets x seeds); at most 100,000"]


def test_astronomically_many_cells(suite: Path) -> None:
    sweep = ", ".join(f"x{i} = [1, 2]" for i in range(8000))
    suite.write_text(f"{SOUND}sweep = {{ {sweep} }}\n", encoding="utf-8")
    assert faults(suite) == [
        "regularizers: more than 10^12 cells (methods x data sets x seeds); at most 100,000"
    ]


def test_faults_come_in_the_order_of_the_file(suite: Path) -> None:
    tables = [
        f"{table.strip()}\nx = 1\n" for table in re.split(r"^(?=\[)", SOUND, flags=re.M) if table.strip()
    ]
    suite.write_text("".join(reversed(tables)), encoding="utf-8")
    places = [fault.partition(".")[0] for fault in faults(suite)]
    assert places == ["regularizers[0]", "datasets[0]", "training", "suite"]
