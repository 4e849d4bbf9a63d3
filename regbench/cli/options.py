"""Options that several verbs share, and how the shell completes names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def suite_files(incomplete: str) -> list[str]:
    """Suite files in the working directory and in ``suites/``, for the shell's completion."""
    files = sorted(str(path) for folder in (Path("suites"), Path()) for path in folder.glob("*.toml"))
    return [name for name in files if name.startswith(incomplete) and name != "pyproject.toml"]


def run_names(incomplete: str) -> list[str]:
    """Names of the runs below the runs directory, for the shell's completion."""
    from regbench.store.location import runs_dir
    from regbench.store.records import LOCK

    home = runs_dir()
    return sorted(p.parent.name for p in home.glob(f"*/{LOCK}") if p.parent.name.startswith(incomplete))


def regularizer_names(incomplete: str) -> list[str]:
    """Names of the regularizers that were there when regbench last looked, for the shell's completion."""
    return _known("regularizers", incomplete)


def engine_names(incomplete: str) -> list[str]:
    """Names of the engines that were there when regbench last looked, for the shell's completion."""
    return _known("engines", incomplete)


def names_with_options(incomplete: str) -> list[str]:
    """Names of regularizers and engines, for the shell's completion."""
    return [*regularizer_names(incomplete), *engine_names(incomplete)]


def dataset_names(incomplete: str) -> list[str]:
    """Names of the data sets that were there when regbench last looked, for the shell's completion."""
    return _known("datasets", incomplete)


def _known(kind: str, incomplete: str) -> list[str]:
    from regbench.names import remembered

    return [name for name in remembered(kind) if name.startswith(incomplete)]


Suite = Annotated[
    Path,
    typer.Argument(
        help="Suite file (TOML), e.g. suites/quick.toml.", autocompletion=suite_files, show_default=False
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
RunsDir = Annotated[
    Path | None,
    typer.Option(help="Where runs are kept (default: $REGBENCH_RUNS, else ./runs).", show_default=False),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where data sets are (default: $REGBENCH_DATA, else a user directory).", show_default=False
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file with plugins; may be repeated.", show_default=False),
]
