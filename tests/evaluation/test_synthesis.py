"""Samples around prototypes, and paths between codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench.api import Dims
from regbench.evaluation.evaluate import decode_codes, evaluate_reconstruction
from regbench.evaluation.latents import encode_images
from regbench.evaluation.metrics import MSE
from regbench.evaluation.synthesis import (
    SCALES,
    class_table,
    draw_around,
    interpolations,
    prototypes_of_classes,
    sample_agreement,
    synthesis_pictures,
)
from tests.evaluation.models import Plain, random_images, small_model


class Anchored(Plain):
    """Four prototypes on the axes, each with N(v, I)."""

    name = "anchored"

    def build(self, dims: Dims) -> None:
        self.prototypes_KD = 5 * torch.eye(4, dims.latent)

    def prototypes(self) -> Tensor:
        return self.prototypes_KD

    def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
        v_ND = self.prototypes_KD[k_N]
        return v_ND + scale * torch.randn_like(v_ND)


TABLE_KL = np.array([[5, 1, 0], [9, 2, 0], [3, 4, 0], [0, 0, 0]])
"""Class 0 is the majority of prototypes 0 and 1, class 1 of prototype 2, class 2 of none; prototype 3 is dead."""


def test_the_table_counts_images_of_each_class_in_each_cluster() -> None:
    table_KL = class_table(np.array([0, 0, 2, 2, 2]), np.array([1, 1, 0, 1, 1]), 4, 2)
    np.testing.assert_array_equal(table_KL, [[0, 2], [0, 0], [1, 2], [0, 0]])


def test_a_class_gets_the_prototype_that_holds_most_of_it_as_its_majority() -> None:
    np.testing.assert_array_equal(prototypes_of_classes(TABLE_KL), [1, 2, -1])
    # Prototype 0 holds most of class 1, but more of class 0.
    np.testing.assert_array_equal(prototypes_of_classes(np.array([[9, 8], [0, 1]])), [0, 1])
    np.testing.assert_array_equal(prototypes_of_classes(np.zeros((2, 3), dtype=np.int64)), [-1, -1, -1])


def test_scales_stretch_the_same_noise() -> None:
    model, k_N = small_model(Anchored), torch.tensor([0, 3, 3])
    centre, once, twice = (draw_around(model, k_N, s, seed=1, purpose="x") for s in (0.0, 1.0, 2.0))
    assert centre is not None
    assert once is not None
    assert twice is not None
    torch.testing.assert_close(centre, 5 * torch.eye(4, 6)[k_N])
    torch.testing.assert_close(twice - centre, 2 * (once - centre))
    assert not torch.equal(once[1], once[2])


def test_pictures_are_decoded_draws_around_the_chosen_prototypes() -> None:
    model = small_model(Anchored)
    found = synthesis_pictures(model, TABLE_KL, seed=1)
    np.testing.assert_array_equal(found["synthesis_prototypes"], [1, 2, -1])
    np.testing.assert_array_equal(found["synthesis_scales"], SCALES)
    assert found["synthesis"].shape == (3, 4, 4, 1, 16, 16)
    assert found["synthesis"].dtype == np.uint8
    assert not found["synthesis"][2].any(), "class 2 has no prototype"
    k_N = torch.tensor([1] * 4 + [2] * 4)
    for position, scale in enumerate(SCALES):
        z_ND = draw_around(model, k_N, scale, seed=1, purpose="synthesis")
        assert z_ND is not None
        expected = decode_codes(model, z_ND).reshape(2, 4, 1, 16, 16)
        np.testing.assert_array_equal(found["synthesis"][:2, position], expected)
    assert len(synthesis_pictures(model, np.eye(4, 30, dtype=np.int64), seed=1)["synthesis"]) == 10
    assert synthesis_pictures(model, np.zeros((4, 3), dtype=np.int64), seed=1)["synthesis"].shape[0] == 3
    assert synthesis_pictures(small_model(Plain), TABLE_KL, seed=1) == {}


@pytest.mark.parametrize(("answer", "share"), [(0, 2 / 3), (1, 1 / 3), (2, 0.0)])
def test_agreement_is_the_share_of_samples_that_pass_for_their_prototypes_majority(
    answer: int, share: float
) -> None:
    class Sure:
        """A classifier with one answer."""

        seen = 0

        def judge(self, images: NDArray[np.uint8]) -> tuple[None, NDArray[np.int64]]:
            Sure.seen = len(images)
            return None, np.full(len(images), answer)

    judge: Any = Sure()
    assert sample_agreement(small_model(Anchored), judge, TABLE_KL, seed=0) == pytest.approx(share)
    assert Sure.seen == 3 * 64, "the dead prototype has no majority"
    assert sample_agreement(small_model(Plain), judge, TABLE_KL, seed=0) is None


def test_paths_go_straight_from_one_reconstruction_to_another() -> None:
    model, images = small_model(Plain), random_images(40)
    codes_ND = encode_images(model, images).z_ND
    shown_N = np.arange(5, 35)
    found = interpolations(model, codes_ND, shown_N)
    pairs = found["interpolation_pairs"]
    assert found["interpolations"].shape == (6, 8, 1, 16, 16)
    assert pairs.shape == (6, 2)
    assert len(set(pairs.ravel().tolist())) == 12
    assert set(pairs.ravel()) <= set(shown_N)
    every = np.arange(40)
    kept = evaluate_reconstruction(model, images, [MSE()], sampling=False, seed=0, keep=every).kept_KCHW
    rebuilt = kept.astype(int)
    ends = found["interpolations"][:, [0, -1]].astype(int)
    assert np.abs(ends - rebuilt[pairs]).max() <= 1
    middle = torch.from_numpy(codes_ND[pairs[:, 0]] * 4 / 7 + codes_ND[pairs[:, 1]] * 3 / 7)
    assert np.abs(found["interpolations"][:, 3].astype(int) - decode_codes(model, middle)).max() <= 1


@pytest.mark.parametrize(("shown", "pairs"), [(1, 0), (2, 1), (5, 2)])
def test_few_shown_images_make_few_pairs(shown: int, pairs: int) -> None:
    model = small_model(Plain)
    found = interpolations(model, np.zeros((5, 6), dtype=np.float32), np.arange(shown))
    assert len(found.get("interpolation_pairs", ())) == pairs
