from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import regbench
from regbench import Dims, Model
from regbench.model import build_model
from regbench.nets import NetShape
from regbench.testing import assert_conforms, train
from regbench_vq import VQVAE
from regbench_vq.vq_vae import IndexPrior, perplexity

DIMS = Dims(latent=6, features=4, channels=1, side=8)


def quantizer(dims: Dims = DIMS, **options: Any) -> VQVAE:
    """A method whose codebook is already in use."""
    method = VQVAE(VQVAE.Options(**{"codes": 5, "token_units": 2, "prior_units": 8, **options}), dims)
    method.seeded.fill_(True)
    return method


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


@pytest.fixture
def small() -> Callable[..., Model]:
    """A model with 4 latent units for 8 x 8 images."""
    shape = NetShape(channels=1, side=8, latent=4, features=6, widths=(4,))
    return lambda method, **options: build_model(shape, method, options, seed=1)


@pytest.mark.parametrize(
    "options",
    [{}, {"codes": 16, "token_units": 3, "reseed_below": 1.0}, {"commitment": 0.0, "prior_epochs": 1}],
)
def test_conforms(options: dict[str, Any]) -> None:
    assert_conforms(VQVAE, **options)


@pytest.mark.parametrize(("latent", "units", "tokens"), [(256, 16, 16), (64, 16, 4), (12, 4, 3), (7, 1, 7)])
def test_a_code_is_a_row_of_tokens_at_every_latent_size(latent: int, units: int, tokens: int) -> None:
    method = VQVAE(VQVAE.Options(codes=8), Dims(latent=latent, features=4, channels=1, side=8))
    assert (method.units, method.tokens) == (units, tokens)
    assert method.sample(3).shape == (3, latent)


def test_tokens_that_do_not_fill_the_code_are_refused_with_what_would() -> None:
    with pytest.raises(
        regbench.RegbenchError, match="token_units = 4: expected a divisor of latent = 6: 1, 2, 3, 6"
    ):
        quantizer(token_units=4)


def test_quantizes_and_charges_as_a_loop_over_tokens_and_entries_does() -> None:
    method = quantizer(commitment=0.3)
    code_BD = torch.randn(7, 6)
    z_BD, terms = method(code_BD, torch.zeros(7, 4))
    total = 0.0
    for code, z in zip(code_BD.double(), z_BD, strict=True):
        for token in range(3):
            part = slice(2 * token, 2 * token + 2)
            distances = [float(((code[part] - e.double()) ** 2).sum()) for e in method.codebook_KE]
            best = min(range(5), key=distances.__getitem__)
            assert torch.equal(z[part], method.codebook_KE[best])
            total += distances[best]
    assert terms["commitment"].item() == pytest.approx(0.3 * total / 7, rel=1e-5)


def test_gradients_pass_straight_through_and_commitment_alone_reaches_the_code_beside_them() -> None:
    method = quantizer(commitment=0.25)
    code_BD = torch.randn(4, 6, requires_grad=True)
    z_BD, terms = method(code_BD, torch.zeros(4, 4))
    wanted_BD = torch.randn(4, 6)
    (through_BD,) = torch.autograd.grad((z_BD * wanted_BD).sum(), code_BD, retain_graph=True)
    torch.testing.assert_close(through_BD, wanted_BD)
    (pulled_BD,) = torch.autograd.grad(terms["commitment"], code_BD)
    torch.testing.assert_close(pulled_BD, 0.25 * 2 * (code_BD - z_BD).detach() / 4)
    assert not method.codebook_KE.requires_grad


