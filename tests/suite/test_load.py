"""Reading suite files: what is in them, and files that are none."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from regbench.errors import SuiteError
from regbench.plugins import Registry
from regbench.suite.load import build_suite, load_suite
from regbench.suite.methods import families_of, methods_of
from regbench.suite.schema import RegularizerEntry, Suite
from tests.suite import fakes

REGISTRY = fakes.registry()

TEXT = """
[suite]
name = "my-suite"
description = "Ä small one"
seeds = 2
metrics = ["mse", "ssim"]

[training]
epochs = 20
batch_size = 64

[[datasets]]
name = "squares"

[[datasets]]
name = "tree"
label = "my images"
options = { path = "photos", side = 32 }
training = { epochs = 40, lr = 0.01 }

[[regularizers]]
name = "vae-kl"
label = "VAE-KL"

[[regularizers]]
name = "ae"
label = "AE"

[[regularizers]]
name = "proto-vae"
label = "ProtoVAE K={prototypes} {{v}}"
sweep = { prototypes = [1, 10] }
training = { lr = 1 }
model = { latent = 8 }

[[claims]]
kind = "difference"
statement = "K = 10 improves on K = 1"
methods = ["ProtoVAE K=10 {v}"]
references = ["ProtoVAE K=1 {v}"]
"""


def build(text: str, registry: Registry = REGISTRY) -> Suite:
    return build_suite(tomllib.loads(text), registry)


def labels(entry: dict[str, Any]) -> list[str]:
    parsed = RegularizerEntry.model_validate(entry)
    methods, faults = methods_of(parsed, 0, REGISTRY.regularizer(parsed.name))
    assert not faults
    return [method.label for method in methods]


def test_a_whole_suite(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(TEXT, encoding="utf-8")
    suite = load_suite(path, REGISTRY)
    assert (suite.name, suite.seeds, suite.metrics) == ("my-suite", (0, 1), ("mse", "ssim"))
    assert suite.baseline == "AE", "the first that uses ae, where none is named"
    assert [entry.title for entry in suite.datasets] == ["squares", "my images"]
    assert (suite.path, suite.file) == (path, str(path))
    assert suite.claims[0].kind == "difference"
    assert suite.claims[0].direction == "better"
    assert suite.claims[0].metric == "mse"


def test_later_settings_win() -> None:
    suite = build(TEXT)
    squares, tree = suite.datasets
    vae, _, proto = suite.regularizers
    of = suite.training_for
    assert [of(d, r).epochs for d in (squares, tree) for r in (vae, proto)] == [20, 20, 40, 40]
    assert [of(d, r).lr for d in (squares, tree) for r in (vae, proto)] == [0.001, 1, 0.01, 1]
    assert of(tree, proto).batch_size == 64
    assert of(tree, proto).warmup == 10
    assert [suite.model_for(tree, r).latent for r in (vae, proto)] == [256, 8]


def test_defaults_are_those_of_the_reference_comparison() -> None:
    suite = build(TEXT)
    training = suite.training_for(suite.datasets[0], suite.regularizers[0])
    assert (training.warmup, training.lr, training.betas) == (10, 1e-3, (0.9, 0.999))
    assert (training.precision, training.loss_scale) == ("auto", "sum")
    model = suite.model_for(suite.datasets[0], suite.regularizers[0])
    assert (model.latent, model.features, model.kernel, model.bottleneck_activation) == (256, 256, 4, "relu")


def test_a_suite_is_frozen() -> None:
    suite = build(TEXT)
    with pytest.raises(ValidationError):
        suite.suite.name = "other"  # type: ignore[misc]


def test_a_suite_without_an_autoencoder_has_no_baseline() -> None:
    text = TEXT.replace('name = "ae"', 'name = "infovae-mmd"')
    assert build(text).baseline is None


@pytest.mark.parametrize(
    ("seeds", "expected"), [("1", (0,)), ("[5, 3]", (5, 3)), (str([2**63 - 1]), (2**63 - 1,))]
)
def test_seeds(seeds: str, expected: tuple[int, ...]) -> None:
    assert build(TEXT.replace("seeds = 2", f"seeds = {seeds}")).seeds == expected


@pytest.mark.parametrize(
    "seeds", ["0", "-1", "true", "1.0", "[]", "[-1]", "[1, 1]", "[true]", '"3"', "100000000000"]
)
def test_what_are_no_seeds(seeds: str) -> None:
    with pytest.raises(SuiteError, match=r"suite\.seeds = .*: expected a number of seeds"):
        build(TEXT.replace("seeds = 2", f"seeds = {seeds}"))


def test_labels_of_methods() -> None:
    assert labels({"name": "ae"}) == ["ae"]
    assert labels({"name": "proto-vae", "sweep": {"prototypes": (2, 1)}}) == [
        "proto-vae prototypes=2",
        "proto-vae prototypes=1",
    ]
    assert labels({"name": "vae-kl", "label": "beta {weight}", "sweep": {"weight": (1.0, 0.5, 1e-9)}}) == [
        "beta 1",
        "beta 0.5",
        "beta 1e-09",
    ]
    assert labels({"name": "infovae-mmd", "label": "{kernel} {bandwidth} {closed_form}"}) == [
        "gaussian none false"
    ]


def test_a_sweep_is_a_product_in_the_order_of_the_file() -> None:
    sweep = {"weight": (1.0, 2.0), "kernel": ("gaussian", "imq")}
    assert labels({"name": "infovae-mmd", "sweep": sweep}) == [
        "infovae-mmd weight=1 kernel=gaussian",
        "infovae-mmd weight=1 kernel=imq",
        "infovae-mmd weight=2 kernel=gaussian",
        "infovae-mmd weight=2 kernel=imq",
    ]


def test_families_by_method() -> None:
    text = (
        TEXT.replace('label = "VAE-KL"', 'label = "VAE-KL"\nfamily = "by hand"')
        .replace("sweep = { prototypes = [1, 10] }", 'family = "swept"\nsweep = { prototypes = [1, 10] }')
        .replace('name = "ae"\n', 'name = "ae"\nfamily = "by hand"\n')
    )
    suite = build(text)
    assert families_of(suite.regularizers, REGISTRY) == {
        "VAE-KL": "by hand",
        "AE": "by hand",
        "ProtoVAE K=1 {v}": "swept",
        "ProtoVAE K=10 {v}": "swept",
    }
    assert families_of(build(TEXT).regularizers, REGISTRY) == {}
    with pytest.raises(SuiteError, match=r"regularizers\[0\].family"):
        build(TEXT.replace('label = "VAE-KL"', 'label = "VAE-KL"\nfamily = " x"'))


def test_options_are_resolved() -> None:
    entry = RegularizerEntry(name="infovae-mmd", options={"weight": 3, "scales": [1, 2]})
    (method,), _ = methods_of(entry, 0, REGISTRY.regularizer("infovae-mmd"))
    assert method.options == {
        "weight": 3.0,
        "bandwidth": None,
        "kernel": "gaussian",
        "closed_form": False,
        "scales": [1.0, 2.0],
    }


def test_data_that_are_not_there_are_not_asked_for() -> None:
    build(TEXT.replace('"photos"', '"missing"'))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_editors_on_windows_write(tmp_path: Path, newline: str, mark: bytes) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(mark + TEXT.replace("\n", newline).encode())
    assert load_suite(path, REGISTRY).suite.description == "Ä small one"


def load_faulty(path: Path) -> tuple[list[str], str | None]:
    with pytest.raises(SuiteError) as caught:
        load_suite(path, REGISTRY)
    return [str(fault) for fault in caught.value.faults], caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[suite]\nname = x\n", "line 2, column 8: not TOML: invalid value"),
        ("[suite]\nname = 'x", 'line 2, column 10: not TOML: expected "\'"'),
        ("a = 1\na = 2\n", "line 2, column 6: not TOML: cannot overwrite a value"),
        ("[suite\n", "line 1, column 7: not TOML: expected ']' at the end of a table declaration"),
        ("x = 1979-02-30\n", "line 1, column 5: not TOML: invalid date or datetime"),
    ],
)
def test_syntax_errors_have_line_and_column(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(text, encoding="utf-8")
    (fault,), hint = load_faulty(path)
    assert fault.startswith(expected)
    assert hint == "the syntax of TOML: https://toml.io"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes("[suite]\nname = 'x'\n# ä\n".encode("latin-1"))
    assert load_faulty(path)[0] == ["line 3 = byte 0xe4: not UTF-8; save the file as UTF-8"]


def test_a_file_that_is_much_too_large(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text("#" * 1_000_000, encoding="utf-8")
    assert load_faulty(path)[0] == ["file: larger than 128 KiB; no suite is"]


def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_faulty(Path("quick")) == (
        ["file: not found"],
        "give the path of a suite file, like suites/quick.toml",
    )
    Path("suites").mkdir()
    Path("suites/quick.toml").touch()
    Path("suites/mnist.toml").touch()
    assert load_faulty(Path("quick")) == (["file: not found"], "did you mean suites/quick.toml?")
    assert load_faulty(Path("elsewhere/Quik.toml")) == (
        ["file: not found"],
        "did you mean suites/quick.toml?",
    )
    assert load_faulty(Path("zzz.toml")) == (
        ["file: not found"],
        "suites near there: suites/mnist.toml, suites/quick.toml",
    )
    assert load_faulty(Path("suites")) == (
        ["file: is a directory"],
        "suites near there: suites/mnist.toml, suites/quick.toml",
    )
    assert load_faulty(Path("suites/quick.toml/x"))[0] == ["file: not found"]


def test_a_plugin_that_is_not_installed_is_hinted_at_once(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    methods = "".join(f'[[regularizers]]\nname = "{name}"\n' for name in ("not-there", "nor-this"))
    path.write_text(f"{TEXT}\n{methods}", encoding="utf-8")
    found, hint = load_faulty(path)
    assert [fault.count("there is no regularizer") for fault in found] == [1, 1]
    assert hint is not None
    assert hint.count("must be installed first, with pip") == 1
    path.write_text(f"{TEXT}\n{methods}\n[modle]\n", encoding="utf-8")
    both = load_faulty(path)[1]
    assert both is not None
    assert hint in both
    assert "docs/suites.md describes every field" in both


def test_a_name_that_cannot_be_one() -> None:
    assert load_faulty(Path("a\0b\x1b[31m"))[0] == ["file: not found"]
    with pytest.raises(SuiteError) as caught:
        load_suite("a\0b\x1b[31m", REGISTRY)
    assert str(caught.value).startswith('"a\\u0000b\\u001b[31m": 1 fault\n')


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 5000, "x = " + "{a=" * 5000, "a" + ".a" * 3000 + " = 1", "[" + "a." * 3000 + "a]"],
    ids=["lists", "inline tables", "dotted key", "table"],
)
def test_deep_nesting(tmp_path: Path, text: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(text, encoding="utf-8")
    found = load_faulty(path)[0]
    assert any("nested more than 12 deep" in fault for fault in found)
    assert all(len(fault) < 300 for fault in found)


def test_numbers_with_thousands_of_digits(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(f"{TEXT}\n[model]\nlatent = {'9' * 5000}\n", encoding="utf-8")
    assert load_faulty(path)[0][0].startswith("file: not TOML: an integer with thousands of digits")
    path.write_text(f"{TEXT}\n[model]\nlatent = 0x{'f' * 5000}\n", encoding="utf-8")
    assert load_faulty(path)[0] == [
        "model.latent = an integer of 20000 bits: expected an integer of at most 64 bits"
    ]
