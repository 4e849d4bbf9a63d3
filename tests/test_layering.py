"""The shape of the house: imports point down one list, and what must stay light never imports torch."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import regbench

PACKAGE = Path(regbench.__file__).parent

# Top to bottom. A module may import from its own line and from those below it.
LAYERS: list[set[str]] = [
    {"__main__", "cli"},
    {"testing", "conformance", "scaffold", "overview"},
    {
        "workflow",
        "resolve",
        "estimate",
        "execution",
        "tuning",
        "cell",
        "assess",
        "engines",
        "verify",
        "reproduce",
        "merge",
        "doctor",
    },
    {"report"},
    {"suite"},
    {"training"},
    {"evaluation"},
    {"regularizers"},
    {"model"},
    {"plugins", "names"},
    {"hookspecs", "api", "data"},
    {"nets", "mixture", "store", "statistics", "ops"},
    {"seeding", "modes", "guard", "errors"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Base classes of plugins lie with their kind, and hookspecs and reports name them.
TORCH_FREE = ("report", "statistics", "store.records", "data.base", "errors", "cli")


@dataclass(frozen=True)
class Import:
    module: str
    """The importing module, with ``regbench.`` taken off; empty for the root."""
    target: str
    """The imported module in full; for ``from regbench import X``, where X lives."""
    public: bool
    """Imported from ``regbench`` itself, as one of its public names."""
    line: int
    top_level: bool

    def __str__(self) -> str:
        return f"regbench/{self.module.replace('.', '/')}:{self.line} imports {self.target}"


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_module(dotted: str) -> bool:
    path = PACKAGE.parent.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def statements(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """All imports but those for type checkers, and whether they run on import of the module itself."""

    def walk(node: ast.AST, top_level: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, top_level
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from walk(child, top_level)
        else:
            inside = top_level and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inside)

    return walk(tree, True)


def imports_of(file: Path) -> Iterator[Import]:
    return imports_in(file.read_text(encoding="utf-8"), module_name(file))


def imports_in(source: str, module: str) -> Iterator[Import]:
    for node, top_level in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, alias.name == "regbench", node.lineno, top_level)
            continue
        assert node.level == 0, f"{module}:{node.lineno}: relative import; write it in full"
        assert node.module is not None
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if node.module == "regbench" and alias.name in regbench.__all__:
                home = regbench._HOME.get(alias.name, inner)
                yield Import(module, home, True, node.lineno, top_level)
            else:
                target = inner if is_module(inner) else node.module
                yield Import(module, target, False, node.lineno, top_level)


FILES = sorted(file for file in PACKAGE.rglob("*.py") if "templates" not in file.parts)
IMPORTS = [found for file in FILES for found in imports_of(file)]


def layer(module: str) -> str:
    return module.partition(".")[0]


def own(target: str) -> str | None:
    """``regbench.store.files`` -> ``store.files``; ``None`` for what is not ours."""
    head, _, rest = target.partition(".")
    return rest if head == "regbench" else None


def test_every_module_has_a_layer() -> None:
    unplaced = {layer(module_name(file)) for file in FILES} - RANK.keys() - {""}
    assert not unplaced, f"give these a place in LAYERS: {sorted(unplaced)}"


def test_no_layer_is_an_empty_word() -> None:
    existing = {layer(module_name(file)) for file in FILES}
    assert RANK.keys() <= existing, f"LAYERS names what is not there: {sorted(RANK.keys() - existing)}"


def test_imports_point_down() -> None:
    lowest = len(LAYERS)
    upward = [
        str(found)
        for found in IMPORTS
        if found.module and (target := own(found.target))
        if RANK.get(layer(target), lowest) < RANK.get(layer(found.module), lowest)
    ]
    assert not upward, "\n".join(upward)


def test_no_import_cycles() -> None:
    """On import: a function may still import what lies beside its module."""
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        target = own(found.target)
        if found.module and found.top_level and target and target != found.module:
            graph.setdefault(found.module, set()).add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_bundled_regularizers_use_only_what_a_strangers_plugin_may_use() -> None:
    files = [file for file in FILES if layer(module_name(file)) == "regularizers"]
    assert len(files) >= 4
    private = [
        str(found)
        for file in files
        if file.name != "__init__.py"  # it only collects the classes for the hook
        for found in imports_of(file)
        if own(found.target) is not None and not found.public
    ]
    assert not private, "\n".join(private)


def test_command_line_modules_import_nothing_heavy_on_import() -> None:
    light = set(sys.stdlib_module_names) | {"typer"}
    heavy = [
        str(found)
        for found in IMPORTS
        if layer(found.module) == "cli" and found.top_level
        if layer(found.target) not in light
        and own(found.target) not in ("", "errors")
        and not found.target.startswith("regbench.cli")
    ]
    assert not heavy, "\n".join(heavy)


@pytest.mark.parametrize("part", TORCH_FREE)
def test_never_imports_torch(part: str) -> None:
    names = [module_name(file) for file in FILES]
    modules = [f"regbench.{name}" for name in names if f"{name}.".startswith(f"{part}.")]
    assert modules, f"there is no regbench.{part}"
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} imports torch')\n"
    )
    result = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


HEAVY = ("jinja2", "matplotlib", "numpy", "pandas", "pluggy", "pydantic", "scipy", "sklearn", "torch")


def test_help_answers_without_heavy_imports() -> None:
    program = (
        "import sys\n"
        "from regbench.cli.app import main\n"
        "sys.argv = ['regbench', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = sorted(sys.modules.keys() & set(sys.argv[2].split()))\n"
        "sys.exit(f'--help imports {heavy}' if heavy else 0)\n"
    ).replace("sys.argv[2]", repr(" ".join(HEAVY)))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def test_these_tests_see_what_they_look_for() -> None:
    source = """
import torch
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from regbench.cli import app
from regbench import Options, ops
from regbench.store.records import Run
def later():
    from regbench.suite import schema
    import numpy
"""
    seen = [(found.target, found.public, found.top_level) for found in imports_in(source, "regularizers.x")]
    assert seen == [
        ("torch", False, True),
        ("typing", False, True),
        ("regbench.api", True, True),
        ("regbench.ops", True, True),
        ("regbench.store.records", False, True),
        ("regbench.suite.schema", False, False),
        ("numpy", False, False),
    ]


def test_the_public_names_exist_and_are_sorted() -> None:
    assert sorted(regbench.__all__) == list(regbench.__all__)
    for name in regbench.__all__:
        assert getattr(regbench, name) is not None
