"""Checkpoints that cannot be used, or cannot be written, do no harm."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from regbench.errors import StoreError
from regbench.execution.events import CellResumed
from regbench.store.checkpoints import Checkpoint, CheckpointShelf
from tests.execution.resuming import After, Numbers, Place, collector, stop


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(
        content if how == "flipped" else content[: len(content) // 2 if how == "truncated" else 0]
    )


@pytest.mark.parametrize(
    ("how", "both"), [("truncated", False), ("flipped", False), ("empty", False), ("flipped", True)]
)
def test_a_bad_checkpoint_is_named_kept_aside_and_done_without(
    place: Place, whole: dict[str, Numbers], how: str, both: bool
) -> None:
    stop(place, "VAE-KL", 3)
    stop(place, "VAE-KL", 10)
    first, second = place.checkpoints("VAE-KL")
    for path in [first, second] if both else [second]:
        spoil(path, how)
    bad = second.read_bytes()
    events, emit = collector()
    assert place.run("VAE-KL", emit=emit).status == "done"
    assert place.numbers("VAE-KL") == whole["VAE-KL"]
    (resumed,) = (event for event in events if isinstance(event, CellResumed))
    assert (resumed.epoch, resumed.batch) == ((0, 0) if both else (0, 2))
    assert len(resumed.notes) == (2 if both else 1)
    why = "is empty" if how == "empty" else "is truncated or altered"
    assert f"checkpoints/{second.name} {why}" in resumed.notes[0]
    assert f"kept as {second.name}.unusable" in resumed.notes[0]
    assert second.with_name(f"{second.name}.unusable").read_bytes() == bad
    log = next(place.directory("VAE-KL").glob("attempts/3-*/log.txt")).read_text()
    assert resumed.notes[0] in log


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, (f"touch {os.environ['EVIL']}",))


def shelf_of(place: Place, method: str) -> tuple[CheckpointShelf, Checkpoint]:
    spec = place.cells[method].spec
    stamp = {"cell": spec.id, "schema": 1, "numerics": spec.key()["numerics"]}
    shelf = CheckpointShelf(place.directory(method), stamp)
    return shelf, next(shelf.newest())


@pytest.mark.parametrize("zipped", [False, True])
def test_a_malicious_pickle_is_refused_without_effect(
    place: Place, whole: dict[str, Numbers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """Its SHA-256 fits: whoever can write there can compute it."""
    effect = tmp_path / "evil"
    monkeypatch.setenv("EVIL", str(effect))
    stop(place, "AE", 8)
    shelf, good = shelf_of(place, "AE")
    # As torch writes it, or bare with protocol 2, which is what its reader expects.
    state = _saved(Evil()) if zipped else pickle.dumps(Evil(), protocol=2)
    shelf.save(good.path.parent.parent, 1, 3, good.facts, state)
    events, emit = collector()
    place.run("AE", emit=emit)
    assert not effect.exists()
    (resumed,) = (event for event in events if isinstance(event, CellResumed))
    assert (resumed.epoch, resumed.batch, len(resumed.notes)) == (1, 2, 1)
    assert "cannot be loaded: UnpicklingError" in resumed.notes[0]
    assert place.numbers("AE") == whole["AE"]
    pickle.loads(pickle.dumps(Evil()))
    assert effect.exists(), "it would have had an effect"


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_another_cells_checkpoint_is_refused(place: Place, whole: dict[str, Numbers]) -> None:
    stop(place, "VAE-KL", 8)
    stop(place, "AE", 4)
    (foreign,), (own,) = place.checkpoints("VAE-KL"), place.checkpoints("AE")
    own.with_name("000003-000000.ckpt").write_bytes(foreign.read_bytes())
    events, emit = collector()
    place.run("AE", emit=emit)
    (resumed,) = (event for event in events if isinstance(event, CellResumed))
    assert (resumed.epoch, resumed.batch) == (0, 3)
    assert "is not this cell's: its cell is" in resumed.notes[0]
    assert place.numbers("AE") == whole["AE"]


def test_a_state_that_fits_only_half_leaves_no_trace(place: Place, whole: dict[str, Numbers]) -> None:
    """Weights that load, and moments that do not."""
    stop(place, "ProtoVAE", 13)
    shelf, good = shelf_of(place, "ProtoVAE")
    state = torch.load(io.BytesIO(good.state), weights_only=True)
    del state["optimizers"][sorted(state["optimizers"])[-1]]
    shelf.save(good.path.parent.parent, 3, 0, good.facts, _saved(state))
    good.path.unlink()
    events, emit = collector()
    place.run("ProtoVAE", emit=emit)
    (resumed,) = (event for event in events if isinstance(event, CellResumed))
    assert (resumed.epoch, resumed.batch) == (0, 0)
    assert "cannot be loaded: KeyError" in resumed.notes[0]
    assert place.numbers("ProtoVAE") == whole["ProtoVAE"]


def test_another_environment_goes_on_and_is_recorded(place: Place) -> None:
    stop(place, "AE", 8)
    shelf, good = shelf_of(place, "AE")
    older = {**good.facts["environment"], "torch": "2.0.0"}
    shelf.save(good.path.parent.parent, 1, 2, {**good.facts, "environment": older}, good.state)
    place.run("AE")
    (entry,) = place.record("AE").result["cost"]["resumed"]
    assert entry["note"] == f"torch 2.0.0 -> {torch.__version__}"


# --- disks


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """A real limit, as of a full disk: longer files fail with EFBIG."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_checkpoint_before_as_it_is(place: Place, whole: dict[str, Numbers]) -> None:
    stop(place, "AE", 4)
    (before,) = place.checkpoints("AE")
    content = before.read_bytes()
    with files_up_to(len(content) // 2), pytest.raises(StoreError, match=r"cannot write .*\.ckpt") as raised:
        place.run("AE", After(4))
    assert "ulimit -f" in str(raised.value.hint)
    assert place.checkpoints("AE") == [before]
    assert before.read_bytes() == content
    assert not list(place.directory("AE").glob("attempts/*/checkpoints/.*")), "no half-written file stays"
    place.run("AE")
    assert place.numbers("AE") == whole["AE"]


@contextmanager
def ordinary_user(folder: Path) -> Iterator[None]:
    """Root may write anywhere; in its place somebody else does what the block does, as the owner of ``folder``."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, -1)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that others than root can reach, too."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_directory_that_cannot_be_written_is_a_clean_error(
    open_folder: Path, undisturbed: Place, whole: dict[str, Numbers]
) -> None:
    place = Place(open_folder)
    place.judged_as(undisturbed)
    stop(place, "AE", 8)

    def lock(event: Any) -> None:
        for attempt in place.directory("AE").glob("attempts/2-*"):
            attempt.chmod(0o500)

    with ordinary_user(open_folder), pytest.raises(StoreError, match=r"cannot write .*checkpoints") as raised:
        place.run("AE", After(9), lock)
    assert "mend the permissions" in str(raised.value.hint)
    assert [path.name for path in place.checkpoints("AE")] == ["000001-000002.ckpt"]
    place.run("AE")
    assert place.numbers("AE") == whole["AE"]


def test_links_are_not_followed_out_of_the_cell(
    place: Place, tmp_path: Path, whole: dict[str, Numbers]
) -> None:
    stop(place, "AE", 4)
    stop(place, "AE", 8)
    first, second = place.checkpoints("AE")
    outside = tmp_path / "outside.ckpt"
    second.rename(outside)
    second.symlink_to(outside)
    away = tmp_path / "away"
    first.parent.rename(away)
    first.parent.symlink_to(away)
    events, emit = collector()
    place.run("AE", emit=emit)
    (resumed,) = (event for event in events if isinstance(event, CellResumed))
    assert (resumed.epoch, resumed.batch) == (0, 0)
    assert sorted("is a link" in note or "reached by a link" in note for note in resumed.notes) == [
        True,
        True,
    ]
    assert outside.is_file(), "and nothing out there is removed"
    assert (away / first.name).is_file()
    assert place.numbers("AE") == whole["AE"]