def test_the_codebook_follows_the_moving_average_of_its_tokens() -> None:
    method = quantizer(decay=0.9)
    counts = [1.0] * 5
    sums = method.codebook_KE.double().tolist()
    for _ in range(3):
        token_JE = torch.randn(12, 2)
        k_J = method.nearest(token_JE)
        method.move_codebook(token_JE, torch.nn.functional.one_hot(k_J, 5).float())
        for k in range(5):
            mine = [token.tolist() for token, i in zip(token_JE, k_J.tolist(), strict=True) if i == k]
            counts[k] = 0.9 * counts[k] + 0.1 * len(mine)
            sums[k] = [0.9 * s + 0.1 * sum(m[e] for m in mine) for e, s in enumerate(sums[k])]
        total = sum(counts)
        for k in range(5):
            smoothed = (counts[k] + 1e-5) / (total + 5e-5) * total
            expected = torch.tensor([s / smoothed for s in sums[k]])
            torch.testing.assert_close(method.codebook_KE[k], expected, rtol=1e-4, atol=1e-5)


def test_dead_entries_start_again_at_tokens_of_the_batch() -> None:
    def after(reseed_below: float) -> torch.Tensor:
        torch.manual_seed(0)
        method = quantizer(reseed_below=reseed_below, decay=0.5)
        method.codebook_KE.copy_(100 + torch.arange(10.0).view(5, 2))
        method.codebook_KE[0].zero_()
        method.sums_KE.copy_(method.codebook_KE)
        for _ in range(8):
            token_JE = torch.randn(64, 2)
            chosen_JK = torch.nn.functional.one_hot(method.nearest(token_JE), 5).float()
            method.move_codebook(token_JE, chosen_JK)
        return method.codebook_KE.norm(dim=1)

    assert (after(0.0)[1:] > 50).all()
    assert (after(1.0) < 10).all()


def test_a_new_entry_is_one_token_counted_as_often_as_the_limit_says() -> None:
    method = quantizer(reseed_below=3.0, decay=0.5)
    token_JE = torch.randn(64, 2)
    method.move_codebook(token_JE, torch.eye(5)[[0]].expand(64, 5))  # all of them choose entry 0
    gaps_KJ = (method.codebook_KE[:, None] - token_JE).abs().amax(dim=2)
    assert (gaps_KJ[1:].amin(dim=1) < 1e-4).all()
    assert gaps_KJ[0].amin() > 1e-4
    assert method.counts_K.tolist() == pytest.approx([32.5, 3, 3, 3, 3])


def test_a_step_charges_the_old_codebook_and_then_moves_it_by_the_tokens_from_before_the_step(
    small: Callable[..., Model],
) -> None:
    """Sonnet's order: quantize, loss, moving averages; the tokens are those that the loss was computed from."""
    model = small(VQVAE, codes=5, token_units=2, commitment=0.3)
    method, x_BCHW = model.regularizer, torch.rand(6, 1, 8, 8)
    method.seeded.fill_(True)
    code_BD = model.features(x_BCHW)[0].detach()
    entries_KE = method.codebook_KE.clone()
    distances_BTK = (code_BD.view(6, 2, 1, 2).double() - entries_KE).square().sum(dim=3)
    k_BT = distances_BTK.argmin(dim=2)
    z_BD = entries_KE[k_BT].flatten(1)

    generator = method.steps(model, x_BCHW)
    update = next(generator)
    bce = (
        torch.nn.functional.binary_cross_entropy_with_logits(model.decode(z_BD), x_BCHW, reduction="sum") / 6
    )
    commitment = 0.3 * (code_BD - z_BD).square().sum().item() / 6
    assert update.loss.item() == pytest.approx(bce.item() + commitment, rel=1e-5)
    assert update.log["commitment"].item() == pytest.approx(commitment, rel=1e-5)
    used = [(k_BT == k).sum().item() / 12 for k in range(5)]
    assert update.log["perplexity"].item() == pytest.approx(math.prod(s**-s for s in used if s), rel=1e-5)

    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.mul_(3)  # the optimizer's step
    assert next(generator, None) is None
    expected = quantizer(Dims(latent=4, features=4, channels=1, side=8))
    expected.codebook_KE.copy_(entries_KE)
    expected.sums_KE.copy_(entries_KE)
    expected.move_codebook(code_BD.view(12, 2), torch.nn.functional.one_hot(k_BT.flatten(), 5).float())
    torch.testing.assert_close(method.codebook_KE, expected.codebook_KE)
    assert not torch.equal(method.codebook_KE, entries_KE)


