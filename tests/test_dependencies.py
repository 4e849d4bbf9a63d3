"""Every dependency has its bounds and its reason, and the page that gives them is the project's own list."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROW = re.compile(r"^\| ([a-z0-9-]+) \| (\S+) \| (.+) \|$", re.M)
"""The first of a table is its head."""


def requirements(lines: list[Any]) -> dict[str, str]:
    found = [Requirement(line) for line in lines if isinstance(line, str)]  # others include another group
    return {each.name: str(each.specifier) for each in found}


def declared() -> dict[str, dict[str, str]]:
    """Bounds by package, as ``pyproject.toml`` has them."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    groups = PROJECT["dependency-groups"].values()
    return {
        "Always": requirements(PROJECT["project"]["dependencies"]),
        "Extras": requirements([line for extra in extras for line in extra]),
        "For working on regbench": requirements([line for group in groups for line in group]),
    }


def normal(bounds: str) -> set[str]:
    return set(bounds.replace(" ", "").split(","))


def test_the_page_lists_each_dependency_with_its_bounds_and_a_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    parts = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    ours = declared()
    # Extras that the tests need as well are explained once.
    for name in ours["Extras"]:
        assert ours["For working on regbench"].pop(name, ours["Extras"][name]) == ours["Extras"][name]
    ours["For working on regbench"].pop("hatchling", None)
    build = requirements(PROJECT["build-system"]["requires"])
    ours["For working on regbench"] |= build
    for title, wanted in ours.items():
        rows = {name: (bounds, why) for name, bounds, why in ROW.findall(parts[title])[1:]}
        assert list(rows) == sorted(rows), "in the order of their names"
        assert {name: normal(bounds) for name, (bounds, _) in rows.items()} == {
            name: normal(bounds) for name, bounds in wanted.items()
        }
        assert all(len(why) > 10 for _, why in rows.values())


def test_every_dependency_is_bounded_below() -> None:
    for part in declared().values():
        for name, bounds in part.items():
            assert any(bound.startswith((">=", "==")) for bound in normal(bounds)), name


def test_this_environment_is_within_the_bounds() -> None:
    import importlib.metadata

    for line in PROJECT["project"]["dependencies"]:
        requirement = Requirement(line)
        version = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} and not {version}"
