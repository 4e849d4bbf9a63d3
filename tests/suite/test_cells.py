"""Cells and their identity: what must change an id does, and what must not does not."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.errors import DataError, PluginError, SuiteError
from regbench.plugins import Registry
from regbench.suite.cells import NOT_HASHED, CellSpec, canonical, expand, without_source
from regbench.suite.load import build_suite
from regbench.suite.schema import Model, Training
from tests.suite import fakes

ROOT = Path("/nowhere")

TEXT = """
[suite]
name = "x"
seeds = [4, 2]
[training]
epochs = 20
batch_size = 64
[[datasets]]
name = "squares"
[[datasets]]
name = "tree"
options = { path = "photos", side = 32 }
[[regularizers]]
name = "infovae-mmd"
label = "MMD"
options = { bandwidth = 2 }
[[regularizers]]
name = "proto-vae"
sweep = { prototypes = [1, 10] }
"""


def cells(
    text: str = TEXT, registry: Registry | None = None, precision: Callable[[str], str] = lambda _: "fp32"
) -> tuple[CellSpec, ...]:
    registry = registry or fakes.registry()
    return expand(build_suite(tomllib.loads(text), registry), registry, ROOT, precision)


def faults(text: str) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        cells(text)
    return [str(fault) for fault in caught.value.faults]


def first(text: str = TEXT, registry: Registry | None = None) -> CellSpec:
    return cells(text, registry)[0]


def test_all_cells_in_the_order_of_the_suite() -> None:
    found = [(cell.dataset, cell.method, cell.seed) for cell in cells()]
    methods = ["MMD", "proto-vae prototypes=1", "proto-vae prototypes=10"]
    assert found == [(d, m, s) for d in ("squares", "tree") for m in methods for s in (4, 2)]
    assert len({cell.id for cell in cells()}) == 12


def test_options_that_do_not_fit_the_sizes_are_refused_before_anything_is_trained() -> None:
    text = TEXT.replace("[1, 10]", "[1000, 10]")  # ten for each image; tree has 90
    assert faults(text) == ["regularizers[1].options.prototypes = 1000: expected at most 900"]
    assert cells(text.replace("1000", "900"))


def test_a_plugin_that_fails_at_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes.Proto, "misfits", lambda *_: 1 / 0)
    assert faults(TEXT) == [
        "regularizers[1].options: misfits() of proto-vae (fake.py) failed: ZeroDivisionError: division by zero"
    ]


def test_a_cell_is_resolved() -> None:
    squares, tree = cells()[0], cells()[6]
    assert squares.title == "squares MMD seed 4"
    assert squares.options == {
        "weight": None,
        "bandwidth": 2.0,
        "kernel": "gaussian",
        "closed_form": False,
        "scales": [1.0],
    }
    assert squares.plugin == {"distribution": "fake", "version": "1.0", "source": "0" * 64}
    assert (squares.channels, squares.side, tree.channels, tree.side) == (1, 16, 3, 32)
    assert (squares.model["widths"], tree.model["widths"]) == ([128, 256], [64, 128, 256])
    assert (squares.train_images, squares.test_images) == (900, 200), "a tenth is held out"
    assert squares.training["precision"] == "fp32"
    assert tree.dataset_options == {"path": "photos", "side": 32, "channels": 3}


def test_precision_is_resolved_by_the_device() -> None:
    asked: list[str] = []

    def resolve(precision: str) -> str:
        asked.append(precision)
        return "bf16"

    assert {cell.training["precision"] for cell in cells(precision=resolve)} == {"bf16"}
    assert set(asked) == {"auto"}


def test_fingerprints_are_taken_once_per_data_set() -> None:
    before = fakes.Squares.looked_at
    cells(TEXT.replace("[1, 10]", str(list(range(1, 500)))))
    assert fakes.Squares.looked_at == before + 1


def test_the_id_is_the_hash_of_the_key_and_stays_what_it_is() -> None:
    # Results are found by their ids. Where this changes, every result of every user is run again: on purpose
    # only, with a higher KEY_SCHEMA or NUMERICS.
    cell = first()
    assert cell.key() == {
        "schema": 1,
        "numerics": 1,
        "regularizer": {"name": "infovae-mmd", "options": cell.options, "plugin": cell.plugin},
        "dataset": {
            "name": "squares",
            "options": {},
            "fingerprint": "md5:squares",
            "train_images": 900,
            "test_images": 200,
        },
        "model": {
            "latent": 256,
            "features": 256,
            "widths": [128, 256],
            "kernel": 4,
            "bottleneck_activation": "relu",
        },
        "training": {
            "epochs": 20,
            "warmup": 10,
            "batch_size": 64,
            "lr": 0.001,
            "betas": [0.9, 0.999],
            "precision": "fp32",
            "loss_scale": "sum",
            "train_subset": 10000,
        },
        "seed": 4,
    }
    assert cell.id == "4007b19df9c3675821289a5fce4b07d12d45aba165bdec375c472d5579899c6c"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('label = "MMD"', 'label = "something else"'),
        ('label = "MMD"', ""),
        ('name = "x"', 'name = "y"\nbaseline = "MMD"'),
        ('name = "x"', 'name = "y"\nmetrics = ["psnr"]'),
        ('name = "squares"', 'name = "squares"\nlabel = "Squares"'),
        ("epochs = 20", "epochs = 20\ncurve_points = 7"),
        ("epochs = 20", 'epochs = 20\ncompile = "off"'),
        ("epochs = 20", 'epochs = 20\nlr = 0.001\nprecision = "fp32"'),
        ("epochs = 20\nbatch_size = 64", "batch_size = 64\nepochs = 20"),
        ("options = { bandwidth = 2 }", 'options = { kernel = "gaussian", bandwidth = 2.0 }'),
        ("options = { bandwidth = 2 }", "options = { bandwidth = 2 }\ntraining = { warmup = 10 }"),
        ('name = "squares"', 'name = "squares"\ntrain_images = 900'),
    ],
)
def test_labels_display_order_and_spelt_out_defaults_do_not_count(old: str, new: str) -> None:
    assert old in TEXT
    assert first(TEXT.replace(old, new, 1)).id == first().id


def test_where_the_data_lie_does_not_count_but_what_they_are_does() -> None:
    def tree(path: str) -> str:
        return cells(TEXT.replace('"photos"', f'"{path}"'))[6].id

    assert tree("/elsewhere/photos") == tree("photos") != tree("others")


MODEL = {
    "latent": "8",
    "features": "8",
    "widths": "[8, 16]",
    "kernel": "3",
    "bottleneck_activation": '"none"',
}
TRAINING = {
    "epochs": "21",
    "warmup": "9",
    "batch_size": "63",
    "lr": "0.01",
    "betas": "[0.5, 0.999]",
    "precision": '"bf16"',
    "loss_scale": '"mean"',
    "train_subset": "9999",
}


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [*(("model", *item) for item in MODEL.items()), *(("training", *item) for item in TRAINING.items())],
)
def test_every_setting_counts(table: str, key: str, value: str) -> None:
    text = TEXT.replace('label = "MMD"', f'label = "MMD"\n{table} = {{ {key} = {value} }}')
    changed, *_ = cells(text, precision=lambda name: "bf16" if name == "bf16" else "fp32")
    assert changed.id != first().id


def test_no_setting_was_forgotten() -> None:
    assert MODEL.keys() == Model.model_fields.keys()
    assert TRAINING.keys() | set(NOT_HASHED) == Training.model_fields.keys()


OTHER: dict[str, Any] = {
    "regularizer": "ae",
    "options": {"weight": 3.0},
    "plugin": {"distribution": "other", "version": "1.0", "source": "0" * 64},
    "dataset_name": "tree",
    "dataset_options": {"side": 8},
    "fingerprint": "md5:other",
    "train_images": 899,
    "test_images": 199,
    "model": {"latent": 3},
    "training": {"epochs": 3},
    "seed": 5,
    "phase": "trial",
}
SAME: dict[str, Any] = {
    "method": "other",
    "dataset": "other",
    "paths": ("path",),
    "curve_points": 3,
    "compile": "off",
}
FOLLOWS = {"channels", "side"}
"""Determined by the data set's options and its fingerprint."""


