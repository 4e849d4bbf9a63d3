"""The shared network: its shapes, its cost, and its independence of the method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from regbench.errors import DeviceError
from regbench.model import build_model
from regbench.modes import threads
from regbench.nets import NetShape, SharedAutoencoder, decoder_widths, forward_flops
from regbench.plugins import registry
from regbench.seeding import derive


@pytest.mark.parametrize(
    ("channels", "side", "widths", "giga"), [(1, 28, (128, 256), 0.505), (3, 32, (64, 128, 256), 0.328)]
)
def test_cost_of_a_training_step_is_the_papers(
    channels: int, side: int, widths: tuple[int, ...], giga: float
) -> None:
    """Multiply-adds counted as two, per image, forward and backward."""
    net = SharedAutoencoder(NetShape(channels, side, 256, 256, widths))
    x_BCHW = torch.rand(2, channels, side, side)
    with FlopCounterMode(display=False) as counter:
        logits_BCHW = net.decoder(net.code(net.encoder(x_BCHW)))
        F.binary_cross_entropy_with_logits(logits_BCHW, x_BCHW).backward()  # type: ignore[no-untyped-call]
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(giga, abs=2e-3)


@pytest.mark.parametrize(
    "shape",
    [
        NetShape(1, 28, 256, 256, (128, 256)),
        NetShape(3, 32, 20, 30, (4, 8, 16), kernel=3),
        NetShape(1, 16, 5, 7, (8,), kernel=5),
    ],
)
def test_operations_are_counted_as_torch_counts_them(shape: NetShape) -> None:
    net = SharedAutoencoder(shape)
    x_BCHW = torch.rand(3, shape.channels, shape.side, shape.side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.decoder(net.code(net.encoder(x_BCHW)))
    assert counter.get_total_flops() == 3 * forward_flops(shape)


def test_small_nets_run_on_one_thread() -> None:
    before = torch.get_num_threads()
    with threads(torch.device("cpu"), 1e6):
        assert torch.get_num_threads() == 1
    with threads(torch.device("cpu"), 1e12):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    ("side", "widths"), [(28, (8, 16)), (32, (4, 8, 16)), (16, (8,)), (64, (4, 4, 4, 4))]
)
def test_reconstructions_have_the_images_shape(kernel: int, side: int, widths: tuple[int, ...]) -> None:
    net = SharedAutoencoder(NetShape(3, side, 5, 7, widths, kernel))
    h_BF = net.encoder(torch.rand(2, 3, side, side))
    assert h_BF.shape == (2, 7)
    assert bool((h_BF >= 0).all())
    assert net.decoder(net.code(h_BF)).shape == (2, 3, side, side)


def test_widths_of_the_decoder() -> None:
    assert decoder_widths((128, 256)) == (128, 64)
    assert decoder_widths((64, 128, 256)) == (128, 64, 64)


def test_the_bottleneck_relu_is_an_option() -> None:
    net = SharedAutoencoder(NetShape(1, 8, 4, 64, (4,), bottleneck_relu=False))
    assert bool((net.encoder(torch.rand(4, 1, 8, 8)) < 0).any())


def test_all_methods_of_a_seed_start_from_the_same_net() -> None:
    shape = NetShape(1, 8, 4, 8, (4,))
    states = [
        build_model(shape, plugin.cls, seed=5).net.state_dict() for plugin in registry().regularizers.values()
    ]
    for state in states[1:]:
        assert all(torch.equal(value, state[name]) for name, value in states[0].items())
    other = build_model(shape, registry().regularizers["ae"].cls, seed=6).net.state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in states[0].items())


def test_building_a_model_leaves_the_random_stream_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_model(NetShape(1, 8, 4, 8, (4,)), registry().regularizers["proto-vae"].cls, seed=5)
    assert torch.equal(torch.rand(3), expected)


@torch.no_grad()
def test_reconstruction_loss_is_summed_or_averaged() -> None:
    shape = NetShape(1, 8, 4, 8, (4,))
    method = registry().regularizers["ae"].cls
    summed, averaged = (build_model(shape, method, seed=5, loss_scale=scale) for scale in ("sum", "mean"))
    x_BCHW = torch.rand(6, 1, 8, 8)
    p = summed.decode(summed.encode(x_BCHW)).double().sigmoid()
    expected = -(x_BCHW * p.log() + (1 - x_BCHW) * (1 - p).log()).sum((1, 2, 3)).mean()
    assert float(summed.reconstruction_loss(summed.encode(x_BCHW), x_BCHW)) == pytest.approx(
        float(expected), rel=1e-5
    )
    assert float(averaged.reconstruction_loss(averaged.encode(x_BCHW), x_BCHW)) == pytest.approx(
        float(expected) / 64, rel=1e-5
    )


def test_seeds_are_stable_and_apart() -> None:
    assert derive(0, "weights") == 8454698744502178088
    assert len({derive(seed, purpose, n) for seed in range(10) for purpose in "ab" for n in range(10)}) == 200
    assert all(0 <= derive(seed) < 2**63 for seed in range(100))


def test_a_net_that_no_memory_holds_is_refused_before_it_is_built() -> None:
    shape = NetShape(channels=1, side=8, latent=65536, features=65536, widths=(8192,))
    with pytest.raises(DeviceError, match=r"the net has [\d,]{18,} weights: [\d,]+ GB with") as caught:
        build_model(replace(shape, latent=10**9), registry().regularizers["ae"].cls, seed=0)
    assert caught.value.hint == "lower widths, features or latent in [model]"
