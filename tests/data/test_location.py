from __future__ import annotations

import shlex
from pathlib import Path

import platformdirs
import pytest

from regbench.data.location import cache_root, data_root, fetch_command


def test_argument_then_variable_then_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root(str(tmp_path / "given")) == tmp_path / "given"
    assert data_root() == tmp_path / "variable"
    default = Path(platformdirs.user_data_dir("regbench", appauthor=False)) / "datasets"
    monkeypatch.setenv("REGBENCH_DATA", "")
    assert data_root() == default
    monkeypatch.delenv("REGBENCH_DATA")
    assert data_root() == default


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_root("below") == tmp_path / "below"
    assert data_root("~/data") == tmp_path / "home" / "data"


def test_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("REGBENCH_CACHE")
    assert cache_root() == Path(platformdirs.user_cache_dir("regbench", appauthor=False))


def test_the_command_survives_the_shell(tmp_path: Path) -> None:
    place = tmp_path / "my data; rm $x"
    assert shlex.split(fetch_command("mnist", place)) == [
        *("regbench", "data", "fetch", "mnist", "--data-dir"),
        str(place),
    ]
