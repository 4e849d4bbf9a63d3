"""Plugins are found, held to their contract, and kept from disturbing each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from regbench.errors import PluginError
from regbench.plugins import Broken, registry, source_hash

GOOD = """
import regbench
class Mine(regbench.Regularizer):
    "A method of mine."
    name = "mine"
@regbench.hookimpl
def regbench_regularizers():
    return [Mine]
"""


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def only_broken(path: Path) -> Broken:
    found = registry([path])
    (broken,) = [b for b in found.broken if b.origin == str(path)]
    assert set(found.regularizers) >= {"ae", "vae-kl", "infovae-mmd", "proto-vae"}, "others are not disturbed"
    return broken


def test_bundled_plugins_are_all_there() -> None:
    found = registry()
    assert {"ae", "vae-kl", "infovae-mmd", "proto-vae"} <= set(found.regularizers)
    assert {
        "digits",
        "mnist",
        "fashion-mnist",
        "kmnist",
        "cifar10",
        "cifar100",
        "svhn",
        "folder",
        "npz",
    } <= set(found.datasets)
    assert {"mse", "psnr", "ssim", "bce_excess"} <= set(found.metrics)
    assert {"reconstructions", "curves", "prototypes", "samples", "tsne"} <= set(found.figures)


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    plugin = registry([write(tmp_path, GOOD)]).regularizer("mine")
    assert plugin.cls.__doc__ == "A method of mine."
    assert plugin.distribution == "file:mine.py"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_anywhere", "import failed: ModuleNotFoundError"),
        ("raise SystemExit(3)", "import failed: SystemExit"),
        ("def broken(:", "import failed: SyntaxError"),
        ("x = 1", "it implements no hook of regbench"),
        (GOOD.replace("return [Mine]", "raise ValueError('no')"), "a hook failed: ValueError: no"),
        (GOOD.replace("return [Mine]", "return Mine"), "must return a list of Regularizer classes"),
        (GOOD.replace("return [Mine]", "return None"), "must return a list of Regularizer classes"),
        (
            GOOD.replace("return [Mine]", "return 'mine'"),
            "must return a list of Regularizer classes, not str",
        ),
        (
            GOOD.replace("return [Mine]", "return [int]"),
            "returned int, which is not a subclass of regbench.Regularizer",
        ),
        (GOOD.replace("return [Mine]", "return [3]"), "returned an instance of int"),
        (GOOD.replace('"mine"', '"Not A Name"'), "Mine.name is 'Not A Name'"),
        (GOOD.replace('    name = "mine"\n', ""), "Mine.name is None"),
        (GOOD.replace('"mine"', '"vae-kl"'), "its name 'vae-kl' is already taken by regbench.regularizers"),
        (GOOD.replace("[Mine]", "[Mine, Mine]"), "its name 'mine' is already taken by the same plugin"),
        (
            GOOD.replace("regbench_regularizers", "regbench_regularisers"),
            "did you mean regbench_regularizers?",
        ),
        (GOOD.replace("regularizers():", "regularizers(x):"), "x"),
    ],
)
def test_broken_plugins_are_listed_with_their_reason(tmp_path: Path, text: str, reason: str) -> None:
    broken = only_broken(write(tmp_path, text))
    assert reason in broken.reason
    assert broken.traceback


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("prior = ex_post = 'N(0, I)'", "Mine has both prior and ex_post"),
        ("prior = 'N(0, I)'", "Mine.prior says what is sampled from, but it does not define sample()"),
        ("ex_post = 'a mixture'", "Mine.ex_post says what is sampled from, but"),
    ],
)
def test_what_is_said_of_sampling_must_be_one_thing_and_true(
    tmp_path: Path, attributes: str, reason: str
) -> None:
    path = write(tmp_path, GOOD.replace('name = "mine"', f'name = "mine"; {attributes}'))
    assert attributes in path.read_text()
    assert reason in only_broken(path).reason


def test_a_missing_file_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="there is no such file"):
        registry([tmp_path / "nothing.py"])


def test_naming_a_broken_plugins_method_says_why_it_is_missing(tmp_path: Path) -> None:
    found = registry([write(tmp_path, GOOD.replace("return [Mine]", "raise ValueError('no')"))])
    with pytest.raises(
        PluginError, match=r"'mine' comes from a broken plugin .*: a hook failed: ValueError: no"
    ):
        found.regularizer("mine")


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"there is no regularizer 'proto-vea'; did you mean 'proto-vae'\?"):
        registry().regularizer("proto-vea")


def test_a_broken_entry_point_is_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution whose module cannot be imported."""
    info = tmp_path / "regbench_rotten-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: regbench-rotten\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[regbench]\nrotten = regbench_rotten_module\n")
    (tmp_path / "regbench_rotten_module.py").write_text("import no_such_module_anywhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = registry()
    (broken,) = [b for b in found.broken if "regbench-rotten" in b.origin]
    assert "ModuleNotFoundError" in broken.reason
    with pytest.raises(PluginError, match="comes from a broken plugin"):
        found.regularizer("rotten")


def test_an_installed_entry_point_carries_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "regbench_fresh-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: regbench-fresh\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[regbench]\nfresh = regbench_fresh_module\n")
    write(tmp_path, GOOD.replace('"mine"', '"fresh"'), "regbench_fresh_module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = registry().regularizer("fresh")
    assert (plugin.distribution, plugin.version) == ("regbench-fresh", "2.1")


def test_the_source_hash_follows_the_code_but_not_its_newlines(tmp_path: Path) -> None:
    def digest(text: str, name: str) -> str:
        (tmp_path / name).mkdir()
        path = tmp_path / name / "mine.py"
        path.write_bytes(text.encode())
        return registry([path]).regularizer("mine").source

    unix = digest(GOOD, "a")
    assert digest(GOOD.replace("\n", "\r\n"), "b") == unix
    assert digest(GOOD + "# more\n", "c") != unix


def test_bundled_methods_have_sources_of_their_own() -> None:
    found = registry().regularizers
    sources = {source_hash(found[name].cls) for name in ("ae", "vae-kl", "infovae-mmd", "proto-vae")}
    assert len(sources) == 4
