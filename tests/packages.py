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
    # What else is installed where the tests run is none of their business.
    own = {"regbench", *(package.name for package in PACKAGES)}
    found.regularizers = {n: plugin for n, plugin in found.regularizers.items() if plugin.distribution in own}
    return found
