from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from regbench import ops


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 9), st.floats(0, 4))
def test_kl_is_that_of_torch_distributions(seed: int, batch: int, dim: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mu, logvar = (spread * torch.randn(batch, dim, generator=generator) for _ in range(2))
    q = Normal(mu.double(), torch.exp(0.5 * logvar.double()))
    expected = kl_divergence(q, Normal(torch.zeros_like(mu.double()), 1.0)).sum(1).mean()
    found = ops.kl_to_standard_normal(mu, logvar)
    assert found.shape == ()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_kl_closed_forms() -> None:
    zero = torch.zeros(3, 5)
    assert ops.kl_to_standard_normal(zero, zero) == 0
    # 0.5 |mu|^2 for a unit variance, whatever the batch: summed over units, mean over the batch.
    assert ops.kl_to_standard_normal(torch.full((3, 5), 2.0), zero) == pytest.approx(10.0)


def test_kl_keeps_its_digits_near_the_prior() -> None:
    logvar = torch.full((1, 1), 1e-3)
    expected = 0.5 * (torch.exp(logvar.double()) - 1 - logvar.double()).item()
    assert ops.kl_to_standard_normal(torch.zeros(1, 1), logvar).item() == pytest.approx(expected, rel=1e-3)


def test_reparameterize_has_the_right_moments_and_gradients() -> None:
    torch.manual_seed(0)
    mu = torch.tensor([[1.0, -2.0]]).repeat(200_000, 1).requires_grad_()
    logvar = torch.tensor([[0.0, 2.0]]).repeat(200_000, 1).requires_grad_()
    z = ops.reparameterize(mu, logvar)
    torch.testing.assert_close(z.mean(0), torch.tensor([1.0, -2.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), torch.exp(torch.tensor([0.0, 2.0])), atol=0, rtol=0.02)
    for_mu, for_logvar = torch.autograd.grad(z.sum(), [mu, logvar])
    assert (for_mu == 1).all()
    torch.testing.assert_close(for_logvar, 0.5 * (z - mu).detach(), atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
def test_log_densities_are_those_of_torch_distributions(seed: int, batch: int, count: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, mu, logvar = (3 * torch.randn(rows, dim, generator=generator) for rows in (batch, count, count))
    each = Normal(mu.double(), torch.exp(0.5 * logvar.double()))
    expected = each.log_prob(z.double()[:, None]).sum(-1)
    torch.testing.assert_close(
        ops.normal_log_densities(z, mu, logvar).double(), expected, rtol=1e-6, atol=1e-5
    )


def test_log_densities_keep_their_digits_where_variances_are_small() -> None:
    mu = 100 + torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    found = ops.normal_log_densities(mu, mu, torch.full_like(mu, -6.0))
    assert found.item() == pytest.approx(-0.5 * 256 * (math.log(2 * math.pi) - 6.0), rel=1e-5)
