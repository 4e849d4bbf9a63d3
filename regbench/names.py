"""Names of plugins, remembered for the shell's completion: loading plugins takes seconds, a keystroke must not."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from regbench import __version__

RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³])(\..*)?")
"""Names that Windows keeps for devices, whatever their ending."""


def remember(names: Mapping[str, Iterable[str]]) -> None:
    """Keep ``names`` (by kind) in the user's cache; a cache that cannot be written is no fault."""
    record = {"installed": _installed(), "names": {kind: sorted(each) for kind, each in names.items()}}
    try:
        file = _file()
        if file.exists() and json.loads(file.read_text(encoding="utf-8")) == record:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record), encoding="utf-8")
    except (OSError, ValueError):
        return


def remembered(kind: str) -> list[str]:
    """The names of one kind; loads the plugins where the installed ones have changed since."""
    try:
        record: Any = json.loads(_file().read_text(encoding="utf-8"))
        if record["installed"] == _installed():
            return list(record["names"][kind])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    from regbench.plugins import registry

    return sorted(getattr(registry(), kind))


def _file() -> Path:
    return Path(platformdirs.user_cache_dir("regbench")) / "names.json"


def _installed() -> list[str]:
    """What the names depend on: this version and the installed entry points."""
    entries = importlib.metadata.entry_points(group="regbench")
    plugins = (
        f"{e.dist.name if e.dist else ''} {e.dist.version if e.dist else ''} {e.value}" for e in entries
    )
    return [__version__, *sorted(plugins)]
