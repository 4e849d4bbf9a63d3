"""What gets installed: the wheels hold what they must, and an installed plugin gets its row in a table."""

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

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "plugins" / "regbench-beta-vae"

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
    """Wheels of regbench and of the plugin by distribution name, built offline with the present hatchling."""
    target = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target]
    run([*build, ROOT, PLUGIN], target)
    return {wheel.name.partition("-")[0]: wheel for wheel in target.glob("*.whl")}


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of a new environment with both wheels installed; their dependencies are those of this one."""
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
    where = "import regbench, regbench_beta_vae as p; print(regbench.__file__, p.__file__)"
    for file in run([fresh / "python", "-c", where], tmp_path).split():
        assert Path(file).is_relative_to(fresh.parent)


@pytest.mark.slow
def test_an_installed_plugin_gets_its_row(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    assert "beta-vae" in run([fresh / "regbench", "plugins"], tmp_path)
    run([fresh / "regbench", "run", "suite.toml", "--device", "cpu"], tmp_path)
    run([fresh / "regbench", "report", "--out", "report"], tmp_path)
    with (tmp_path / "report" / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["quantity"] == "mse"]
    mse = {(row["method"], row["code"]): float(row["mean"]) for row in rows if row["trained"] == "True"}
    assert mse.keys() == {("AE", "mean"), ("beta = 2.5", "mean"), ("beta = 2.5", "sampled")}
    assert all(0 < value < 0.5 for value in mse.values())
    assert "beta = 2.5" in (tmp_path / "report" / "table.md").read_text()


@pytest.mark.slow
def test_the_plugins_own_tests_pass(fresh: Path) -> None:
    closing = run([fresh / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"], PLUGIN)
    assert re.search(r"\d+ passed", closing)


def test_the_plugin_is_one_short_file() -> None:
    (code,) = (PLUGIN / "src").rglob("*.py")
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
    [(ROOT, ROOT / "regbench"), (PLUGIN, PLUGIN / "src" / "regbench_beta_vae")],
    ids=["regbench", "regbench-beta-vae"],
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
