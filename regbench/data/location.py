"""Where data sets and decoded copies lie. Below the data directory the lay-out is torchvision's."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import platformdirs

from regbench.errors import UsageError

DATA_VARIABLE = "REGBENCH_DATA"
CACHE_VARIABLE = "REGBENCH_CACHE"
LONGEST_PATH = 2048
NO_HOME = "the home directory of that user is not known"


def data_root(data_dir: Path | str | None = None) -> Path:
    """The data directory, absolute: ``data_dir`` (``--data-dir``), else ``REGBENCH_DATA``, else the default.

    It need not exist yet. An empty ``REGBENCH_DATA`` counts as unset.
    """
    return _first(
        data_dir, DATA_VARIABLE, platformdirs.user_data_path("regbench", appauthor=False) / "datasets"
    )


def cache_root() -> Path:
    """Where decoded folders and facts about array files are kept: ``REGBENCH_CACHE``, else the user's cache directory.

    All below it can be rebuilt; it may be deleted at any time.
    """
    return _first(None, CACHE_VARIABLE, platformdirs.user_cache_path("regbench", appauthor=False))


def fetch_command(name: str, root: Path) -> str:
    """The shell command that mends data set ``name`` below ``root``."""
    return f"regbench data fetch {name} --data-dir {shlex.quote(str(root))}"


def _first(given: Path | str | None, variable: str, default: Path) -> Path:
    chosen = given if given is not None else os.environ.get(variable) or default
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"{chosen}: {NO_HOME}", hint="give the full path of the directory") from error


def usable(path: Path) -> Path:
    """The path of an option, where the system could have such a file. Raises ``ValueError``."""
    try:
        path.expanduser()
    except RuntimeError:
        raise ValueError(NO_HOME) from None
    if (
        "\0" in str(path)
        or len(bytes(path)) > LONGEST_PATH
        or any(len(os.fsencode(part)) > 255 for part in path.parts)
    ):
        raise ValueError(
            f"expected a path of at most {LONGEST_PATH} bytes, 255 for each name, and no zero byte"
        )
    return path
