from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.data.base import Images, Sizes
from regbench.data.split import Split, hashed_test, prepare, split_sizes
from regbench.errors import DataError, PluginError, UsageError

HELD_OUT = [8, 13, 38, 42, 48]
DIGESTS = ["081554d5a19cfd3f", "7c36d0ce53ff8e42", "c249b72794839c73"]
HASHED = [3, 11, 15, 19, 20]
HASHED_DIGEST = "2207b56afc142c65"


def numbered(train: int, test: int) -> Images:
    """Images whose only pixels spell their index, so that each can be recognized; labels are index mod 10."""

    def part(count: int) -> tuple[Any, Any]:
        pixels = np.zeros((count, 1, 4, 4), dtype=np.uint8)
        pixels.reshape(count, -1)[:, :4] = np.arange(count, dtype="<u4")[:, None].view(np.uint8)
        return pixels, np.arange(count) % 10

    return Images(*part(train), *part(test), tuple("0123456789"))


def indices(pixels: Any) -> list[int]:
    return np.ascontiguousarray(pixels.reshape(len(pixels), -1)[:, :4]).view("<u4").ravel().tolist()


def digest(numbers: list[int]) -> str:
    return hashlib.sha256(np.array(numbers, dtype="<u4").tobytes()).hexdigest()[:16]


@given(
    train=st.integers(10, 300),
    test=st.integers(1, 100),
    data=st.data(),
)
def test_parts_are_disjoint_and_have_the_sizes_that_were_planned(train: int, test: int, data: Any) -> None:
    images = numbered(train, test)
    left = train - train // 10
    train_images = data.draw(st.none() | st.integers(1, left))
    test_images = data.draw(st.none() | st.integers(1, test))
    split = prepare(images, train_images, test_images)
    planned = split_sizes(Sizes(train, test), train_images, test_images)
    chosen, heldout, tested = (indices(part) for part in (split.train, split.heldout, split.test))
    assert (len(chosen), len(heldout), len(tested)) == (planned.train, planned.heldout, planned.test)
    assert planned.heldout == train // 10
    assert planned.train == (left if train_images is None else train_images)
    assert len({*chosen, *heldout}) == len(chosen) + len(heldout)
    for part, labels in (
        (chosen, split.train_labels),
        (heldout, split.heldout_labels),
        (tested, split.test_labels),
    ):
        assert part == sorted(set(part))
        assert labels.tolist() == [index % 10 for index in part]
    if train_images is None:
        assert sorted([*chosen, *heldout]) == list(range(train))
    if test_images is None:
        assert tested == list(range(test))


@pytest.mark.parametrize(("train", "heldout"), [(10, 1), (1438, 143), (50_000, 5000), (60_000, 5000)])
def test_a_tenth_but_at_most_5000_are_held_out(train: int, heldout: int) -> None:
    assert split_sizes(Sizes(train, 10_000)).heldout == heldout
    assert split_sizes(Sizes(train, 10_000)).train == train - heldout


def test_a_smaller_subset_is_part_of_a_larger_one_and_heldout_images_stay() -> None:
    images = numbered(3000, 700)
    small, large, whole = prepare(images, 500, 100), prepare(images, 1000, 200), prepare(images)
    assert set(indices(small.train)) < set(indices(large.train)) < set(indices(whole.train))
    assert set(indices(small.test)) < set(indices(large.test)) < set(indices(whole.test))
    assert indices(small.heldout) == indices(large.heldout) == indices(whole.heldout)


def test_subsets_are_spread_over_the_whole_set() -> None:
    chosen = np.array(indices(prepare(numbered(10_000, 10), 1000).train))
    # Uniform: mean 5000 with standard error 2887 / sqrt(1000) = 91.
    assert abs(chosen.mean() - 5000) < 4 * 91


