"""What the base class of regularizers gives to all methods."""

from __future__ import annotations

import torch

from regbench import Dims, Options, Regularizer


class Bare(Regularizer):
    """A method without a tensor of its own."""

    name = "bare"


DIMS = Dims(latent=3, features=4, channels=1, side=8)


def test_a_method_without_tensors_knows_where_it_is_and_holds_nothing() -> None:
    method = Bare(Options(), DIMS)
    assert method.device == torch.device("cpu")
    assert method.to("meta").device == torch.device("meta")
    assert method.state_dict() == {}
    assert list(method.parameters()) == []


def test_standard_normal_draws_are_on_its_device_and_of_unit_variance() -> None:
    method = Bare(Options(), DIMS)
    torch.manual_seed(0)
    z_ND = method.standard_normal(20_000)
    assert z_ND.shape == (20_000, 3)
    torch.testing.assert_close(torch.cov(z_ND.T), torch.eye(3), atol=0.05, rtol=0)
    torch.testing.assert_close(z_ND.mean(0), torch.zeros(3), atol=0.03, rtol=0)
    assert method.to("meta").standard_normal(5).device == torch.device("meta")