def test_smoothing_adds_epsilon_to_every_count_and_keeps_their_sum() -> None:
    method = quantizer(decay=0.5)
    method.counts_K.copy_(2e-5 * torch.tensor([1.0, 2.0, 0.0, 4.0, 3.0]))
    method.sums_KE.fill_(2.0)
    method.move_codebook(torch.zeros(1, 2), torch.zeros(1, 5))
    for entry_E, count in zip(method.codebook_KE, (1e-5, 2e-5, 0.0, 4e-5, 3e-5), strict=True):
        smoothed = (count + 1e-5) / (1e-4 + 5e-5) * 1e-4
        assert entry_E.tolist() == pytest.approx([1 / smoothed] * 2, rel=1e-4)


def test_an_entry_that_is_not_chosen_keeps_its_place_until_its_count_is_as_small_as_epsilon() -> None:
    method = quantizer(decay=0.9)
    method.codebook_KE[4] = method.sums_KE[4] = 1e4
    token_JE = torch.zeros(1, 2)
    for batches, share in ((50, 0.9**50 / (0.9**50 + 1e-5)), (100, 0.9**150 / (0.9**150 + 1e-5))):
        for _ in range(batches):
            method.move_codebook(token_JE, torch.eye(5)[[0]])
        assert method.codebook_KE[4, 0].item() == pytest.approx(1e4 * share, rel=1e-3)


def test_the_codebook_starts_at_tokens_of_training_images_each_counted_once(
    small: Callable[..., Model],
) -> None:
    model = small(VQVAE, codes=40, token_units=2)
    method, x_BCHW = model.regularizer, torch.rand(10, 1, 8, 8)
    with torch.no_grad():
        method.on_regularization_start(model, iter(x_BCHW.split(4)))
        token_JE = model.features(x_BCHW)[0].view(-1, 2)
    gaps_KJ = (method.codebook_KE[:, None] - token_JE).norm(dim=2)
    assert gaps_KJ.amin(dim=1).max() < 0.01 * token_JE.std()
    assert len(set(gaps_KJ.argmin(dim=1).tolist())) > 5  # not one token for all of them
    assert len(method.codebook_KE.unique(dim=0)) == 40  # 40 of 20 tokens: none is the same entry twice
    assert torch.equal(method.counts_K, torch.ones(40))
    assert torch.equal(method.sums_KE, method.codebook_KE)
    assert method.seeded


def test_perplexity_counts_the_entries_in_use() -> None:
    one, all_four = torch.eye(4)[[2, 2, 2, 2]], torch.eye(4)[[0, 1, 2, 3]]
    assert perplexity(one).item() == pytest.approx(1)
    assert perplexity(all_four).item() == pytest.approx(4)


def test_the_warm_up_is_not_quantized() -> None:
    method = quantizer()
    method.seeded.fill_(False)
    code_BD = torch.randn(3, 6)
    assert torch.equal(method(code_BD, torch.zeros(3, 4))[0], code_BD)


def every_row(prior: IndexPrior) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows of four indices below 3, and the prior's probability of each."""
    rows_RT = torch.cartesian_prod(*[torch.arange(3)] * 4)
    with torch.no_grad():
        return rows_RT, torch.stack([torch.exp(-4 * prior.nats(row_T[None])) for row_T in rows_RT])


def test_the_prior_learns_what_depends_on_the_index_before() -> None:
    """A chain: the first index uniform on 0..2, each next one by 1 or by 2 higher, modulo 3, with odds 3 to 1."""
    first_N, steps_NT = torch.randint(3, (2000, 1)), 1 + (torch.rand(2000, 3) < 0.25).long()
    k_NT = torch.cat([first_N, steps_NT], dim=1).cumsum(dim=1) % 3
    prior = IndexPrior(3, 16)
    prior.fit(k_NT, epochs=6, batch=50, lr=5e-3)
    entropy = (math.log(3) + 3 * (-0.75 * math.log(0.75) - 0.25 * math.log(0.25))) / 4
    with torch.no_grad():
        assert prior.nats(k_NT).item() == pytest.approx(entropy, abs=0.03)


