"""The tables of fields in ``docs/suites.md``, made from the models.

    python -m regbench.suite.reference docs/suites.md

writes them anew between the two marks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from regbench.api import Search
from regbench.suite.claims import KINDS, Margin
from regbench.suite.faults import show
from regbench.suite.jsonschema import model_schema
from regbench.suite.schema import DatasetEntry, FigureEntry, Model, RegularizerEntry, SuiteHead, Training
from regbench.suite.tuning import SharedSearch, Tuning

BEGIN = "<!-- fields: made by python -m regbench.suite.reference docs/suites.md -->"
END = "<!-- end of fields -->"

TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[suite]", SuiteHead),
    ("[model]", Model),
    ("[training]", Training),
    ("[[datasets]]", DatasetEntry),
    ("[[regularizers]]", RegularizerEntry),
    ("[[figures]]", FigureEntry),
    *((f'[[claims]], kind = "{kind}"', model) for kind, model in KINDS.items()),
    ("margin of a claim", Margin),
    ("[tuning]", Tuning),
    ("[tuning.search]", SharedSearch),
    ("one search", Search),
)
PLAIN = {
    "integer": "integer",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "object": "table",
}
BOUNDS = (
    ("minimum", "from"),
    ("exclusiveMinimum", "above"),
    ("maximum", "to"),
    ("exclusiveMaximum", "below"),
)


def fields() -> str:
    """All tables of fields, in Markdown."""
    return "\n".join(_section(title, model) for title, model in TABLES)


def updated(page: str) -> str:
    """The page with its fields written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{fields()}\n{END}{after}"


def _section(title: str, model: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_kind(part)} | {_default(model, name)} | {part.get('description', '')} |"
        for name, part in model_schema(model)["properties"].items()
        if "const" not in part
    ]
    head = ["| field | value | default | meaning |", "|---|---|---|---|"]
    doc = " ".join((model.__doc__ or "").split())
    return "\n".join([f"### `{title}`" if "[" in title else f"### {title}", "", doc, "", *head, *rows, ""])


def _kind(part: dict[str, Any]) -> str:
    """What may stand there: ``integer from 1``, ``list of strings``, ``"sum"`` or ``"mean"``."""
    if "anyOf" in part:
        return " or ".join(_kind(choice) for choice in part["anyOf"])
    if "enum" in part:
        return " or ".join(f"`{show(choice)}`" for choice in part["enum"])
    if "$ref" in part:
        return "table"
    if part["type"] == "array":
        return _list(part)
    if part["type"] == "object" and isinstance(part.get("additionalProperties"), dict):
        return "table of tables" if "$ref" in part["additionalProperties"] else "table of lists"
    bounds = [f"{word} {part[key]:g}" for key, word in BOUNDS if key in part and part[key] < 10**6]
    return " ".join([PLAIN[part["type"]], *bounds])


def _list(part: dict[str, Any]) -> str:
    items = part.get("prefixItems") or [part["items"]]
    if "anyOf" in items[0]:
        return f"list of {' or '.join(f'{_kind(choice)}s' for choice in items[0]['anyOf'])}"
    kind, *bounds = _kind(items[0]).split(" ", 1)
    limits = "".join(f" {bound}" for bound in bounds)
    return f"list of {f'{len(items)} ' if 'prefixItems' in part else ''}{kind}s{limits}"


def _default(model: type[BaseModel], name: str) -> str:
    info = model.model_fields[name]
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    if default is None or isinstance(default, BaseModel) or default in ({}, ()):
        return ""
    return f"`{show(list(default) if isinstance(default, tuple) else default)}`"


def main(arguments: Sequence[str]) -> None:
    """Write the fields into a page."""
    (name,) = arguments
    page = Path(name)
    page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
