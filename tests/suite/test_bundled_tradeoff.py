"""The bundled trade-off: families that differ in how hard they regularize, over decades, and nothing else."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from regbench.plugins import Registry, registry
from regbench.suite.load import load_suite
from regbench.suite.methods import families_of, methods_of
from regbench.suite.schema import Suite

ROOT = Path(__file__).parent.parent.parent
STRENGTH = {"vae-kl": "weight", "infovae-mmd": "weight", "proto-vae": "mmd_lr"}


@pytest.fixture(scope="module")
def plugins() -> Registry:
    return registry()


@pytest.fixture(scope="module")
def suite(plugins: Registry) -> Suite:
    return load_suite(ROOT / "suites" / "tradeoff.toml", plugins)


def test_a_family_is_one_method_at_five_settings_over_decades(suite: Suite, plugins: Registry) -> None:
    for index, entry in enumerate(suite.regularizers):
        if entry.name == "ae":
            assert entry.family is None
            continue
        methods, _ = methods_of(entry, index, plugins.regularizer(entry.name))
        strength = STRENGTH[entry.name]
        values = [method.options[strength] for method in methods]
        steps = [math.log10(b / a) for a, b in pairwise(values)]
        assert steps == pytest.approx([1.0] * 4)
        for method in methods:
            others = {name: value for name, value in method.options.items() if name != strength}
            assert others == {k: v for k, v in methods[0].options.items() if k != strength}
            assert families_of(suite.regularizers, plugins)[method.label] == entry.family
    names = [entry.family for entry in suite.regularizers if entry.family is not None]
    assert len(set(names)) == len(names) == 6
    assert [entry.label for entry in suite.regularizers if entry.family is None] == ["AE", "AE, 3 steps"]


def test_every_kernel_stands_on_both_sides(suite: Suite) -> None:
    """A frontier of one method with a better kernel says nothing of the other without it."""
    kernels: dict[str, set[str]] = {"infovae-mmd": set(), "proto-vae": set()}
    for entry in suite.regularizers:
        if entry.name == "proto-vae" or entry.options.get("encoder") == "deterministic":
            kernels[entry.name].add(entry.options.get("kernel", "gaussian"))
    assert kernels["infovae-mmd"] == kernels["proto-vae"] == {"gaussian", "imq"}


def test_it_is_drawn_by_a_kernels_distance_and_by_another(suite: Suite) -> None:
    drawn = [figure.options.get("quantity", "mmd") for figure in suite.figures if figure.kind == "tradeoff"]
    assert drawn == ["mmd", "sw2"]
    assert "spectrum" in {figure.kind for figure in suite.figures}
    assert [dataset.title for dataset in suite.datasets] == ["MNIST", "CIFAR-10"]


def test_small_is_the_same_with_less_data(suite: Suite, plugins: Registry) -> None:
    small = load_suite(ROOT / "suites" / "tradeoff-small.toml", plugins)
    assert (small.regularizers, small.figures, small.seeds) == (
        suite.regularizers,
        suite.figures,
        suite.seeds,
    )
    assert [dataset.title for dataset in small.datasets] == ["MNIST"]
