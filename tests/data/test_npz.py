from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from regbench.data.base import ImageShape, Sizes
from regbench.data.npz import Npz, NpzOptions
from regbench.data.split import hashed_test, prepare
from regbench.errors import DataError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "arrays"


def pixels(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def dataset(path: Path | str, side: int = 8, channels: int = 1) -> Npz:
    return Npz(NpzOptions(path=path, side=side, channels=channels))


def save(path: Path, **arrays: Any) -> Npz:
    np.savez(path, **arrays)
    return dataset(path)


def test_everything_given(tmp_path: Path) -> None:
    train, test = pixels(30, 3, 8, 8), pixels(10, 3, 8, 8)
    np.savez_compressed(
        tmp_path / "a.npz",
        train=train,
        train_labels=np.arange(30, dtype=np.uint8) % 3,
        test=test,
        test_labels=np.arange(10, dtype=np.int32) % 2,
        classes=np.array(["red", "green", "blue", "unused"]),
    )
    npz = dataset("a.npz", channels=3)  # a relative path starts at the data directory
    images = npz.load(tmp_path)
    np.testing.assert_array_equal(images.train, train)
    np.testing.assert_array_equal(images.test, test)
    assert images.train_labels.tolist() == [i % 3 for i in range(30)]
    assert images.test_labels.tolist() == [i % 2 for i in range(10)]
    assert images.classes == ("red", "green", "blue", "unused")
    assert npz.sizes(tmp_path) == Sizes(30, 10)
    assert npz.shape == ImageShape(3, 8)
    assert npz.check(tmp_path) == []
    assert len(prepare(images).train) == 27


def test_train_alone_gives_a_hashed_fifth_for_test_and_no_labels(tmp_path: Path) -> None:
    train = pixels(50, 8, 8)
    images = save(tmp_path / "a.npz", train=train).load(tmp_path)
    mask = hashed_test([str(i) for i in range(50)])
    np.testing.assert_array_equal(images.train[:, 0], train[~mask])
    np.testing.assert_array_equal(images.test[:, 0], train[mask])
    assert images.classes == ()
    assert set(images.train_labels.tolist()) == set(images.test_labels.tolist()) == {-1}
    prepare(images)


def test_labels_follow_their_images_into_the_hashed_fifth(tmp_path: Path) -> None:
    train = pixels(50, 8, 8)
    train[:, 0, 0] = np.arange(50)
    images = save(tmp_path / "a.npz", train=train, train_labels=np.arange(50)).load(tmp_path)
    np.testing.assert_array_equal(images.train_labels, images.train[:, 0, 0, 0])
    np.testing.assert_array_equal(images.test_labels, images.test[:, 0, 0, 0])
    assert images.classes == tuple(str(i) for i in range(50))


def test_fingerprint_depends_on_the_content_only(tmp_path: Path) -> None:
    train = pixels(50, 8, 8)
    first = save(tmp_path / "a.npz", train=train).fingerprint(tmp_path)
    np.savez_compressed(tmp_path / "b.npz", train=train[:, None])
    assert dataset(tmp_path / "b.npz").fingerprint(tmp_path) == first
    train[7, 3, 3] ^= 1
    assert save(tmp_path / "c.npz", train=train).fingerprint(tmp_path) != first
    labelled = save(tmp_path / "d.npz", train=train, train_labels=np.zeros(50, int))
    assert labelled.fingerprint(tmp_path) != first


@pytest.mark.parametrize(
    ("arrays", "message", "hint"),
    [
        ({"tran": pixels(9, 8, 8)}, "holds tran; expected train", None),
        ({"train": pixels(9, 8, 8), "extra": pixels(1)}, "holds extra, train; expected train", None),
        ({"train": pixels(9, 8, 8) / 255}, "train has type float64; expected uint8", "255"),
        ({"train": pixels(9, 8, 9)}, r"train has shape \(9, 1, 8, 9\); .* \(N, 1, 8, 8\)", "mend side"),
        ({"train": pixels(9, 8, 8, 1)}, r"train has shape \(9, 8, 8, 1\)", r"transpose\(0, 3, 1, 2\)"),
        ({"train": pixels(9, 64)}, r"train has shape \(9, 64\)", "mend side"),
        ({"train": pixels(9, 8, 8), "test": pixels(9, 4, 4)}, "test has shape", "mend side"),
        ({"train": pixels(9, 8, 8), "test_labels": np.zeros(2, int)}, "test_labels without test", None),
        (
            {"train": pixels(9, 8, 8), "train_labels": np.zeros(9, int), "test": pixels(2, 8, 8)},
            "labels for one of its splits only",
            None,
        ),
        ({"train": pixels(9, 8, 8), "train_labels": np.zeros(8, int)}, r"train_labels .* \(8,\)", None),
        ({"train": pixels(9, 8, 8), "train_labels": np.zeros(9)}, "train_labels is float64", None),
        ({"train": pixels(9, 8, 8), "train_labels": -np.ones(9, int)}, "negative labels", None),
        (
            {"train": pixels(9, 8, 8), "train_labels": np.arange(9), "classes": np.array(["a", "b"])},
            r"classes is <U1 of shape \(2,\); expected one string for each of the 9",
            None,
        ),
        ({"train": pixels(9, 8, 8), "classes": np.array(["a"])}, "classes", None),
        ({"train": np.array([{}], dtype=object)}, "without pickled objects", "numpy.savez"),
    ],
)
def test_what_is_wrong_is_said(
    arrays: dict[str, Any], message: str, hint: str | None, tmp_path: Path
) -> None:
    npz = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        npz.load(tmp_path)
    assert str(tmp_path / "a.npz") in str(caught.value)
    if hint is not None:
        assert caught.value.hint is not None
        assert caught.value.hint in npz.check(tmp_path)[0]
        assert re.search(hint, caught.value.hint)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match="is missing"):
        dataset(path).load(tmp_path)
    with pytest.raises(DataError, match="is missing"):
        dataset(path).sizes(tmp_path)
    npz = save(path, train=pixels(50, 8, 8))
    intact = path.read_bytes()
    flipped = bytearray(intact)
    flipped[len(intact) // 2] ^= 1
    for content in (bytes(flipped), intact[:-100], intact[:1000], b"", b"not an archive"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a NumPy archive"):
            npz.load(tmp_path)
    np.save(tmp_path / "b.npy", pixels(9, 8, 8))
    (tmp_path / "b.npy").rename(path)
    with pytest.raises(DataError, match="cannot be read as a NumPy archive"):
        npz.load(tmp_path)


@pytest.mark.parametrize("options", [{}, {"path": "a.npz"}, {"path": "a", "side": 8, "channels": 2}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NpzOptions(**options)


def test_sizes_and_fingerprint_are_read_once_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    data = save(tmp_path / "a.npz", train=pixels(30, 8, 8))
    reads: list[Path] = []
    load = Npz.load
    monkeypatch.setattr(Npz, "load", lambda self, root: reads.append(root) or load(self, root))
    sizes, fingerprint = data.sizes(tmp_path), data.fingerprint(tmp_path)
    assert data.sizes(tmp_path) == sizes == Sizes(*(len(part) for part in _splits(load(data, tmp_path))))
    assert len(reads) == 1
    assert dataset(tmp_path / "a.npz").fingerprint(tmp_path) == fingerprint
    assert len(reads) == 1
    save(tmp_path / "a.npz", train=pixels(40, 8, 8))
    assert data.fingerprint(tmp_path) != fingerprint
    assert sum((data.sizes(tmp_path).train, data.sizes(tmp_path).test)) == 40
    assert len(reads) == 2
    with pytest.raises(DataError, match="the options say"):
        dataset(tmp_path / "a.npz", side=16).sizes(tmp_path)
    for file in cache.iterdir():
        file.write_text("{")
    assert data.sizes(tmp_path).train > 20
    assert len(reads) == 4  # the other side's attempt, and this one


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "file"))
    assert save(tmp_path / "a.npz", train=pixels(30, 8, 8)).fingerprint(tmp_path).startswith("sha256:")
    assert "it will be read again" in caplog.text


def _splits(images: Any) -> tuple[Any, Any]:
    return images.train, images.test
