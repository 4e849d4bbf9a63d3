"""The bundled suites and plugins: they load, they plan without data, and they are what they say."""

from __future__ import annotations

import csv
import re
import tomllib
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from regbench.plugins import Registry
from regbench.suite import reference
from regbench.suite.cells import CellSpec, expand
from regbench.suite.jsonschema import json_schema
from regbench.suite.load import load_suite
from regbench.suite.methods import Method, methods_of
from regbench.suite.schema import Suite
from regbench.tuning.study import studies_of
from tests.packages import with_packages

ROOT = Path(__file__).parent.parent.parent
SUITES = sorted((ROOT / "suites").glob("*.toml"))


@pytest.fixture(scope="module")
def plugins() -> Registry:
    return with_packages()


def plan(name: str, plugins: Registry) -> tuple[CellSpec, ...]:
    suite = load_suite(ROOT / "suites" / f"{name}.toml", plugins)
    return expand(
        suite, plugins, Path("/nowhere"), lambda precision: "fp32" if precision == "auto" else precision
    )


def methods(suite: Suite, plugins: Registry) -> list[Method]:
    """All methods of a suite."""
    return [
        method
        for index, entry in enumerate(suite.regularizers)
        for method in methods_of(entry, index, plugins.regularizer(entry.name))[0]
    ]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_bundled_suite_loads_and_is_headed_by_its_command(path: Path, plugins: Registry) -> None:
    suite = load_suite(path, plugins)
    assert suite.name == path.stem
    assert suite.baseline == "AE"
    head, _, _ = path.read_text(encoding="utf-8").partition("[suite]")
    assert re.search(rf"^#   regbench run suites/{path.name}( --jobs \d)?$", head, re.M)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_json_schema_accepts_it(path: Path, plugins: Registry) -> None:
    schema = json_schema(plugins)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(tomllib.loads(path.read_text(encoding="utf-8")))


def test_quick_holds_every_method(plugins: Registry) -> None:
    cells = plan("quick", plugins)
    assert {cell.method for cell in cells} == {
        "AE",
        "AE, 3 steps",
        "VAE-KL",
        "InfoVAE-MMD",
        "ProtoVAE K=1",
        "ProtoVAE K=10",
    }
    assert len(cells) == 6 * 3
    assert {cell.regularizer for cell in cells} == {"ae", "vae-kl", "infovae-mmd", "proto-vae"}
    assert {cell.options["prototypes"] for cell in cells if cell.regularizer == "proto-vae"} == {1, 10}
    for cell in cells:
        assert cell.dataset_name == "digits"
        assert cell.training["epochs"] - cell.training["warmup"] > cell.training["warmup"]


def test_mnist_is_the_whole_of_it_at_full_width(plugins: Registry) -> None:
    cells = plan("mnist", plugins)
    assert {(cell.train_images, cell.test_images) for cell in cells} == {(55_000, 10_000)}
    assert {tuple(cell.model["widths"]) for cell in cells} == {(128, 256)}


def test_tuned_gives_every_method_the_same_budget_for_the_same_setting(plugins: Registry) -> None:
    suite = load_suite(ROOT / "suites" / "tuned.toml", plugins)
    studies = studies_of(suite, plugins, plan("tuned", plugins))
    assert [study.title for study in studies] == ["digits AE", "digits VAE-KL", "digits ProtoVAE K=10"]
    assert {study.budget for study in studies} == {5}
    assert {tuple(parameter.key for parameter in study.space) for study in studies} == {("training.lr",)}
    assert {study.start()["training.lr"] for study in studies} == {1e-3}


def test_paper_is_the_whole_grid(plugins: Registry) -> None:
    cells = plan("paper", plugins)
    assert len(cells) == 12 * 3 * 5
    assert Counter(cell.dataset for cell in cells) == {"MNIST": 60, "CIFAR-10": 60, "CIFAR-100": 60}
    assert {(cell.dataset, cell.training["epochs"]) for cell in cells} == {
        ("MNIST", 100),
        ("CIFAR-10", 600),
        ("CIFAR-100", 600),
    }
    prototypes = {cell.options["prototypes"] for cell in cells if cell.regularizer == "proto-vae"}
    assert prototypes == {1, 2, 5, 10, 20, 30, 50}
    twins = {cell.options["encoder"] for cell in cells if cell.regularizer == "infovae-mmd"}
    assert twins == {"stochastic", "deterministic"}
    assert {cell.options["updates_per_batch"] for cell in cells if cell.regularizer == "ae"} == {1, 3}
    widths = {cell.dataset: tuple(cell.model["widths"]) for cell in cells}
    assert widths == {"MNIST": (128, 256), "CIFAR-10": (64, 128, 256), "CIFAR-100": (64, 128, 256)}
    for cell in cells:
        assert (cell.training["batch_size"], cell.training["lr"], cell.training["warmup"]) == (256, 1e-3, 10)


