from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from regbench.data import folder as folder_module
from regbench.data.base import ImageShape, Sizes
from regbench.data.folder import Folder, FolderOptions
from regbench.data.split import hashed_test, prepare
from regbench.errors import DataError

SIDE = 8


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folder"


def pixels(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write(path: Path, array: NDArray[np.uint8], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def folder(top: Path, **options: Any) -> Folder:
    return Folder(FolderOptions(**{"path": top, "side": SIDE, **options}))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """train/ and test/ with two classes; image i is ``pixels(i)``."""
    top = tmp_path / "tree"
    for index, key in enumerate(
        ("train/cat/b.png", "train/cat/a.png", "train/ant/x/deep.PNG", "test/cat/c.png", "test/ant/d.bmp")
    ):
        write(top / key, pixels(index))
    return top


def test_split_layout(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("passed over")
    (tree / "train" / ".hidden").mkdir()
    (tree / "train" / "cat" / "._a.png").write_bytes(b"passed over")
    images = folder(tree).load(tmp_path)
    assert images.classes == ("ant", "cat")
    # In the order of their paths.
    assert images.train_labels.tolist() == [0, 1, 1]
    assert images.test_labels.tolist() == [0, 1]
    for found, seed in ((images.train, (2, 1, 0)), (images.test, (4, 3))):
        expected = np.stack([pixels(i).transpose(2, 0, 1) for i in seed])
        np.testing.assert_array_equal(found, expected)
    assert folder(tree).sizes(tmp_path) == Sizes(3, 2)
    assert folder(tree).shape == ImageShape(3, SIDE)
    assert folder(tree).check(tmp_path) == []


def test_single_layout_takes_a_hashed_fifth_for_test(tmp_path: Path) -> None:
    keys = sorted(f"{name}/{index}.png" for name in ("ant", "cat") for index in range(30))
    for index, key in enumerate(keys):
        write(tmp_path / "tree" / key, np.full((SIDE, SIDE, 3), index, dtype=np.uint8))
    dataset = folder(tmp_path / "tree", layout="single", channels=1)
    images = dataset.load(tmp_path)
    mask = hashed_test(keys)
    assert images.train[:, 0, 0, 0].tolist() == np.flatnonzero(~mask).tolist()
    assert images.test[:, 0, 0, 0].tolist() == np.flatnonzero(mask).tolist()
    assert images.train_labels.tolist() == [int(keys[i][0] == "c") for i in np.flatnonzero(~mask)]
    assert dataset.sizes(tmp_path) == Sizes(48, 12)
    prepare(images)


def test_unlabelled_tree(tmp_path: Path) -> None:
    for index in range(20):
        write(tmp_path / "tree" / f"{index}.png", pixels(index))
    images = folder(tmp_path / "tree", layout="single").load(tmp_path)
    assert images.classes == ()
    assert set(images.train_labels.tolist()) == {-1}
    prepare(images)
    # The decoded copy knows it too.
    assert folder(tmp_path / "tree", layout="single").load(tmp_path).classes == ()


def test_relative_paths_start_at_the_data_directory(tree: Path, tmp_path: Path) -> None:
    images = folder(Path("tree")).load(tmp_path)
    np.testing.assert_array_equal(images.train, folder(tree).load(Path("/nowhere")).train)


# --- decoding


def decoded(array_or_path: Path, root: Path, **options: Any) -> NDArray[np.uint8]:
    """The only image of a tree, as (C, H, W)."""
    images = folder(array_or_path, layout="single", **options).load(root)
    assert len(images.train) == 1
    return images.train[0]


def test_grey_and_colour(tmp_path: Path) -> None:
    colour = pixels(0)
    write(tmp_path / "a" / "x.png", colour)
    grey = decoded(tmp_path / "a", tmp_path, channels=1)
    # ITU-R 601-2 luma, as PIL documents it.
    luma = colour @ np.array([299, 587, 114]) / 1000
    assert grey.shape == (1, SIDE, SIDE)
    assert np.abs(grey[0] - luma).max() <= 1
    write(tmp_path / "b" / "x.png", colour[..., 0])
    np.testing.assert_array_equal(decoded(tmp_path / "b", tmp_path), np.stack([colour[..., 0]] * 3))


def test_the_central_square_is_resized(tmp_path: Path) -> None:
    wide = np.zeros((32, 64, 3), dtype=np.uint8)
    wide[:, 16:48] = 200  # exactly the central square
    write(tmp_path / "wide" / "x.png", wide)
    assert (decoded(tmp_path / "wide", tmp_path) == 200).all()
    write(tmp_path / "tall" / "x.png", wide.transpose(1, 0, 2).copy())
    assert (decoded(tmp_path / "tall", tmp_path) == 200).all()


def test_shrinking_averages_rather_than_picks(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    write(tmp_path / "a" / "x.png", board)
    shrunk = decoded(tmp_path / "a", tmp_path, channels=1)
    assert np.abs(shrunk.astype(int) - 127).max() <= 3


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    upright = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    upright[: SIDE // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    write(tmp_path / "a" / "x.png", upright[::-1, ::-1].copy(), exif=exif)
    np.testing.assert_array_equal(decoded(tmp_path / "a", tmp_path), upright.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_images_are_refused_rather_than_clipped(dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.tif"
    write(path, np.full((SIDE, SIDE), 1000, dtype=dtype))
    with pytest.raises(DataError, match="more than 8 bits") as caught:
        folder(tmp_path / "a", layout="single").load(tmp_path)
    assert str(path) in str(caught.value)


# --- faults


def test_every_unreadable_image_is_named(tree: Path, tmp_path: Path) -> None:
    good = (tree / "train/cat/a.png").read_bytes()
    broken = {
        "train/ant/empty.png": b"",
        "train/cat/cut.png": good[: len(good) // 2],
        "train/cat/nonsense.jpg": b"this is no picture",
        "test/cat/c.png": good[:40],
    }
    for key, content in broken.items():
        (tree / key).write_bytes(content)
    problems = folder(tree).check(tmp_path)
    assert len(problems) == len(broken)
    with pytest.raises(DataError) as caught:
        folder(tree).load(tmp_path)
    for key in broken:
        assert any(str(tree / key) in problem for problem in problems)
        assert str(tree / key) in str(caught.value)
    with pytest.raises(DataError):
        folder(tree).fingerprint(tmp_path)


def test_a_long_list_of_unreadable_images_is_cut(tmp_path: Path) -> None:
    for index in range(25):
        path = tmp_path / "tree" / "a" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"\.\.\. and 15 more"):
        folder(tmp_path / "tree", layout="single").load(tmp_path)


def test_wrong_trees(tree: Path, tmp_path: Path) -> None:
    def problem(path: Path, **options: Any) -> str:
        dataset = folder(path, **options)
        with pytest.raises(DataError) as caught:
            dataset.load(tmp_path)
        with pytest.raises(DataError):
            dataset.sizes(tmp_path)
        (listed,) = dataset.check(tmp_path)
        assert str(caught.value) in listed
        return listed

    assert f"{tmp_path / 'nowhere'} is not a directory" in problem(tmp_path / "nowhere")
    without_split = problem(tree / "train")
    assert f"{tree / 'train' / 'train'} is missing" in without_split
    assert 'layout = "single"' in without_split
    write(tree / "test" / "dog" / "e.png", pixels(9))
    assert "has classes that" in problem(tree)
    assert "dog" in problem(tree)
    shutil.rmtree(tree / "test" / "dog")
    write(tree / "train" / "stray.png", pixels(9))
    assert f"{tree / 'train' / 'stray.png'} is in no class directory" in problem(tree)
    (tmp_path / "empty").mkdir()
    assert "has no images in it" in problem(tmp_path / "empty", layout="single")


def test_nothing_to_fetch(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to download"):
        folder(tree).fetch(tmp_path)
    assert folder(tree).mend(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [{"path": None}, {"side": 2}, {"side": None}, {"channels": 4}, {"layout": "flat"}, {"size": 32}],
)
def test_options_are_checked(change: dict[str, Any]) -> None:
    options = {"path": "x", "side": 32} | change
    with pytest.raises(ValidationError):
        FolderOptions(**{key: value for key, value in options.items() if value is not None})


# --- fingerprint and decoded copy


def test_fingerprint_follows_the_images_not_their_place(tree: Path, tmp_path: Path) -> None:
    first = folder(tree).fingerprint(tmp_path)
    moved = tree.rename(tmp_path / "moved")
    assert folder(moved).fingerprint(tmp_path) == first
    assert folder(moved, channels=1).fingerprint(tmp_path) != first
    assert folder(moved, side=4).fingerprint(tmp_path) != first
    write(moved / "train/cat/a.png", pixels(77))
    assert folder(moved).fingerprint(tmp_path) != first


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by every file that is decoded."""
    done: list[Path] = []
    original = folder_module._decode_file

    def counted(path: Path, channels: int, side: int) -> NDArray[np.uint8]:
        done.append(path)
        return original(path, channels, side)

    monkeypatch.setattr(folder_module, "_decode_file", counted)
    return done


def test_images_are_decoded_once(tree: Path, tmp_path: Path, decodings: list[Path]) -> None:
    fingerprint = folder(tree).fingerprint(tmp_path)
    assert len(decodings) == 5
    images = folder(tree).load(tmp_path)
    assert folder(tree).check(tmp_path) == []
    assert folder(tree).fingerprint(tmp_path) == fingerprint
    assert len(decodings) == 5
    shutil.rmtree(tmp_path / "cache")
    fresh = folder(tree).load(tmp_path)
    assert len(decodings) == 10
    for name in ("train", "train_labels", "test", "test_labels"):
        np.testing.assert_array_equal(getattr(images, name), getattr(fresh, name))
        assert getattr(images, name).dtype == getattr(fresh, name).dtype
    assert images.classes == fresh.classes


def test_changed_trees_are_decoded_again_and_old_copies_do_not_pile_up(
    tree: Path, tmp_path: Path, cache: Path, decodings: list[Path]
) -> None:
    dataset = folder(tree)
    dataset.load(tmp_path)
    write(tree / "train/cat/a.png", pixels(77))
    changed = dataset.load(tmp_path)
    np.testing.assert_array_equal(changed.train[1], pixels(77).transpose(2, 0, 1))
    write(tree / "train/cat/new.png", pixels(78))
    assert len(dataset.load(tmp_path).train) == 4
    (tree / "train/cat/new.png").unlink()
    assert len(dataset.load(tmp_path).train) == 3
    assert len(decodings) == 5 + 5 + 6 + 5
    assert len(list(cache.iterdir())) == 1


def test_what_check_decoded_is_kept(tree: Path, tmp_path: Path, decodings: list[Path]) -> None:
    good = (tree / "test/cat/c.png").read_bytes()
    (tree / "test/cat/c.png").write_bytes(good[:-40])
    assert len(folder(tree).check(tmp_path)) == 1
    assert len(folder(tree).check(tmp_path)) == 1
    (tree / "test/cat/c.png").write_bytes(good)
    assert folder(tree).check(tmp_path) == []
    assert len(decodings) == 3 * 5
    np.testing.assert_array_equal(folder(tree).load(tmp_path).test[0], pixels(4).transpose(2, 0, 1))
    assert len(decodings) == 3 * 5


def test_a_damaged_copy_is_decoded_again(
    tree: Path, tmp_path: Path, cache: Path, decodings: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    dataset = folder(tree)
    images = dataset.load(tmp_path)
    (copy,) = cache.iterdir()
    intact = copy.read_bytes()
    start = intact.index(images.train.tobytes())
    flipped = bytearray(intact)
    flipped[start + 10] ^= 1
    for number, content in enumerate((bytes(flipped), intact[:-50], intact[:100], b"", b"nonsense"), 2):
        copy.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(dataset.load(tmp_path).train, images.train)
        assert len(decodings) == 5 * number
        assert "damaged" in caplog.text
        caplog.clear()
        assert copy.read_bytes() != content


def test_a_cache_that_cannot_be_written_is_a_warning(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert len(folder(tree).load(tmp_path).train) == 3
        assert folder(tree).fingerprint(tmp_path).startswith("sha256:")
    assert "cannot keep decoded images" in caplog.text