def test_the_choice_never_changes() -> None:
    # Published results depend on these: a change needs a new version of the numerics.
    split = prepare(numbered(60_000, 10_000), train_images=1000, test_images=100)
    assert indices(split.heldout)[:5] == HELD_OUT
    assert [digest(indices(part)) for part in (split.heldout, split.train, split.test)] == DIGESTS
    mask = hashed_test([str(index) for index in range(1797)])
    assert np.flatnonzero(mask)[:5].tolist() == HASHED
    assert digest(np.flatnonzero(mask).tolist()) == HASHED_DIGEST


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_images": 0}, r"train_images = 0: expected a number from 1 to 90\b"),
        ({"train_images": 91}, "train_images = 91: expected a number from 1 to 90, .* after 10 are held out"),
        ({"test_images": 21}, "test_images = 21: expected a number from 1 to 20"),
        ({"test_images": -1}, "test_images = -1"),
    ],
)
def test_more_images_than_there_are_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_sizes(Sizes(100, 20), **arguments)
    with pytest.raises(UsageError, match=message):
        prepare(numbered(100, 20), **arguments)


@pytest.mark.parametrize("sizes", [Sizes(9, 5), Sizes(100, 0), Sizes(0, 0)])
def test_a_set_that_is_too_small_is_refused(sizes: Sizes) -> None:
    with pytest.raises(DataError, match=f"{sizes.train} training and {sizes.test} test images"):
        split_sizes(sizes)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("train", lambda a: a.astype(np.float32), "train is float32"),
        ("train", lambda a: a[:, 0], r"train is uint8 of shape \(100, 4, 4\)"),
        ("test", lambda a: a.transpose(0, 2, 3, 1), "test is uint8 of shape"),
        ("test", lambda a: a[..., :3], "test has shape .* square"),
        ("train", lambda a: a[..., :3], "train has shape .* square"),
        ("test", lambda a: a.repeat(3, axis=1), "test has shape .* the same in both splits"),
        ("train_labels", lambda a: a.astype(np.int32), "train_labels is int32"),
        ("test_labels", lambda a: a[:-1], r"test_labels is int64 of shape \(19,\); expected int64, \(20,\)"),
        ("train_labels", lambda a: a + 1, "train_labels run from 1 to 10; expected 0 to 9 for 10 classes"),
        ("test_labels", lambda a: a - 1, "test_labels run from -1 to 8"),
        ("classes", lambda a: (), "train_labels run from 0 to 9; expected -1 to -1 for 0 classes"),
    ],
)
def test_what_a_plugins_data_set_returns_is_checked(field: str, change: Any, message: str) -> None:
    images = numbered(100, 20)
    broken = dataclasses.replace(images, **{field: change(getattr(images, field))})
    with pytest.raises(PluginError, match=message):
        prepare(broken)


def test_a_set_without_labels_is_fine() -> None:
    images = numbered(100, 20)
    bare = dataclasses.replace(images, classes=(), train_labels=np.full(100, -1), test_labels=np.full(20, -1))
    split = prepare(bare, train_images=50)
    assert isinstance(split, Split)
    assert split.classes == ()
    assert set(split.train_labels.tolist()) == {-1}
    assert indices(split.train) == indices(prepare(images, train_images=50).train)


@given(st.lists(st.text(max_size=8), unique=True, max_size=60))
def test_hashed_test_images_do_not_depend_on_the_order(keys: list[str]) -> None:
    mask = hashed_test(keys)
    assert mask.sum() == len(keys) // 5
    shuffled = sorted(keys)[::-1]
    chosen = {key for key, testing in zip(keys, mask, strict=True) if testing}
    assert chosen == {key for key, t in zip(shuffled, hashed_test(shuffled), strict=True) if t}


def test_hashed_test_images_rarely_change_when_one_is_added() -> None:
    keys = [f"class/{index}.png" for index in range(1000)]
    before = {key for key, t in zip(keys, hashed_test(keys), strict=True) if t}
    after = {key for key, t in zip([*keys, "new"], hashed_test([*keys, "new"]), strict=True) if t}
    assert len(before ^ after) <= 2


def test_names_that_are_no_valid_unicode_can_be_hashed() -> None:
    assert hashed_test([f"\udcff{index}" for index in range(10)]).sum() == 2
