"""Suite files and names that only bad luck or bad will gives: each ends with a sentence, at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from regbench.errors import SuiteError, UsageError
from regbench.store.location import find_run
from regbench.suite.extends import read as read_extended
from regbench.suite.load import build_suite, load_suite
from regbench.suite.toml import parse, read
from tests.suite import fakes
from tests.suite.test_load import TEXT

REGISTRY = fakes.registry()
NOT_REGULAR = ["file: is not a regular file"]


def faults(file: Path | str, reader: Any = read) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        reader(Path(file))
    assert caught.value.exit_code == 2
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert faults(tmp_path / "pipe") == NOT_REGULAR
    assert faults("/dev/zero") == NOT_REGULAR
    with pytest.raises(UsageError, match="there is no run"):
        find_run(tmp_path / "pipe", tmp_path)
    with pytest.raises(UsageError, match="there is no run"):
        find_run("/dev/zero", tmp_path)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.toml").symlink_to(tmp_path / "b.toml")
    (tmp_path / "b.toml").symlink_to(tmp_path / "a.toml")
    (fault,) = faults(tmp_path / "a.toml", read_extended)
    assert "Too many levels of symbolic links" in fault
    (tmp_path / "c.toml").write_text('[suite]\nname = "c"\nextends = "a.toml"\n')
    (fault,) = faults(tmp_path / "c.toml", read_extended)
    assert fault.startswith('suite.extends = "a.toml"')


@pytest.mark.parametrize("base", ["a\0b", "a" * 5000, ".", "/dev/zero", "/etc/hostname/x"])
def test_what_no_suite_can_extend(tmp_path: Path, base: str) -> None:

    (tmp_path / "c.toml").write_text(f'[suite]\nname = "c"\nextends = {json.dumps(base)}\n')
    (fault,) = faults(tmp_path / "c.toml", read_extended)
    assert fault.startswith("suite.extends = ")


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "~nobody-of-that-name/x", "\ud800"])
def test_names_that_no_run_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        find_run(name, tmp_path)


@pytest.mark.parametrize("content", [b"\xff\0", b"../elsewhere\n", b"a" * 5000, b"", b"/tmp\n"])
def test_a_damaged_note_of_the_last_run_leads_nowhere(tmp_path: Path, content: bytes) -> None:
    for place in ("runs/one", "runs/two", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "suite.lock.json").touch()
    (tmp_path / "runs" / ".last").write_bytes(content)
    with pytest.raises(UsageError, match=r"there is no last run in .*; it holds one, two"):
        find_run(None, tmp_path / "runs")


def with_label(label: str) -> dict[str, Any]:
    document = parse(TEXT, "suite.toml")
    document["datasets"][1]["label"] = label
    return document


@pytest.mark.parametrize(
    "label",
    [
        "..",
        "../x",
        "a/b",
        "a\\b",
        "x.",
        "CON",
        "con.txt",
        "lpt9",
        "COM²",
        "Nul.tar.gz",
        "a:b",
        "字" * 41,
        "\u202eevil",
        "a\nb",
        "a\x00b",
        " a",
        "x" * 81,
    ],
)
def test_labels_of_data_sets_that_cannot_name_a_file_everywhere(label: str) -> None:
    with pytest.raises(SuiteError) as caught:
        build_suite(with_label(label), REGISTRY)
    assert caught.value.faults[0].where == "datasets[1].label"


@pytest.mark.parametrize(("first", "second"), [("AE", "ae"), ("é", "e\u0301"), ("É", "e\u0301"), ("ß", "SS")])
def test_labels_that_some_file_system_takes_for_one(first: str, second: str) -> None:
    document = with_label(second)
    document["datasets"][0]["label"] = first
    with pytest.raises(SuiteError, match=r"already the label of datasets\[0\]"):
        build_suite(document, REGISTRY)


def test_labels_in_any_script_are_fine() -> None:
    assert build_suite(with_label("数字 é ё"), REGISTRY).datasets[1].title == "数字 é ё"


def test_ten_million_cells_are_refused_before_any_is_made(tmp_path: Path) -> None:
    document = parse(TEXT, "suite.toml")
    document["suite"]["seeds"] = 10_000
    document["regularizers"] = [{"name": "proto-vae", "sweep": {"prototypes": list(range(1, 501))}}]
    with pytest.raises(SuiteError) as caught:
        build_suite(document, REGISTRY)
    assert [str(fault) for fault in caught.value.faults] == [
        "regularizers: 10,000,000 cells (methods x data sets x seeds); at most 100,000"
    ]


@pytest.mark.parametrize("seeds", [0, -1, 10_001, 2**63, [], [-1], [2**63], [1, 1], [True], "3", 1e400])
def test_seeds_that_are_none(seeds: Any) -> None:
    document = parse(TEXT, "suite.toml")
    document["suite"]["seeds"] = seeds
    with pytest.raises(SuiteError, match=r"suite\.seeds"):
        build_suite(document, REGISTRY)


@pytest.mark.parametrize(
    "line",
    [
        "lr = 1e400",
        "lr = nan",
        "lr = -inf",
        f"epochs = {'9' * 4000}",
        f"epochs = {'9' * 5000}",
        f"x = {'[' * 13}{']' * 13}",
        f"x = {'[' * 9000}{']' * 9000}",
        f"{'.'.join('a' * 3000)} = 1",
        "x = 'a\x00b'",
        "x = 1979-05-27",
    ],
)
def test_values_that_no_suite_can_hold(tmp_path: Path, line: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(f"{TEXT.partition('[training]')[0]}[training]\n{line}\n")
    with pytest.raises(SuiteError) as caught:
        load_suite(path, REGISTRY)
    assert all(len(str(fault)) < 400 for fault in caught.value.faults)
    assert "sys." not in str(caught.value), "no advice for programmers"