def test_paper_small_is_the_same_comparison_with_other_data(plugins: Registry) -> None:
    whole, small = plan("paper", plugins), load_suite(ROOT / "suites" / "paper-small.toml", plugins)
    paper = load_suite(ROOT / "suites" / "paper.toml", plugins)
    assert small.regularizers == paper.regularizers
    assert (small.claims, small.figures, small.seeds) == (paper.claims, paper.figures, paper.seeds)
    assert [entry.title for entry in small.datasets] == ["MNIST", "CIFAR-10 (JPEG)"]
    assert {cell.method for cell in whole} == {m.label for m in methods(small, plugins)}


def test_paper_declares_the_figures_of_the_paper(plugins: Registry) -> None:
    kinds = [figure.kind for figure in load_suite(ROOT / "suites" / "paper.toml", plugins).figures]
    assert {"prototypes", "tsne", "synthesis", "reconstructions", "curves"} <= set(kinds)


@pytest.mark.parametrize("name", ["ablations", "ablations-small"])
def test_ablations_flip_one_choice_each(name: str, plugins: Registry) -> None:
    """Each differs from the method as it is compared in one option or setting, the one that its label names."""
    suite = load_suite(ROOT / "suites" / f"{name}.toml", plugins)
    plain = {entry.name: entry.label for entry in reversed(suite.regularizers)}
    flipped = {}
    for entry in suite.regularizers:
        if entry.label != plain[entry.name]:
            changes = {
                **entry.options,
                **entry.training.model_dump(exclude_unset=True),
                **entry.model.model_dump(exclude_unset=True),
            }
            flipped[entry.label] = changes
    assert flipped == {
        "VAE-KL, pixel-mean BCE": {"loss_scale": "mean"},
        "InfoVAE-MMD, deterministic": {"encoder": "deterministic"},
        "InfoVAE-MMD, deterministic, IMQ kernel": {"encoder": "deterministic", "kernel": "imq"},
        "InfoVAE-MMD, biased": {"biased": True},
        "ProtoVAE, cosine scores": {"scores": "cosine"},
        "ProtoVAE, biased MMD": {"biased": True},
        "ProtoVAE, IMQ kernel": {"kernel": "imq"},
        "ProtoVAE, k-means seeding": {"seeding": "kmeans"},
        "ProtoVAE, one shared Adam": {"shared_adam": True},
        "ProtoVAE, linear bottleneck": {"bottleneck_activation": "none"},
    }


def test_paper_states_its_claims_beforehand(plugins: Registry) -> None:
    claims = load_suite(ROOT / "suites" / "paper.toml", plugins).claims
    assert [claim.statement[:3] for claim in claims] == ["(a)", "(b)", "(c)", "(d)"]
    matches = claims[0]
    assert matches.kind == "equivalence"
    assert matches.references == ("AE", "AE, 3 steps")
    assert matches.margin.model_dump() == {"relative": 0.05, "absolute": None, "of": "AE"}


@pytest.mark.parametrize("name", ["related-work", "related-work-small"])
def test_related_work_holds_every_method_and_gives_all_the_same_schedule(
    name: str, plugins: Registry
) -> None:
    cells = plan(name, plugins)
    assert {cell.regularizer for cell in cells} == set(plugins.regularizers)
    for dataset in {cell.dataset for cell in cells}:
        mine = [cell for cell in cells if cell.dataset == dataset]
        assert len({cell.method for cell in mine}) * 3 == len(mine)
        assert len({str((cell.training, cell.model)) for cell in mine}) == 1
    suite = load_suite(ROOT / "suites" / f"{name}.toml", plugins)
    for entry in suite.regularizers:  # those with a prior that the training draws codes to have a frontier
        assert (entry.family is not None) == bool(plugins.regularizer(entry.name).cls.prior)
    datasets = {"related-work": {"MNIST", "CIFAR-10", "CIFAR-100"}, "related-work-small": {"Digits", "MNIST"}}
    assert {cell.dataset for cell in cells} == datasets[name]


def test_the_committed_report_of_related_work_has_every_methods_row_on_every_data_set(
    plugins: Registry,
) -> None:
    with (ROOT / "reports" / "related-work-small" / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["quantity"] == "mse" and row["trained"] == "True"]
    found = {(row["dataset"], row["method"]) for row in rows if float(row["seeds_done"]) == 3}
    assert found == {(cell.dataset, cell.method) for cell in plan("related-work-small", plugins)}


def test_every_option_of_a_bundled_plugin_is_described(plugins: Registry) -> None:
    for offered in (plugins.regularizers, plugins.datasets, plugins.figures):
        for plugin in offered.values():
            for name, field in plugin.cls.Options.model_fields.items():
                assert field.description, f"{plugin.name}.{name}"


def test_the_fields_in_the_documentation_are_up_to_date() -> None:
    page = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    assert reference.BEGIN in page
    assert reference.END in page
    assert page == reference.updated(page), f"run: {reference.BEGIN[12:-4]}"
    for _, model in reference.TABLES:
        for name in model.model_fields:
            assert f"| `{name}` |" in page or name == "kind"
