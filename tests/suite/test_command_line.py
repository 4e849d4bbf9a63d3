"""Suites as the command line meets them."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from regbench.cli.app import main

ROOT = Path(__file__).parent.parent.parent
MALFORMED = sorted((Path(__file__).parent / "malformed").glob("*.toml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's cache nor the checkout is written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def regbench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["regbench", *arguments])
    return main()


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_malformed_suites_end_with_2_and_without_a_traceback(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in MALFORMED:
        assert regbench(monkeypatch, verb, str(file)) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"error: {file}: ")
        assert "hint: " in err
        assert "Traceback" not in err + out
    assert not (tmp_path / "runs").exists()


def test_a_suite_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("suites").mkdir()
    Path("suites/quick.toml").touch()
    assert regbench(monkeypatch, "plan", "quick") == 2
    assert (
        capsys.readouterr().err
        == "error: quick: 1 fault\n  file: not found\nhint: did you mean suites/quick.toml?\n"
    )


def test_schema(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert regbench(monkeypatch, "schema") == 0
    printed = capsys.readouterr().out
    assert regbench(monkeypatch, "schema", "--out", "suite.schema.json") == 0
    assert Path("suite.schema.json").read_text(encoding="utf-8") == printed
    assert capsys.readouterr().out == ""
    quick = tomllib.loads((ROOT / "suites" / "quick.toml").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json.loads(printed)).validate(quick)


def test_a_schema_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert regbench(monkeypatch, "schema", "--out", "no/such/place.json") == 4
    assert capsys.readouterr().err.startswith(
        "error: cannot write no/such/place.json: No such file or directory"
    )
