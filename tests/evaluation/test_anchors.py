"""The anchors against scikit-learn's PCA and plain numpy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from regbench.evaluation import anchors as module
from regbench.evaluation.anchors import compute_anchors, pixel_entropy, principal_components
from tests.evaluation.models import random_array


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = (load_digits().images * (255 / 16)).round().astype(np.uint8)[:, None]
    return images[:1400], images[1400:]


def flat(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    return images.reshape(len(images), -1) / 255.0


@pytest.mark.parametrize("components", [1, 10, 40])
@pytest.mark.parametrize("chunk_bytes", [1 << 26, 100_000])
def test_against_scikit_learn(
    digits: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    components: int,
    chunk_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk_bytes)
    train, test = digits
    found = compute_anchors(train, test, components)
    x = flat(test)
    assert found.mean_image_mse == pytest.approx(((x - flat(train).mean(0)) ** 2).mean(), rel=1e-10)
    pca = PCA(components, svd_solver="full").fit(flat(train))
    fitted = pca.inverse_transform(pca.transform(x))
    assert found.pca_mse == pytest.approx(((fitted - x) ** 2).mean(), rel=1e-9)
    assert found.pca_mse_clipped == pytest.approx(((fitted.clip(0, 1) - x) ** 2).mean(), rel=1e-9)
    assert found.pca_mse_clipped < found.pca_mse < found.mean_image_mse
    assert found.pca_components == components


def test_directions_are_scikit_learns_up_to_sign(digits: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    train, _ = digits
    mean, directions = principal_components(train, 5)
    expected = PCA(5, svd_solver="full").fit(flat(train))
    np.testing.assert_allclose(mean, expected.mean_, atol=1e-12)
    np.testing.assert_allclose(np.abs(expected.components_ @ directions), np.eye(5), atol=1e-8)


def test_colour_images_and_more_components_than_there_are() -> None:
    train, test = random_array(20, side=4, channels=3, seed=0), random_array(7, side=4, channels=3, seed=1)
    found = compute_anchors(train, test, 256)
    assert found.pca_components == 19
    pca = PCA(19, svd_solver="full").fit(flat(train))
    fitted = pca.inverse_transform(pca.transform(flat(test)))
    assert found.pca_mse == pytest.approx(((fitted - flat(test)) ** 2).mean(), rel=1e-8)
    every = compute_anchors(random_array(200, side=4, channels=3), test, 256)
    assert every.pca_components == 48
    assert every.pca_mse == pytest.approx(0, abs=1e-20)


def test_pixel_entropy_is_in_nats_summed_over_an_image() -> None:
    images = random_array(9, side=4, channels=3)
    p = images.reshape(9, -1) / 255
    expected = entropy([p, 1 - p], axis=0).sum(1).mean()
    assert pixel_entropy(images) == pytest.approx(expected, rel=1e-12)
    assert pixel_entropy(np.array([0, 255], dtype=np.uint8).reshape(1, 1, 1, 2)) == 0


def test_the_record_has_the_stores_names(digits: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    record = compute_anchors(*digits, 3).as_dict()
    assert list(record) == ["mean_image_mse", "pca_mse", "pca_mse_clipped", "pca_components", "pixel_entropy"]
    assert all(type(value) in (float, int) for value in record.values())


def test_anchors_and_selection_need_no_torch() -> None:
    code = (
        "import sys\n"
        "import regbench.evaluation.anchors, regbench.evaluation.selection\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
