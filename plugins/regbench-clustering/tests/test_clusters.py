"""What the methods share: sampling from a Gaussian per cluster, and centres that there are images for.

Shape suffixes: N images or samples, D latent units, K clusters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from regbench import Dims, Regularizer
from regbench.errors import PluginError
from regbench_clustering import IDEC, DeepKMeans, OTClustering, SeLa, SwAV

if TYPE_CHECKING:
    from conftest import Make

ALL = [IDEC, DeepKMeans, OTClustering, SeLa, SwAV]
CENTRES = [IDEC, DeepKMeans, OTClustering]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
def test_samples_are_those_of_a_gaussian_per_cluster_each_by_its_share(
    cls: type[Regularizer], make: Make, digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clusters of known moments, one of which is empty."""
    model = make(cls, clusters=3, latent=2)
    method = model.regularizer
    z_ND = torch.randn(4000, 2) @ torch.tensor([[1.0, 0.5], [0.0, 0.2]])
    z_ND[3000:] = torch.randn(1000, 2) * torch.tensor([0.5, 3.0]) + torch.tensor([9.0, -4.0])
    cluster_N = torch.zeros(4000, dtype=torch.int64)
    cluster_N[3000:] = 2
    monkeypatch.setattr(model, "codes", lambda batches: z_ND)
    monkeypatch.setattr(method, "assign", lambda z_ND: cluster_N)
    with torch.no_grad():
        method.on_training_end(model, digits.split(500))
        drawn_ND = method.sample(40_000)
        in_last_N = drawn_ND[:, 0] > 5
        assert in_last_N.double().mean().item() == pytest.approx(0.25, abs=0.01)
        for k, members_ND in ((0, z_ND[:3000]), (2, z_ND[3000:])):
            of_k_ND = method.sample_cluster(torch.full((40_000,), k))
            for sample_ND in (of_k_ND, drawn_ND[in_last_N == (k == 2)]):
                covariance_DD = torch.cov(members_ND.T)
                spread_D = covariance_DD.diagonal().sqrt()
                assert ((sample_ND.mean(0) - members_ND.mean(0)).abs() < 0.05 * spread_D).all()
                scale_DD = spread_D[:, None] * spread_D
                torch.testing.assert_close(
                    torch.cov(sample_ND.T) / scale_DD, covariance_DD / scale_DD, atol=0.05, rtol=0
                )
            centre_ND = method.sample_cluster(torch.tensor([k, k]), scale=0.0)
            torch.testing.assert_close(centre_ND, members_ND.mean(0).repeat(2, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", CENTRES, ids=lambda cls: cls.name)
def test_more_centres_than_images_are_refused(cls: type[Regularizer], make: Make) -> None:
    dims = Dims(latent=8, features=64, channels=1, side=8, images=9)
    assert list(cls.misfits(cls.Options(clusters=10), dims)) == ["clusters"]
    with pytest.raises(PluginError, match="clusters = 10: expected at most 9"):
        make(cls, images=9)
    make(cls, images=9, clusters=9)
    cls(cls.Options(), replace(dims, images=0))  # to evaluate, without images
