"""The plugin packages of this repository in a registry, as if they were installed."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

from regbench.plugins import Registry, add_module, registry

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


@functools.cache
def with_packages() -> Registry:
    """What is bundled, and what the packages offer."""
    found = registry()
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        (module,) = project["entry-points"]["regbench"].values()
        if not any(plugin.distribution == project["name"] for plugin in found.regularizers.values()):
            add_module(found, module, distribution=project["name"], version=project["version"])
    assert not found.broken
    return found
