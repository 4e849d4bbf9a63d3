"""``regbench data``: get data sets, check them, and list them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regbench.cli.options import DataDir, dataset_names
from regbench.cli.options import Plugin as PluginFiles

if TYPE_CHECKING:
    from rich.table import Table

    from regbench.data.base import Dataset
    from regbench.errors import DataError
    from regbench.plugins import Plugin, Registry

data_app = typer.Typer(no_args_is_help=True, help="Get, check and list data sets.")


Names = Annotated[list[str], typer.Argument(help="Data sets.", autocompletion=dataset_names)]
NamesOrAll = Annotated[
    list[str] | None,
    typer.Argument(help="Data sets. Default: all that are there.", autocompletion=dataset_names),
]
OptionValues = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the data set, e.g. path=photos."),
]


@data_app.command()
def fetch(names: Names, data_dir: DataDir = None, plugin: PluginFiles = None) -> None:
    """Download data sets, and replace files that are missing or damaged; those that are fine stay."""
    from regbench.data.location import data_root
    from regbench.errors import DataError

    root = data_root(data_dir)
    datasets = [_build(entry) for entry in _find(names, plugin)]
    failures: list[DataError] = []
    for dataset in datasets:
        typer.echo(f"{dataset.name}: fetching what is missing below {root}", err=True)
        try:
            with _plain_progress():
                dataset.fetch(root)
        except DataError as error:
            failures.append(error)
        else:
            typer.echo(f"{dataset.name}: complete and verified")
    _raise_all(failures)


@data_app.command()
def check(
    names: NamesOrAll = None,
    data_dir: DataDir = None,
    option: OptionValues = None,
    plugin: PluginFiles = None,
) -> None:
    """Verify every file of the data sets. Ends with exit code 4 where something is wrong."""
    from regbench.data.location import data_root
    from regbench.errors import DataError, UsageError

    root = data_root(data_dir)
    if option and len(names or ()) != 1:
        raise UsageError(
            "--option needs exactly one data set", hint="regbench data check NAME --option KEY=VALUE"
        )
    if names:
        datasets = [_build(entry, option) for entry in _find(names, plugin)]
    else:
        usable = [_build(entry) for entry in _registry(plugin).datasets.values() if not _required(entry)]
        datasets = [dataset for dataset in usable if _state(dataset, root) != "missing"]
    failures: list[DataError] = []
    table = _table("data set", "files")
    for dataset in datasets:
        typer.echo(f"{dataset.name}: verifying", err=True)
        problems = dataset.check(root)
        table.add_row(dataset.name, f"{len(problems)} wrong" if problems else "fine")
        if problems:
            failures.append(DataError("\n".join(problems), hint=dataset.mend(root)))
    _print(table)
    _raise_all(failures)


@data_app.command("ls")
def list_(data_dir: DataDir = None, plugin: PluginFiles = None) -> None:
    """List the data sets that suites can name: image size, split sizes, whether they are there, and where."""
    from regbench.data.location import data_root

    root = data_root(data_dir)
    table = _table("data set", "images", "train", "test", "state", "where")
    for entry in _registry(plugin).datasets.values():
        required = _required(entry)
        if required:
            table.add_row(entry.name, "", "", "", "needs options", ", ".join(required))
            continue
        dataset = _build(entry)
        state = _state(dataset, root)
        table.add_row(entry.name, _shape(dataset), *_sizes(dataset, root), state, _where(dataset, root))
    _print(table)


def _registry(files: list[Path] | None) -> Registry:
    from regbench.plugins import registry

    return registry(files or ())


def _find(names: list[str], files: list[Path] | None) -> list[Plugin]:
    found = _registry(files)
    return [found.dataset(name) for name in dict.fromkeys(names)]


def _required(entry: Plugin) -> list[str]:
    """Options without a default."""
    return [name for name, field in entry.cls.Options.model_fields.items() if field.is_required()]


def _build(entry: Plugin, pairs: list[str] | None = None) -> Dataset:
    from pydantic import ValidationError

    from regbench.errors import UsageError

    values: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--option {pair}: expected KEY=VALUE")
        values[key] = value
    known = list(entry.cls.Options.model_fields)
    try:
        options = entry.cls.Options(**values)
    except ValidationError as error:
        faults = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(
            f"the data set {entry.name} cannot be used with these options:\n{faults}",
            hint=f"options of {entry.name}: {', '.join(known) or 'none'}",
        ) from error
    dataset: Dataset = entry.cls(options)
    return dataset


def _state(dataset: Dataset, root: Path) -> str:
    files = dataset.files(root)
    if not files:
        return "built in"
    there = sum(path.exists() for path in files)
    return {0: "missing", len(files): "present"}.get(there, f"{there} of {len(files)} files")


def _where(dataset: Dataset, root: Path) -> str:
    files = dataset.files(root)
    return str(files[0].parent) if files else ""


def _shape(dataset: Dataset) -> str:
    side = dataset.shape.side
    return f"{side}x{side} {'grey' if dataset.shape.channels == 1 else 'RGB'}"


def _sizes(dataset: Dataset, root: Path) -> tuple[str, str]:
    from regbench.errors import DataError

    try:
        sizes = dataset.sizes(root)
    except DataError:  # its files are missing, as the column beside it says
        return "", ""
    return f"{sizes.train:,}", f"{sizes.test:,}"


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        right = column in ("train", "test")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    # Without a terminal there is no width to keep to, and a path broken in two is of no use.
    Console(width=None if sys.stdout.isatty() else 400).print(table)


@contextlib.contextmanager
def _plain_progress() -> Iterator[None]:
    """Keep torchvision's progress bar, which redraws its line, away from anything but a terminal."""
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def _raise_all(failures: list[DataError]) -> None:
    from regbench.errors import DataError

    if len(failures) == 1:
        raise failures[0]
    if failures:
        hints = dict.fromkeys(error.hint for error in failures if error.hint)
        raise DataError("\n".join(map(str, failures)), hint="\n".join(hints) or None)
