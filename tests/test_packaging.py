"""What gets installed: the wheels hold what they must, and installed plugins get their rows in a table."""

from __future__ import annotations

import ast
import csv
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.packages import PACKAGES, ROOT, with_packages

SHORTEST = ROOT / "plugins" / "regbench-beta-vae"

SUITE = """
[suite]
name = "third-party"
seeds = 2
baseline = "AE"

[model]
latent = 8
features = 16
widths = [4, 8]

[training]
epochs = 2
warmup = 1
batch_size = 128

[[datasets]]
name = "digits"

[[regularizers]]
name = "ae"
label = "AE"

[[regularizers]]
name = "beta-vae"
label = "beta = {beta}"
options = { beta = 2.5 }

[[regularizers]]
name = "idec"
label = "IDEC"

[[regularizers]]
name = "rae-l2"
label = "RAE-L2"

[[regularizers]]
name = "vq-vae"
label = "VQ-VAE"
options = { prior_epochs = 1 }

[[regularizers]]
name = "wae-mmd"
label = "WAE-MMD"
"""


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Standard output; without the paths that would let this checkout be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"  # the nets are tiny; threads would only wait for each other
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheels of regbench and of all packages by distribution name, built offline with the present hatchling."""
    target = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target]
    run([*build, ROOT, *PACKAGES], target)
    return {wheel.name.partition("-")[0]: wheel for wheel in target.glob("*.whl")}


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of a new environment with the wheels installed; their dependencies are those of this one."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    purelib = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], place).strip()
    # A path in a .pth file is searched last, and .pth files below it (editable installs) are not read.
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    Path(purelib, "dependencies.pth").write_text("\n".join(ours) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run([*pip, *wheels.values()], place)
    return scripts


def test_regbench_wheel_holds_its_templates_and_nothing_else_of_the_repository(
    wheels: dict[str, Path],
) -> None:
    held = set(zipfile.ZipFile(wheels["regbench"]).namelist())
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "regbench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"regbench/py.typed", "regbench/templates/plugin/plugin.py.jinja"} <= in_tree
    assert {name for name in held if ".dist-info/" not in name} == in_tree


def test_the_new_environment_uses_the_wheels(fresh: Path, tmp_path: Path) -> None:
    names = ["regbench", *(path.name for package in PACKAGES for path in package.glob("src/*"))]
    where = f"import {', '.join(names)}; print({', '.join(f'{name}.__file__' for name in names)})"
    files = run([fresh / "python", "-c", where], tmp_path).split()
    assert len(files) == 1 + len(PACKAGES)
    for file in files:
        assert Path(file).is_relative_to(fresh.parent)


def test_every_method_of_every_package_is_listed_with_its_package(fresh: Path, tmp_path: Path) -> None:
    lines = [line.split() for line in run([fresh / "regbench", "plugins"], tmp_path).splitlines()]
    listed = {words[0]: words[1] for words in lines if len(words) > 1}
    for name, plugin in with_packages().regularizers.items():
        assert listed[name] == plugin.distribution


@pytest.mark.slow
def test_installed_plugins_get_their_rows(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    run([fresh / "regbench", "run", "suite.toml", "--device", "cpu"], tmp_path)
    run([fresh / "regbench", "report", "--out", "report"], tmp_path)
    with (tmp_path / "report" / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["quantity"] == "mse"]
    mse = {(row["method"], row["code"]): float(row["mean"]) for row in rows if row["trained"] == "True"}
    fixed = ("AE", "IDEC", "RAE-L2", "VQ-VAE", "WAE-MMD")
    assert mse.keys() == {
        *((name, "mean") for name in fixed),
        ("beta = 2.5", "mean"),
        ("beta = 2.5", "sampled"),
    }
    assert all(0 < value < 0.5 for value in mse.values())
    assert "beta = 2.5" in (tmp_path / "report" / "table.md").read_text()


@pytest.mark.slow
def test_the_plugins_own_tests_pass(fresh: Path) -> None:
    closing = run([fresh / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"], SHORTEST)
    assert re.search(r"\d+ passed", closing)


def test_the_plugin_is_one_short_file() -> None:
    (code,) = (SHORTEST / "src").rglob("*.py")
    assert len(code.read_text(encoding="utf-8").splitlines()) < 60


def imported_by(package: Path) -> set[str]:
    """Top-level names of what a package imports, but for itself and the standard library."""
    found = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {package.name}


@pytest.mark.parametrize(
    ("project", "package"),
    [(ROOT, ROOT / "regbench"), *((package, *package.glob("src/*")) for package in PACKAGES)],
    ids=["regbench", *(package.name for package in PACKAGES)],
)
def test_declared_dependencies_are_the_imported_ones(project: Path, package: Path) -> None:
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        requirement for group in metadata.get("optional-dependencies", {}).values() for requirement in group
    ]
    declared = {re.split(r"[^\w-]", line)[0] for line in metadata["dependencies"]}
    optional = {re.split(r"[^\w-]", line)[0] for line in extras}
    homes = importlib.metadata.packages_distributions()
    imported = {
        home.lower().replace("_", "-") for name in imported_by(package) for home in homes.get(name, [name])
    }
    assert declared <= imported, f"declared but never imported: {declared - imported}"
    # Triton comes with torch where torch has it, and is asked for on CUDA alone.
    undeclared = imported - declared - optional - {"triton"}
    assert not undeclared, f"imported but not declared: {undeclared}"


def test_torch_is_bounded_by_its_next_major_version_alone() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    torch = [line for line in metadata["dependencies"] if line.startswith("torch")]
    assert len(torch) == 2
    assert all(re.fullmatch(r"torch(vision)?>=[\d.]+,<\d+", line) for line in torch)
