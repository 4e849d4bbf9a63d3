from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regbench.data.batches import Batches, epoch_order
from regbench.errors import UsageError

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (103, 3, 8, 8), dtype=np.uint8)


def oracle(pixels: Any) -> Tensor:
    """Division in float64, rounded once."""
    return torch.from_numpy((pixels / 255.0).astype(np.float32))


# --- order


@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10_000),
    n=st.integers(1, 200),
    data=st.data(),
)
def test_an_epoch_is_a_permutation_without_its_tail(seed: int, epoch: int, n: int, data: Any) -> None:
    batch_size = data.draw(st.integers(1, n))
    order_SB = epoch_order(seed, epoch, n, batch_size)
    assert order_SB.shape == (n // batch_size, batch_size)
    assert order_SB.dtype == torch.int64
    assert order_SB.device.type == "cpu"
    seen = order_SB.flatten().tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))
    if n % batch_size == 0:
        assert set(seen) == set(range(n))


def test_order_is_a_pure_function_of_seed_and_epoch() -> None:
    torch.manual_seed(1)
    first = epoch_order(3, 7, 1000, 64)
    torch.manual_seed(2)
    torch.rand(5)
    state = torch.get_rng_state()
    assert torch.equal(epoch_order(3, 7, 1000, 64), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch_order(3, 8, 1000, 64), first)
    assert not torch.equal(epoch_order(4, 7, 1000, 64), first)


def test_other_images_are_left_out_each_epoch() -> None:
    left_out = [
        frozenset(range(100)) - frozenset(epoch_order(0, epoch, 100, 30).flatten().tolist())
        for epoch in range(20)
    ]
    assert all(len(tail) == 10 for tail in left_out)
    assert len(set(left_out)) == 20


def test_every_image_comes_first_about_equally_often() -> None:
    firsts = torch.stack([epoch_order(0, epoch, 10, 1)[0] for epoch in range(2000)]).flatten()
    counts = torch.bincount(firsts, minlength=10)
    # Binomial(2000, 0.1): standard deviation 13.4.
    assert (counts - 200).abs().max() < 4.5 * 13.4


@pytest.mark.parametrize(
    ("n", "batch_size", "message"), [(10, 11, "only 10 training"), (10, 0, "at least 1")]
)
def test_impossible_orders_are_refused(n: int, batch_size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        epoch_order(0, 0, n, batch_size)
    images = np.zeros((n, 1, 4, 4), dtype=np.uint8)
    with pytest.raises(UsageError, match=message):
        Batches(images, "cpu").epoch(0, 0, batch_size)


# --- batches


@pytest.mark.parametrize("resident", [True, False])
def test_an_epoch_gives_the_images_of_its_order(images: Any, device: str, resident: bool) -> None:
    batches = Batches(images, device, resident)
    found = list(batches.epoch(5, 2, 25))
    order_SB = epoch_order(5, 2, len(images), 25)
    assert len(found) == len(order_SB) == 4
    for x_BCHW, index_B in zip(found, order_SB, strict=True):
        assert x_BCHW.device.type == device
        assert x_BCHW.dtype == torch.float32
        assert x_BCHW.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x_BCHW.cpu(), oracle(images[index_B]))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 103, 104, 1000])
def test_streamed_batches_have_the_same_bits(images: Any, device: str, batch_size: int) -> None:
    resident, streamed = Batches(images, device, True), Batches(images, device, False)
    assert resident.resident
    assert not streamed.resident
    for left, right in itertools.zip_longest(
        resident.sequential(batch_size), streamed.sequential(batch_size)
    ):
        assert torch.equal(left, right)
        assert left.stride() == right.stride()
    if batch_size <= len(images):
        epochs = (batches.epoch(1, 1, batch_size) for batches in (resident, streamed))
        assert all(torch.equal(left, right) for left, right in zip(*epochs, strict=True))


def test_a_batch_stays_as_it_is_while_later_ones_are_made(images: Any, device: str) -> None:
    # The two buffers of the streaming are used again and again.
    kept = list(Batches(images, device, False).epoch(0, 0, 2))
    order_SB = epoch_order(0, 0, len(images), 2)
    assert all(torch.equal(x.cpu(), oracle(images[i])) for x, i in zip(kept, order_SB, strict=True))


