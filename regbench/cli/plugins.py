"""``regbench plugins`` and ``regbench check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regbench.cli import options

if TYPE_CHECKING:
    from regbench.plugins import Plugin, Registry


def plugins(
    plugin: options.Plugin = None,
    traceback: Annotated[bool, typer.Option(help="Show where broken plugins broke.")] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--options",
            help="Show the options of one regularizer or engine.",
            autocompletion=options.names_with_options,
        ),
    ] = None,
) -> None:
    """List regularizers, data sets, metrics, figures and engines, and the plugins that are broken."""
    from rich.console import Console

    from regbench.plugins import registry

    found = registry(plugin or [])
    console = Console(soft_wrap=True)
    if name is not None:
        _options(console, found.engine(name) if name in found.engines else found.regularizer(name))
        return
    for title, known in (
        ("Regularizers", found.regularizers),
        ("Data sets", found.datasets),
        ("Metrics", found.metrics),
        ("Figures", found.figures),
        ("Engines", found.engines),
    ):
        _list(console, title, known)
    _broken(console, found, traceback)


def check(
    target: Annotated[
        str,
        typer.Argument(
            help="A regularizer's name, or a Python file with one.",
            autocompletion=options.regularizer_names,
            show_default=False,
        ),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="key=value (TOML); may be repeated.", show_default=False),
    ] = None,
    plugin: options.Plugin = None,
    device: options.Device = "cpu",
    traceback: Annotated[bool, typer.Option(help="Show the tracebacks of checks that raised.")] = False,
) -> None:
    """Run the conformance kit on a regularizer: short trainings on real digits."""
    from regbench.errors import PluginError
    from regbench.training.precision import resolve_device

    chosen = _targets(target, plugin or [])
    given = _parse_options(option or [])
    where = str(resolve_device(device))
    failed = [each.name for each in chosen if not _passes(each, where, given, traceback)]
    if failed:
        raise PluginError(
            f"not conforming: {', '.join(failed)}", hint="each failure above says how to mend it"
        )


def _passes(chosen: Plugin, device: str, given: dict[str, Any], traceback: bool) -> bool:
    from pydantic import ValidationError

    from regbench.errors import UsageError
    from regbench.testing import check as run_checks

    try:
        chosen.cls.Options(**given)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(
            f"options of {chosen.name}: {faults}", hint=f"regbench plugins --options {chosen.name} lists them"
        ) from None
    report = run_checks(chosen.cls, device=device, **given)
    typer.echo(str(report))
    for finding in report.failures if traceback else ():
        typer.echo(finding.traceback)
    return not report.failures


def _targets(target: str, files: list[Path]) -> list[Plugin]:
    from regbench.errors import PluginError
    from regbench.plugins import registry

    if not target.endswith(".py"):
        return [registry(files).regularizer(target)]
    found = registry([*files, Path(target)])
    for broken in found.broken:
        if broken.origin == str(Path(target)):
            raise PluginError(
                f"{target} is broken: {broken.reason}", hint="the last lines:\n" + _tail(broken.traceback)
            )
    chosen = [plugin for plugin in found.regularizers.values() if plugin.origin == str(Path(target))]
    if not chosen:
        raise PluginError(
            f"{target} offers no regularizer", hint="return its class from regbench_regularizers()"
        )
    return chosen


def _parse_options(pairs: list[str]) -> dict[str, Any]:
    import tomllib

    from regbench.errors import UsageError

    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--option {pair}: expected key=value", hint="for example --option weight=0.5")
        try:
            given[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            given[name.strip()] = value.strip()  # a bare word is the text itself
    return given


def _tail(traceback: str) -> str:
    return "\n".join(traceback.rstrip().splitlines()[-6:])


def _list(console: Any, title: str, known: dict[str, Plugin]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("name", "from", "what it is"):
        table.add_column(column, overflow="fold")
    for name, plugin in sorted(known.items()):
        origin = f"{plugin.distribution} {plugin.version}".strip()
        summary = (plugin.cls.__doc__ or "").strip().partition("\n")[0]
        table.add_row(*(_plain(cell) for cell in (name, origin, summary)))
    console.print(table)
    console.print()


def _options(console: Any, plugin: Plugin) -> None:
    from rich.table import Table

    table = Table(title=f"Options of {plugin.name}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("option", "type", "default", "what it does"):
        table.add_column(column, overflow="fold")
    for name, schema in plugin.cls.Options.model_json_schema().get("properties", {}).items():
        kind = _kind(schema)
        table.add_row(
            *(
                _plain(cell)
                for cell in (name, kind, str(schema.get("default")), schema.get("description", ""))
            )
        )
    console.print(table)


def _kind(schema: dict[str, Any]) -> str:
    """The type in a JSON Schema, in a few words."""
    if "anyOf" in schema:
        return " | ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(repr(value) for value in schema.get("enum", [schema.get("const")]))
    return str(schema.get("type", "any")).replace("null", "none")


def _broken(console: Any, found: Registry, traceback: bool) -> None:
    for broken in found.broken:
        console.print(_plain(f"broken: {broken.origin}: {broken.reason}"), style="bold red")
        if traceback:
            console.print(_plain(broken.traceback))
    if found.broken and not traceback:
        console.print("regbench plugins --traceback shows where they broke")


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