def test_every_field_of_a_cell_is_judged() -> None:
    assert OTHER.keys() | SAME.keys() | FOLLOWS == {field.name for field in dataclasses.fields(CellSpec)}


@pytest.mark.parametrize("field", OTHER)
def test_every_hashed_field_counts(field: str) -> None:
    assert dataclasses.replace(first(), **{field: OTHER[field]}).id != first().id


@pytest.mark.parametrize("field", SAME)
def test_no_other_field_counts(field: str) -> None:
    assert dataclasses.replace(first(), **{field: SAME[field]}).id == first().id


def shuffled(value: Any, reverse: bool) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, reverse)) for key, item in value.items()]
        return dict(reversed(items) if reverse else sorted(items))
    return value


def test_the_order_of_keys_does_not_count() -> None:
    key = first().key()
    assert canonical(shuffled(key, True)) == canonical(shuffled(key, False)) == canonical(key)
    assert " " not in canonical(key)


def test_a_number_that_is_none_is_never_hashed() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"lr": float("nan")})


def test_changed_code_makes_a_result_stale() -> None:
    old, new = first(), first(registry=fakes.registry(source="1" * 64))
    assert old.id != new.id
    assert old.key_without_source() == new.key_without_source()
    assert "source" not in str(old.key_without_source())
    stored = json.loads(json.dumps(old.key()))
    assert without_source(stored) == new.key_without_source()
    assert stored == old.key(), "the stored key is left as it is"


