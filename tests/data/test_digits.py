from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.transform
from sklearn.datasets import load_digits

from regbench.data.base import Images
from regbench.data.digits import Digits
from regbench.data.split import hashed_test, prepare


@pytest.fixture(scope="module")
def images() -> Images:
    return Digits().load(Path("unused"))


def test_sizes_are_known_beforehand(images: Images, tmp_path: Path) -> None:
    sizes = Digits().sizes(tmp_path)
    assert (len(images.train), len(images.test)) == (sizes.train, sizes.test) == (1438, 359)
    assert images.train.shape[1:] == images.test.shape[1:] == (1, 16, 16)
    assert images.classes == tuple("0123456789")
    assert (Digits().shape.channels, Digits().shape.side) == (1, 16)


def test_pixels_and_labels_against_scikit_image(images: Images) -> None:
    source = load_digits()
    mask = hashed_test([str(index) for index in range(1797)])
    np.testing.assert_array_equal(images.train_labels, source.target[~mask])
    np.testing.assert_array_equal(images.test_labels, source.target[mask])
    for found, small in ((images.train, source.images[~mask]), (images.test, source.images[mask])):
        for ours, original in zip(found[::50, 0], small[::50], strict=True):
            reference = skimage.transform.resize(original * (255 / 16), (16, 16), order=1, mode="edge")
            assert np.abs(ours - reference).max() <= 1  # two roundings to whole grey levels
    assert (images.train.min(), images.train.max()) == (0, 255)


def test_needs_no_files(tmp_path: Path) -> None:
    digits = Digits()
    digits.fetch(tmp_path)
    assert digits.check(tmp_path) == []
    assert digits.files(tmp_path) == ()
    assert digits.fingerprint(tmp_path) == Digits().fingerprint(tmp_path / "elsewhere")
    assert not any(tmp_path.iterdir())


def test_splits_for_a_suite(images: Images) -> None:
    split = prepare(images)
    assert (len(split.train), len(split.heldout), len(split.test)) == (1295, 143, 359)
    for labels in (split.train_labels, split.heldout_labels, split.test_labels):
        assert set(labels.tolist()) == set(range(10))