def test_an_epoch_can_be_left_early_and_two_can_be_read_at_once(images: Any, device: str) -> None:
    batches = Batches(images, device, False)
    one, other = batches.epoch(0, 0, 10), batches.epoch(0, 1, 10)
    pairs = [(next(one), next(other)) for _ in range(4)]
    one.close()  # type: ignore[attr-defined]
    for step, (left, right) in enumerate(pairs):
        assert torch.equal(left.cpu(), oracle(images[epoch_order(0, 0, len(images), 10)[step]]))
        assert torch.equal(right.cpu(), oracle(images[epoch_order(0, 1, len(images), 10)[step]]))


def test_sequential_gives_every_image_in_order(images: Any, device: str) -> None:
    for resident in (True, False):
        found = list(Batches(images, device, resident).sequential(40))
        assert [len(x) for x in found] == [40, 40, 23]
        assert torch.equal(torch.cat(found).cpu(), oracle(images))


def test_every_grey_level_is_divided_exactly(device: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    for resident in (True, False):
        (x_BCHW,) = Batches(levels, device, resident).sequential(256)
        assert torch.equal(x_BCHW.cpu(), oracle(levels))
        assert (x_BCHW.min(), x_BCHW.max()) == (0, 1)


@pytest.mark.parametrize("resident", [True, False])
def test_at(images: Any, device: str, resident: bool) -> None:
    batches = Batches(images, device, resident)
    wanted = [5, 0, 102, 5]
    for indices in (wanted, np.array(wanted, dtype=np.int32), torch.tensor(wanted)):
        assert torch.equal(batches.at(indices).cpu(), oracle(images[wanted]))
    for bad in ([103], [-1], [0, 999]):
        with pytest.raises(UsageError, match="there are 103 images"):
            batches.at(bad)
    for bad_type in ([0.5], [True], [[1]]):
        with pytest.raises(UsageError, match="indices must be integers"):
            batches.at(bad_type)  # type: ignore[arg-type]


def test_no_images(device: str) -> None:
    batches = Batches(np.empty((0, 1, 4, 4), dtype=np.uint8), device)
    assert len(batches) == 0
    assert list(batches.sequential(8)) == []
    with pytest.raises(UsageError, match="only 0"):
        batches.epoch(0, 0, 1)


def test_changing_a_batch_leaves_the_images_alone(images: Any, device: str) -> None:
    for resident in (True, False):
        batches = Batches(images, device, resident)
        batches.at([3]).zero_()
        assert torch.equal(batches.at([3]).cpu(), oracle(images[[3]]))


def test_tensors_and_read_only_arrays_will_do(images: Any, tmp_path: Path, device: str) -> None:
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    for source in (mapped, torch.from_numpy(images), np.asfortranarray(images)):
        for resident in (True, False):
            assert torch.equal(Batches(source, device, resident).at([1, 2]).cpu(), oracle(images[[1, 2]]))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 1, 8, 8), dtype=np.float32),
        np.zeros((4, 8, 8), dtype=np.uint8),
        torch.zeros(4, 1, 8, 8, dtype=torch.int64),
    ],
)
def test_wrong_images_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"images must be uint8 of shape \(N, C, H, W\)"):
        Batches(wrong, "cpu")


def test_free_memory_decides_where_images_lie(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from regbench.data.batches import _fits

    assert Batches(images, "cpu").resident
    pixels = torch.from_numpy(images)
    for free, fits in ((2 * images.nbytes, True), (2 * images.nbytes - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert _fits(pixels, torch.device("cuda")) is fits


@pytest.mark.gpu
def test_resident_batches_never_wait_for_the_host(images: Any) -> None:
    batches = Batches(images, "cuda", True)
    epoch = batches.epoch(0, 0, 10)
    next(epoch)  # copies the order
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert sum(1 for _ in epoch) == 9
    finally:
        torch.cuda.set_sync_debug_mode("default")
