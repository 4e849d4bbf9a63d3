"""``regbench new plugin``: what it writes works as it stands, and bad names are refused with advice."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruff import find_ruff_bin

from regbench import scaffold
from regbench.errors import EnvironmentFault, UsageError

ROOT = Path(__file__).parent.parent


def test_writes_a_package_whose_parts_fit_together(tmp_path: Path) -> None:
    package = scaffold.new_plugin("my-method2", tmp_path)
    assert package == tmp_path / "regbench-my-method2"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == "regbench-my-method2"
    assert project["entry-points"]["regbench"] == {"my-method2": "regbench_my_method2"}
    code = (package / "src" / "regbench_my_method2" / "__init__.py").read_text()
    assert "class MyMethod2(regbench.Regularizer)" in code
    assert 'name = "my-method2"' in code
    assert len(code.splitlines()) < 60
    assert not re.search(r"\{[{%]|[%}]\}", "".join(file.read_text() for file in package.rglob("*.*")))
    assert list(tmp_path.iterdir()) == [package]


@pytest.mark.slow
def test_generated_test_passes_unedited(tmp_path: Path) -> None:
    package = scaffold.new_plugin("my-method", tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", package],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


@pytest.mark.parametrize("name", ["a", "my-method", "x" * 40])
def test_generated_code_is_formatted_and_lint_free(name: str, tmp_path: Path) -> None:
    package = scaffold.new_plugin(name, tmp_path)
    for check in (["format", "--check"], ["check", "--select", "E,F,I,B,UP,SIM,RUF,PT,PTH,C4"]):
        command = [find_ruff_bin(), *check, "--isolated", "--no-cache", "."]
        result = subprocess.run(command, cwd=package, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


def test_generated_suite_is_valid(tmp_path: Path) -> None:
    package = scaffold.new_plugin("my-method", tmp_path)
    suite = tomllib.loads((package / "compare.toml").read_text())
    assert [entry["name"] for entry in suite["regularizers"]] == ["ae", "my-method"]


@pytest.mark.parametrize("name", ["none", "true", "tensor", "field", "a", "a1-2b", "x" * 40])
def test_odd_names_still_give_valid_code(name: str, tmp_path: Path) -> None:
    package = scaffold.new_plugin(name, tmp_path)
    for file in package.rglob("*.py"):
        tree = ast.parse(file.read_text())
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        assert not {"Field", "Tensor"} & set(classes)


def test_prefix_is_taken_off(tmp_path: Path) -> None:
    assert scaffold.new_plugin("regbench-mine", tmp_path).name == "regbench-mine"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "My-Method",
        "my_method",
        "my method",
        "2d",
        "-a",
        "a-",
        "a--b",
        "../a",
        "a/b",
        "é",
        "a\n",
        "x" * 41,
        "regbench-",
    ],
)
def test_malformed_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lower-case letters") as caught:
        scaffold.new_plugin(name, tmp_path)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_taken_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'vae-kl' is taken by regbench"):
        scaffold.new_plugin("vae-kl", tmp_path)


def test_an_existing_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "regbench-mine").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        scaffold.new_plugin("mine", tmp_path)
    assert not list((tmp_path / "regbench-mine").iterdir())


def test_an_impossible_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot write"):
        scaffold.new_plugin("mine", tmp_path / "file")