def test_the_prior_samples_each_row_as_often_as_its_probability_says() -> None:
    prior = IndexPrior(3, 8)
    with torch.no_grad():
        prior.head.weight.mul_(8)  # far from uniform
    rows_RT, shares_R = every_row(prior)
    assert shares_R.sum().item() == pytest.approx(1, rel=1e-5)
    assert shares_R.max() > 5 * shares_R.mean()
    place_T = torch.tensor([27, 9, 3, 1])
    found_R = torch.bincount(prior.sample(50_000, 4) @ place_T, minlength=81) / 50_000
    assert torch.equal(rows_RT @ place_T, torch.arange(81))
    torch.testing.assert_close(found_R, shares_R, atol=0.006, rtol=0)


def test_the_prior_s_probabilities_are_those_of_its_recurrence_index_by_index() -> None:
    prior = IndexPrior(3, 8)
    with torch.no_grad():
        state, nats = None, 0.0
        for before, k in ((3, 2), (2, 0), (0, 1)):  # 3 stands before the first
            logits_11K, state = prior.logits(torch.tensor([[before]]), state)
            nats -= logits_11K[0, 0].log_softmax(dim=0)[k].item()
        assert prior.nats(torch.tensor([[2, 0, 1]])).item() == pytest.approx(nats / 3, rel=1e-5)


def test_samples_are_the_codebook_entries_of_rows_drawn_from_the_prior() -> None:
    method = quantizer()
    token_JE = method.sample(50).reshape(-1, 2)
    same_JK = (token_JE[:, None] == method.codebook_KE).all(dim=2)
    assert same_JK.any(dim=1).all()  # before it is trained, too
    method.indices_prior.fit(torch.tensor([[3, 0, 4]]).repeat(100, 1), epochs=60, batch=50, lr=0.1)
    assert torch.equal(method.sample(20), method.codebook_KE[[3, 0, 4]].flatten().repeat(20, 1))


def test_the_prior_begins_anew_each_time_it_is_fitted() -> None:
    prior, rows = IndexPrior(3, 8), []
    for _ in range(2):
        torch.manual_seed(5)
        prior.fit(torch.tensor([[0, 1], [2, 2]]), epochs=3, batch=1, lr=1e-2)
        rows.append([weight.detach().clone() for weight in prior.parameters()])
    assert all(torch.equal(first, again) for first, again in zip(*rows, strict=True))


def test_on_digits_most_of_the_codebook_is_in_use_and_the_prior_knows_which_indices_go_together() -> None:
    """32 entries, batches of 32 images with 4 tokens each: a perplexity above 20 in the last epoch.

    On held-out digits the prior is better than how often each index is found at each place.
    """
    trained = train(VQVAE, {"codes": 32, "token_units": 4, "prior_epochs": 15}, epochs=15)
    assert trained.history[-1]["log"]["perplexity"] > 20
    method = trained.model.regularizer
    k_NT, heldout_NT = (
        method.nearest(method.split(trained.codes(images))).view(-1, 4)
        for images in (trained.images_NCHW, trained.heldout_NCHW)
    )
    assert len(heldout_NT) == 1157
    with torch.no_grad():
        nats = method.indices_prior.nats(heldout_NT).item()
    counts_TK = torch.stack([torch.bincount(k_N, minlength=32) for k_N in k_NT.T]) + 0.5
    logs_TK = (counts_TK / counts_TK.sum(dim=1, keepdim=True)).log()
    by_place = -logs_TK.gather(1, heldout_NT.T).mean().item()
    assert nats < by_place - 0.1
