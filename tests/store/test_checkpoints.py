"""Checkpoint files: whole or refused, the last two of a cell kept, nothing outside it touched."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from regbench.errors import StoreError
from regbench.store.checkpoints import CheckpointShelf

STAMP = {"cell": "abc", "schema": 1}


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    for attempt in ("1-aaaaaaaa", "2-bbbbbbbb", "10-cccccccc"):
        (tmp_path / "attempts" / attempt).mkdir(parents=True)
    return tmp_path


def save(cell: Path, attempt: str, epoch: int, batch: int = 0, state: bytes = b"state") -> Path:
    return CheckpointShelf(cell, STAMP).save(cell / "attempts" / attempt, epoch, batch, {"own": 1.5}, state)


def found(cell: Path, stamp: Any = None) -> tuple[list[tuple[int, int]], list[str]]:
    shelf = CheckpointShelf(cell, stamp or STAMP)
    return [(each.facts["epoch"], each.facts["batch"]) for each in shelf.newest()], shelf.notes


def names(cell: Path) -> list[str]:
    return sorted(path.name for path in cell.glob("attempts/*/checkpoints/*"))


def test_what_is_saved_is_found(cell: Path) -> None:
    state = bytes(range(256)) * 3 + b"\n{}\n"
    path = save(cell, "1-aaaaaaaa", 7, 3, state)
    assert path == cell / "attempts/1-aaaaaaaa/checkpoints/000007-000003.ckpt"
    shelf = CheckpointShelf(cell, STAMP)
    (checkpoint,) = shelf.newest()
    assert (checkpoint.state, checkpoint.facts) == (state, {**STAMP, "own": 1.5, "epoch": 7, "batch": 3})
    assert shelf.notes == []


def test_the_latest_attempts_latest_comes_first_and_numbers_are_numbers(cell: Path) -> None:
    """Whatever the clock says: times of files are not looked at."""
    save(cell, "2-bbbbbbbb", 9, 2)
    save(cell, "10-cccccccc", 1, 5)
    assert found(cell)[0] == [(1, 5), (9, 2)]
    os.utime(cell / "attempts/2-bbbbbbbb/checkpoints/000009-000002.ckpt", (4e9, 4e9))
    assert found(cell)[0] == [(1, 5), (9, 2)]
    save(cell, "10-cccccccc", 1_000_000, 0)
    save(cell, "10-cccccccc", 999_999, 8)
    assert found(cell)[0] == [(1_000_000, 0), (999_999, 8)]


def test_the_last_two_of_the_cell_are_kept(cell: Path) -> None:
    for epoch in (1, 2, 3):
        save(cell, "1-aaaaaaaa", epoch)
    assert found(cell)[0] == [(3, 0), (2, 0)]
    save(cell, "2-bbbbbbbb", 3, 4)
    assert found(cell)[0] == [(3, 4), (3, 0)]


def test_every_flipped_bit_and_every_missing_byte_is_noticed(cell: Path) -> None:
    path = save(cell, "1-aaaaaaaa", 1)
    whole = path.read_bytes()
    spoiled = [whole[:n] for n in range(len(whole))]
    spoiled += [whole[:n] + bytes([whole[n] ^ (1 << n % 8)]) + whole[n + 1 :] for n in range(len(whole))]
    spoiled += [whole + b"x"]
    for content in spoiled:
        path.write_bytes(content)
        usable, notes = found(cell)
        assert usable == []
        assert len(notes) == 1
        path.with_name(path.name + ".unusable").unlink()


def test_each_bad_one_is_kept_under_a_name_of_its_own(cell: Path) -> None:
    contents = [b"first", b"second", b""]
    for content in contents:
        save(cell, "1-aaaaaaaa", 1).write_bytes(content)
        assert found(cell)[0] == []
    kept = sorted(cell.glob("attempts/*/checkpoints/*"))
    assert [path.name for path in kept] == [f"000001-000000.ckpt.unusable{end}" for end in ("", "-2", "-3")]
    assert [path.read_bytes() for path in kept] == contents


def write(cell: Path, body: bytes) -> None:
    """A file whose SHA-256 fits."""
    save(cell, "1-aaaaaaaa", 1).write_bytes(body + hashlib.sha256(body).digest())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"regbench checkpoint 2\n{}\n", "has another format"),
        (b"", "has another format"),
        (b"regbench checkpoint 1\n{}", "has another format"),
        (b"regbench checkpoint 1\n[1]\n", "has facts of another form"),
        (b"regbench checkpoint 1\n{torn\n", "has facts that cannot be read"),
        (
            b"regbench checkpoint 1\n" + b"[" * 100_000 + b"\n",
            "has facts that cannot be read: recursion limit",
        ),
        (b'regbench checkpoint 1\n{"cell": "xyz", "schema": 1}\n', "is not this cell's: its cell is 'xyz'"),
        (b'regbench checkpoint 1\n{"cell": "abc", "schema": 2}\n', "is not this cell's: its schema is 2"),
        (b'regbench checkpoint 1\n{"cell": "abc"}\n', "is not this cell's: its schema is None"),
    ],
)
def test_a_whole_file_that_is_not_ours_is_refused(cell: Path, body: bytes, why: str) -> None:
    write(cell, body)
    usable, notes = found(cell)
    assert usable == []
    assert why in notes[0]
    assert names(cell) == ["000001-000000.ckpt.unusable"]


def test_one_that_turns_out_useless_is_set_aside(cell: Path) -> None:
    save(cell, "1-aaaaaaaa", 1)
    shelf = CheckpointShelf(cell, STAMP)
    (checkpoint,) = shelf.newest()
    shelf.refuse(checkpoint, "is of no use")
    assert shelf.notes == [
        "checkpoint attempts/1-aaaaaaaa/checkpoints/000001-000000.ckpt is of no use; "
        "kept as 000001-000000.ckpt.unusable"
    ]
    assert found(cell) == ([], [])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_while_writing_leaves_the_others(
    cell: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    save(cell, "1-aaaaaaaa", 1)
    save(cell, "1-aaaaaaaa", 2)
    before = names(cell)

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="cannot write"):
        save(cell, "1-aaaaaaaa", 3)
    assert names(cell) == before
    assert found(cell)[0] == [(2, 0), (1, 0)]


def test_what_is_no_file_or_cannot_be_read_is_left_and_said(cell: Path) -> None:
    save(cell, "1-aaaaaaaa", 1)
    folder = cell / "attempts/2-bbbbbbbb/checkpoints"
    (folder / "000009-000000.ckpt").mkdir(parents=True)
    os.mkfifo(folder / "000008-000000.ckpt")
    usable, notes = found(cell)
    assert usable == [(1, 0)]
    assert [note.partition(" cannot be read: ")[0][-18:] for note in notes] == [
        "000009-000000.ckpt",
        "000008-000000.ckpt",
    ]
    assert names(cell) == ["000001-000000.ckpt", "000008-000000.ckpt", "000009-000000.ckpt"]


def test_clearing_removes_checkpoints_and_torn_writes_and_nothing_else(cell: Path) -> None:
    save(cell, "1-aaaaaaaa", 1)
    save(cell, "2-bbbbbbbb", 2)
    folder = cell / "attempts/2-bbbbbbbb/checkpoints"
    (folder / ".000003-000000.ckpt.0123abcd.tmp").write_bytes(b"torn")
    (folder / "000001-000000.ckpt.unusable").write_bytes(b"bad")
    (folder / "notes.txt").write_text("mine")
    CheckpointShelf(cell, STAMP).clear()
    assert names(cell) == ["000001-000000.ckpt.unusable", "notes.txt"]
    assert not (cell / "attempts/1-aaaaaaaa/checkpoints").exists()
    CheckpointShelf(cell / "nothing", STAMP).clear()


def test_links_lead_nowhere(cell: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "attempts" / "1-aaaaaaaa").mkdir(parents=True)
    foreign = save(outside, "1-aaaaaaaa", 5)
    own = cell / "attempts/1-aaaaaaaa/checkpoints"
    own.symlink_to(foreign.parent)
    (cell / "attempts/2-bbbbbbbb/checkpoints").mkdir()
    (cell / "attempts/2-bbbbbbbb/checkpoints/000004-000000.ckpt").symlink_to(foreign)
    (cell / "attempts/3-dddddddd").symlink_to(foreign.parent.parent)
    usable, notes = found(cell)
    assert usable == []
    assert len(notes) == 3
    assert all("not followed" in note for note in notes)
    with pytest.raises(StoreError, match="is a link"):
        save(cell, "1-aaaaaaaa", 6)
    CheckpointShelf(cell, STAMP).clear()
    assert [path.name for path in foreign.parent.iterdir()] == [foreign.name]


def test_strange_names_are_left_alone(cell: Path) -> None:
    folder = save(cell, "1-aaaaaaaa", 1).parent
    for name in ("1.ckpt", "000001-000000.ckpt.bak", "a-b.ckpt", f"{'9' * 100}-0.ckpt"):
        (folder / name).write_bytes(b"x")
    (cell / "attempts" / "not an attempt" / "checkpoints").mkdir(parents=True)
    (cell / "attempts" / "not an attempt" / "checkpoints" / "000009-000000.ckpt").write_bytes(b"x")
    assert found(cell) == ([(1, 0)], [])


def test_facts_that_are_no_json_write_nothing(cell: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        CheckpointShelf(cell, STAMP).save(cell / "attempts/1-aaaaaaaa", 1, 0, {"x": float("nan")}, b"")
    assert names(cell) == []
