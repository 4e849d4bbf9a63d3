"""Data that bad luck or bad will has made: refused with a sentence, before memory is eaten or code is run."""

from __future__ import annotations

import io
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from regbench.data import npz as npz_module
from regbench.data.base import DatasetOptions
from regbench.data.folder import Folder, FolderOptions
from regbench.data.location import data_root
from regbench.data.npz import Npz, NpzOptions
from regbench.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "cache"))


def npz(path: Path) -> Npz:
    return Npz(NpzOptions(path=path, side=8, channels=1))


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def packed(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("train.npy", content)
    return path


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_a_pickle_in_an_archive_is_refused_and_does_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    array = np.empty(20, dtype=object)
    array[:] = [Bomb(trace)] * 20
    np.savez(tmp_path / "a.npz", train=array)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb(trace)))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(DataError, match="without pickled objects"):
            npz(tmp_path / name).load(tmp_path)
        assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists(), "it would have"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (header("(1000000000000, 8, 8)") + b"\0" * 64, "which is not what it holds"),
        (header("(-1, 8, 8)") + b"\0" * 64, "which is not what it holds"),
        (header("(1, 8, 8)") + b"\0" * 65, "which is not what it holds"),
        (header("(1, 8, 8)", "'|O'"), "pickled objects"),
        (header("(" + "9" * 5000 + ",)"), "cannot be read"),
        (header("(1, 8, 8)", "'" + "[" * 5000), "cannot be read"),
        (b"\x93NUMPY\x01\x00\xff\xff", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = packed(tmp_path / "a.npz", content)
    with pytest.raises(DataError, match=problem):
        npz(path).load(tmp_path)


def test_an_archive_larger_than_the_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.npz", header("(62500, 8, 8)") + bytes(4_000_000))
    assert path.stat().st_size < 10_000

    class Small:
        total = 3_000_000

    monkeypatch.setattr(npz_module.psutil, "virtual_memory", Small)
    with pytest.raises(DataError, match=r"holds 0 GB of arrays; this machine has 0 GB") as caught:
        npz(path).load(tmp_path)
    assert "fewer or smaller images" in str(caught.value.hint)


def test_truncated_and_flipped_archives_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, train=np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8))
    whole = buffer.getvalue()
    flipped = bytearray(whole)
    flipped[700] ^= 1
    for number, content in enumerate((whole[:700], whole[:-1], bytes(flipped), b"", b"\0" * 100)):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as a NumPy archive"):
            npz(path).load(tmp_path)


@pytest.mark.parametrize("label", [65_536, 2**31, 2**63])
def test_labels_that_would_make_billions_of_classes_are_refused(tmp_path: Path, label: int) -> None:
    labels = np.zeros(20, dtype=np.uint64)
    labels[3] = label
    np.savez(tmp_path / "a.npz", train=np.zeros((20, 8, 8), np.uint8), train_labels=labels)
    with pytest.raises(DataError, match=f"has the label {label}; expected at most 65,535"):
        npz(tmp_path / "a.npz").load(tmp_path)


def test_a_file_that_keeps_its_time_of_change_is_read_again_all_the_same(tmp_path: Path) -> None:
    """As after ``cp -p`` over it, or with a clock that was put back."""
    path = tmp_path / "a.npz"
    np.savez(path, train=np.zeros((20, 8, 8), np.uint8))
    before, status = npz(path).fingerprint(tmp_path), path.stat()
    time.sleep(0.02)  # the file system's clock has a grain
    np.savez(path, train=np.ones((20, 8, 8), np.uint8))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert npz(path).fingerprint(tmp_path) != before


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)


def tree(top: Path) -> Folder:
    return Folder(FolderOptions(path=top, side=8, channels=1, layout="single"))


def test_a_link_to_a_directory_above_it_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "top" / "a" / "x.png")
    (tmp_path / "top" / "a" / "one").symlink_to(tmp_path / "top")
    (tmp_path / "top" / "a" / "two").symlink_to(tmp_path / "top" / "a")
    with pytest.raises(DataError, match="is a symbolic link to a directory that it lies in"):
        tree(tmp_path / "top").sizes(tmp_path)


def test_a_link_to_another_directory_is_followed_however_often(tmp_path: Path) -> None:
    picture(tmp_path / "shared" / "x.png")
    for name in ("a", "b"):
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "link").symlink_to(tmp_path / "shared")
    sizes = tree(tmp_path / "top").sizes(tmp_path)
    assert sizes.train + sizes.test == 2


def test_links_in_a_circle_are_a_problem_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for dataset in (tree(tmp_path / "a"), npz(tmp_path / "a")):
        with pytest.raises(DataError, match=r"cannot be read|is not a directory|is missing"):
            dataset.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\xff" * 20, b"P5 100000 100000 255\n", b"BM" + b"\xff" * 60],
)
def test_images_with_absurd_headers_are_named(tmp_path: Path, content: bytes) -> None:
    picture(tmp_path / "top" / "a" / "good.png")
    (tmp_path / "top" / "a" / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png cannot be read as an image"):
        tree(tmp_path / "top").load(tmp_path)


@pytest.mark.parametrize("path", ["a\0b", "a" * 256, "a/" * 2000, "~nobody-of-that-name/x"])
@pytest.mark.parametrize("options", [NpzOptions, FolderOptions])
def test_paths_that_no_file_can_have_are_faults_of_the_suite(
    options: type[DatasetOptions], path: str
) -> None:
    with pytest.raises(ValidationError, match=r"expected a path of at most|the home directory of that user"):
        options(path=path, side=8)  # type: ignore[call-arg]


def test_a_home_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGBENCH_DATA", "~nobody-of-that-name/data")
    with pytest.raises(UsageError, match="the home directory of that user is not known"):
        data_root()