def test_another_version_is_another_cell() -> None:
    old, new = first(), first(registry=fakes.registry(version="1.1"))
    assert old.key_without_source() != new.key_without_source()


def test_json_and_back() -> None:
    for cell in cells():
        assert CellSpec.from_json(cell.to_json()) == cell
        assert CellSpec.from_json(cell.to_json()).id == cell.id


@given(st.text(max_size=90), st.text(max_size=90))
def test_slugs_are_safe_directory_names(method: str, dataset: str) -> None:
    cell = dataclasses.replace(CELL, method=method, dataset=dataset)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cell.slug)
    assert len(cell.slug) < 128
    assert cell.slug.endswith(f"-s{cell.seed}-{cell.id[:16]}")


CELL = first()


def test_a_readable_slug() -> None:
    cell = dataclasses.replace(CELL, method="ProtoVAE K=10", dataset="CIFAR-10")
    assert cell.slug == f"cifar-10-protovae-k-10-s4-{cell.id16}"


def test_more_images_than_there_are() -> None:
    text = TEXT.replace('name = "squares"', 'name = "squares"\ntrain_images = 901\ntest_images = 201')
    assert faults(text) == [
        "datasets[0].train_images = 901: expected a number from 1 to 900, "
        "which is all there are after 100 are held out",
        "datasets[0].test_images = 201: expected a number from 1 to 200, which is all there are in the test split",
    ]


def test_batches_larger_than_the_data() -> None:
    text = TEXT.replace("[1, 10] }", "[1, 10] }\ntraining = { batch_size = 91 }")
    assert faults(text) == [
        "regularizers[1].training.batch_size = 91: expected at most 90, the training images of tree"
    ]
    text = TEXT.replace('name = "squares"', 'name = "squares"\ntrain_images = 63')
    assert faults(text) == ["training.batch_size = 64: expected at most 63, the training images of squares"]


def test_the_same_cells_twice() -> None:
    text = TEXT + '[[regularizers]]\nname = "proto-vae"\nlabel = "again"\noptions = { prototypes = 10 }\n'
    assert faults(text) == [
        "regularizers[2]: the same options and settings as regularizers[1]; leave one of them out"
    ]
    text = (
        TEXT + '[[datasets]]\nname = "tree"\nlabel = "again"\noptions = { path = "/x/photos", side = 32 }\n'
    )
    assert faults(text) == ["datasets[2]: the same images as datasets[1]; leave one of them out"]


def test_missing_data_are_said_where_planning_needs_them() -> None:
    with pytest.raises(DataError, match="missing is missing"):
        cells(TEXT.replace('"photos"', '"missing"'))


def test_a_shape_that_shows_only_with_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = fakes.registry()
    text = TEXT.replace('"tree"', '"late"').replace("side = 32", "side = 9")
    suite = build_suite(tomllib.loads(text), registry)
    monkeypatch.setattr(fakes.Late, "present", True)
    with pytest.raises(SuiteError) as caught:
        expand(suite, registry, ROOT, lambda _: "fp32")
    assert [str(fault) for fault in caught.value.faults] == [
        "datasets[1]: the metric ssim needs images of 11 x 11 pixels or more; these have 9 x 9",
        "datasets[1]: images of 9 x 9 pixels cannot be halved once (a side is halved while it is even and above 4); "
        "the nearest sides that can: 8 and 10",
    ]


def test_a_data_set_with_a_bug_is_named() -> None:
    with pytest.raises(PluginError, match=r"the data set 'buggy' \(fake.py\) failed: KeyError: 'oops'"):
        cells(TEXT.replace('"squares"', '"buggy"'))
