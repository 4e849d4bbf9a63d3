"""The report as one HTML file that needs nothing else: styles, script and pictures are inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from regbench import __version__
from regbench.report.draw import FigureFailure, Picture
from regbench.report.facts import Facts
from regbench.report.section import Section
from regbench.report.style import looks
from regbench.report.table import Cell, Note, Table
from regbench.store.records import Run

LARGEST_SVG = 1_500_000
"""Bytes above which a picture is embedded as PNG: drawn sharp at any size, but slow to show."""


def render(
    run: Run,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    failures: Sequence[FigureFailure],
    *,
    command: str,
    sections: Sequence[Section] = (),
) -> str:
    """The page. Everything from names, options, claims and reasons is escaped by the template."""
    environment = Environment(
        loader=PackageLoader("regbench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embed"] = _embed
    environment.filters["sort_key"] = _sort_key
    style, script = (_source(environment, name) for name in ("report.css", "report.js"))
    figures = [(title, list(group)) for title, group in groupby(pictures, key=lambda picture: picture.title)]
    page = environment.get_template("report.html")
    return page.render(
        suite=run.suite,
        facts=Facts(run),
        tables=tables,
        leading=[section for section in sections if section.lead],
        sections=[section for section in sections if not section.lead],
        shared=_shared(tables),
        figures=figures,
        failures=failures,
        colour={method: look.color for method, look in looks(run).items()},
        command=command,
        version=__version__,
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _shared(tables: Sequence[Table]) -> list[Note]:
    """Notes that stand under every table alike: the page has them once. None where there is but one table."""
    if len(tables) < 2:
        return []
    first, *others = (table.notes for table in tables)
    return [note for note in first if not note.mark and all(note in notes for notes in others)]


def _source(environment: Environment, name: str) -> Markup:
    """A file of ours as it is, not a template."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _embed(picture: Picture) -> str:
    """A picture as a data URI."""
    svg = picture.svg.read_bytes()
    if len(svg) <= LARGEST_SVG:
        return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return f"data:image/png;base64,{base64.b64encode(picture.png.read_bytes()).decode()}"


def _sort_key(cell: Cell) -> Any:
    """What a column is sorted by: the number where there is one, else the text."""
    return cell.text if cell.value is None else repr(float(cell.value))
