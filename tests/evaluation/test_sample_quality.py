"""Precision, recall, density and coverage against loops over the definitions; the Frechet distance against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from regbench.evaluation.sample_quality import RealFeatures, frechet_distance, neighbour_radii, sample_scores


def points(n: int, f: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((n, f)) + shift


def by_definition(real: NDArray[np.float64], fake: NDArray[np.float64], k: int = 5) -> dict[str, float]:
    """Naeem et al. (2020), eq. 1 to 4, one pair at a time."""

    def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.sqrt(((a - b) ** 2).sum()))

    def radius(of: NDArray[np.float64], i: int) -> float:
        return sorted(distance(of[i], of[j]) for j in range(len(of)) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, j) for j in range(len(fake))]
    inside = [[distance(y, x) <= r for x, r in zip(real, real_radii, strict=True)] for y in fake]
    covered = [[distance(y, x) <= r for y, r in zip(fake, fake_radii, strict=True)] for x in real]
    return {
        "precision": sum(any(row) for row in inside) / len(fake),
        "recall": sum(any(row) for row in covered) / len(real),
        "density": sum(sum(row) for row in inside) / (k * len(fake)),
        "coverage": sum(any(row[i] for row in inside) for i in range(len(real))) / len(real),
    }


@pytest.mark.parametrize(("n", "m", "shift"), [(40, 30, 0.0), (25, 50, 1.0), (30, 30, 3.0), (6, 6, 0.5)])
def test_scores_are_the_loops_over_the_definitions(n: int, m: int, shift: float) -> None:
    real, fake = points(n, 4, 0), points(m, 4, 1, shift)
    assert sample_scores(RealFeatures.of(real), fake) == pytest.approx(by_definition(real, fake))


def test_the_images_themselves_are_perfect_samples() -> None:
    real = points(50, 3, 0)
    found = sample_scores(RealFeatures.of(real), real)
    assert found is not None
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    # The ball of each of 50 points holds the point itself and five others.
    assert found["density"] == pytest.approx(6 / 5)


def test_one_good_image_many_times_is_precise_and_covers_nothing() -> None:
    real = points(60, 3, 0)
    found = sample_scores(RealFeatures.of(real), np.repeat(real[:1], 40, axis=0))
    assert found is not None
    assert found["precision"] == 1
    assert found["recall"] == pytest.approx(1 / 60)
    assert found["coverage"] < 0.3


def test_five_points_have_no_fifth_neighbour() -> None:
    assert neighbour_radii(points(5, 2, 0)) is None
    assert sample_scores(RealFeatures.of(points(5, 2, 0)), points(50, 2, 1)) is None
    assert sample_scores(RealFeatures.of(points(50, 2, 0)), points(5, 2, 1)) is None


@pytest.mark.parametrize("f", [1, 3, 20])
def test_frechet_distance_with_scipys_matrix_root(f: int) -> None:
    a, b = points(200, f, 0) * np.linspace(1, 3, f), points(150, f, 1, 0.5)
    s, t = (np.cov(z, rowvar=False).reshape(f, f) for z in (a, b))
    shift = a.mean(0) - b.mean(0)
    expected = shift @ shift + np.trace(s + t - 2 * np.real(sqrtm(s @ t)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_of_a_set_to_itself_and_to_its_translation() -> None:
    a = points(100, 5, 0)
    a[:, 3] = 0  # a dead feature makes the covariance singular
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(5 * 4)
    with pytest.raises(ValueError, match="two images each, not 1 and 100"):
        frechet_distance(a[:1], a)
