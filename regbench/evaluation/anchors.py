"""Sanity anchors of a data set: what a model must beat. No torch.

Shape suffixes: N images, P values of one image (channels x height x width), K components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_PCA = 12_288
"""Values of an image (64 x 64 in colour) up to which principal components are computed."""
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Anchors:
    """Errors of the two simplest reconstructions, fitted on training images and measured on test images."""

    mean_image_mse: float
    """Reconstruct every image as the mean training image."""
    pca_mse: float | None
    """Project on the first principal components of the training images; ``None`` for images of more than 12,288
    values, whose covariance would take more than a gigabyte."""
    pca_mse_clipped: float | None
    """The same, its pixel values clipped to [0, 1]."""
    pca_components: int
    """Number of components: the latent size, or all there are where that is fewer."""
    pixel_entropy: float
    """Mean over test images of H(x), the floor of the binary cross-entropy, in nats summed over an image."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compute_anchors(train: NDArray[np.uint8], test: NDArray[np.uint8], components: int) -> Anchors:
    """Anchors of uint8 images of shape (N, C, H, W) for ``components`` latent units.

    Principal components are the leading eigenvectors of the training covariance. Memory: a few float64
    matrices of P x P, and chunks of 64 MiB.
    """
    if train[0].size > LARGEST_PCA:
        return Anchors(mean_image_mse(train, test), None, None, 0, pixel_entropy(test))
    mean_P, vectors_PK = principal_components(train, components)
    pca_error = clipped_error = 0.0
    for x_NP in _chunks(test):
        centred_NP = x_NP - mean_P
        fitted_NP = (centred_NP @ vectors_PK) @ vectors_PK.T
        fitted_NP += mean_P
        pca_error += float(np.sum((fitted_NP - x_NP) ** 2))
        np.clip(fitted_NP, 0, 1, out=fitted_NP)
        clipped_error += float(np.sum((fitted_NP - x_NP) ** 2))
    return Anchors(
        mean_image_mse=mean_image_mse(train, test),
        pca_mse=pca_error / test.size,
        pca_mse_clipped=clipped_error / test.size,
        pca_components=vectors_PK.shape[1],
        pixel_entropy=pixel_entropy(test),
    )


def mean_image_mse(train: NDArray[np.uint8], test: NDArray[np.uint8]) -> float:
    """Test MSE of the mean training image, on [0, 1]; by itself, because it takes no time."""
    mean_P = sum(part.sum(0, dtype=np.int64) for part in _parts(train)) / (255 * len(train))
    return sum(float(np.sum((x_NP - mean_P) ** 2)) for x_NP in _chunks(test)) / test.size


def principal_components(
    images: NDArray[np.uint8], components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean image (P,) and leading principal directions (P, K) of images scaled to [0, 1].

    K is ``components``, or what N images of P values can have where that is fewer.
    """
    from scipy.linalg import eigh
    from scipy.linalg.blas import dsyrk

    count, values = len(images), images[0].size
    kept = max(1, min(components, values, count - 1))
    sum_P = np.zeros(values)
    products_PP = np.zeros((values, values), order="F")
    for x_NP in _chunks(images):
        sum_P += x_NP.sum(0)
        # The transpose of a C-ordered chunk is the Fortran-ordered matrix that BLAS wants: no copy is made.
        products_PP = dsyrk(1.0, x_NP.T, beta=1.0, c=products_PP, overwrite_c=1)
    mean_P = sum_P / count
    products_PP = dsyrk(-float(count), mean_P[:, None], beta=1.0, c=products_PP, overwrite_c=1)
    _, vectors_PK = eigh(
        products_PP,
        lower=False,
        overwrite_a=True,
        check_finite=False,
        subset_by_index=(values - kept, values - 1),
    )
    return mean_P, np.ascontiguousarray(vectors_PK[:, ::-1])


def pixel_entropy(images: NDArray[np.uint8]) -> float:
    """Mean entropy of an image's values taken as Bernoulli probabilities, in nats summed over the image."""
    from scipy.special import entr

    value = np.arange(256) / 255
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in _parts(images))
    return float(counts @ (entr(value) + entr(1 - value)) / len(images))


def _parts(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    rows = max(1, _CHUNK_BYTES // (8 * images[0].size))
    for start in range(0, len(images), rows):
        yield images[start : start + rows].reshape(-1, images[0].size)


def _chunks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.float64]]:
    for part in _parts(images):
        yield part / 255.0
