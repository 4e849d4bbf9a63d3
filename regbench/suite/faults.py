"""From what pydantic says to what a user can mend: dotted path, value, what was expected, nearest name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from regbench.errors import Fault

M = TypeVar("M", bound=BaseModel)

MOST_NAMES = 20
"""How many valid names a message lists."""

EXPECTED = {
    "missing": "required, but not given",
    "int_type": "expected an integer",
    "int_from_float": "expected an integer",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected a string in quotes",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "set_type": "expected a list",
    "frozen_set_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "path_type": "expected a path in quotes",
    "finite_number": "expected a finite number",
    "greater_than": "expected a number > {gt}",
    "greater_than_equal": "expected a number >= {ge}",
    "less_than": "expected a number < {lt}",
    "less_than_equal": "expected a number <= {le}",
    "multiple_of": "expected a multiple of {multiple_of}",
    "too_short": "expected at least {min_length} in the list",
    "too_long": "expected at most {max_length} in the list",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected text that matches {pattern}",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "value_error": "{error}",
    "assertion_error": "{error}",
}
"""What was expected, by pydantic's type of error; its own words are used for what is not here."""


def validate(
    model: type[M], value: Any, where: str, elsewhere: Mapping[str, str] | None = None
) -> tuple[M | None, list[Fault]]:
    """Validate one table strictly (no number from a string, no integer from a boolean).

    Args:
        where: dotted path of the table.
        elsewhere: keys that belong to another place, with what to write instead.

    Returns:
        The instance, or ``None`` and the faults.
    """
    try:
        # As JSON, because in its strict mode lists may become tuples and strings may become paths or enums.
        return model.model_validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        return None, _faults(error, model, value, where, elsewhere or {})


def validate_texts(model: type[M], value: Mapping[str, str], where: str) -> tuple[M | None, list[Fault]]:
    """Like :func:`validate`, for values that are all text, as on a command line: numbers are read from it."""
    try:
        return model.model_validate_strings(dict(value)), []
    except ValidationError as error:
        return None, _faults(error, model, value, where, {})


def salvage(
    model: type[M], value: Any, where: str, elsewhere: Mapping[str, str] | None = None
) -> tuple[M | None, list[Fault]]:
    """Like :func:`validate`, but from a faulty table comes what is left of it without the faulty keys.

    So that the faults of its other keys are found, too.
    """
    table, faults = validate(model, value, where, elsewhere)
    if faults and isinstance(value, dict):
        table, _ = validate(model, _without(value, where, [fault.where for fault in faults]), where)
    return table, faults


def _without(table: Mapping[str, Any], where: str, faulty: Sequence[str]) -> dict[str, Any]:
    """The table without its faulty keys; tables inside it lose only theirs, lists go as a whole."""
    kept = {}
    for key, item in table.items():
        place = join(where, key)
        if isinstance(item, dict) and place not in faulty:
            kept[key] = _without(item, place, faulty)
        elif sound(faulty, place):
            kept[key] = item
    return kept


def sound(faulty: Iterable[str], where: str) -> bool:
    """Whether none of the ``faulty`` dotted paths is ``where`` or lies below it."""
    return not any(path == where or path.startswith((f"{where}.", f"{where}[")) for path in faulty)


def _faults(
    error: ValidationError, model: type[BaseModel], value: Any, where: str, elsewhere: Mapping[str, str]
) -> list[Fault]:
    """One fault per place: the branches of a union are joined by "or"."""
    values: dict[str, str] = {}
    expected: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        place, absent = _locate(detail, value, where)
        if detail["type"] == "extra_forbidden":
            text = _unknown_key(detail["loc"], model, elsewhere)
        else:
            text = _expected(detail)
        values.setdefault(place, "" if absent else show(detail["input"]))
        if text not in expected.setdefault(place, []):
            expected[place].append(text)
    return [Fault(place, values[place], _either(texts)) for place, texts in expected.items()]


def _locate(detail: ErrorDetails, value: Any, where: str) -> tuple[str, bool]:
    """Dotted path of an error, and whether nothing stands there.

    pydantic's locations also hold the names of union branches; those are in no table, and are left out.
    """
    *_, last = detail["loc"] or ("",)
    for part in detail["loc"]:
        if isinstance(value, dict) and part in value:
            where, value = join(where, part), value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            where, value = join(where, part), value[part]
        elif part == last and detail["type"] == "missing":
            return join(where, part), True
    return where, False


def _expected(detail: ErrorDetails) -> str:
    template = EXPECTED.get(detail["type"])
    if template is None:
        return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}"
    context = detail.get("ctx", {})
    text = template.format(**{name: _bound(value) for name, value in context.items()})
    if detail["type"] in ("literal_error", "enum"):
        names = re.findall(r"'([^']*)'", text)
        return text.replace("'", '"') + guess(detail["input"], names)
    return text


def _bound(value: Any) -> Any:
    """pydantic makes floats of the bounds of numbers: 0.0 is shown as 0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _either(texts: Sequence[str]) -> str:
    first, *others = texts
    return " or ".join([first, *(text.removeprefix("expected ") for text in others)])


def _unknown_key(loc: Sequence[str | int], model: type[BaseModel], elsewhere: Mapping[str, str]) -> str:
    key = str(loc[-1])
    if len(loc) == 1 and key in elsewhere:
        return f"unknown key here; {elsewhere[key]}"
    return unknown("key", key, _keys_at(loc[:-1], model))


def _keys_at(loc: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Valid keys of the table at ``loc`` inside ``model``."""
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = next(iter(_models_in(model.model_fields[part].annotation)), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """``unknown key; did you mean "warmup"?``, or, where nothing is near, all that is known."""
    known = list(known)
    near = guess(name, known)
    if near:
        return f"unknown {kind}{near}"
    more = ", ..." if len(known) > MOST_NAMES else ""
    return f"unknown {kind}; known: {', '.join(known[:MOST_NAMES])}{more}" if known else f"unknown {kind}"


def guess(name: Any, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` where a known name is near, else nothing."""
    by_folded = {other.casefold(): other for other in known}
    near = (
        difflib.get_close_matches(str(name)[:100].casefold(), by_folded, n=1) if isinstance(name, str) else []
    )
    return f'; did you mean "{by_folded[near[0]]}"?' if near else ""


def join(where: str, key: str | int) -> str:
    """Extend a dotted path: ``datasets`` + 0 + ``name`` -> ``datasets[0].name``."""
    if isinstance(key, int):
        return f"{where}[{key}]"
    bare = key if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key) else show(key)
    return f"{where}.{bare}" if where else bare


def show(value: Any, limit: int = 60) -> str:
    """A value as TOML writes it, on one line, shortened to about ``limit`` characters."""
    text = _toml(value, limit, depth=3)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def show_path(path: Path) -> str:
    """A path as it was given, without characters that would disturb a terminal."""
    text = str(path)
    return text if text.isprintable() else show(text)


def _toml(value: Any, limit: int, depth: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        head = value[: limit + 1]
        return json.dumps(head, ensure_ascii=not head.isprintable())
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict | list) and value and depth == 0:
        return "{...}" if isinstance(value, dict) else "[...]"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item, limit, depth - 1) for item in value[:limit])}]"
    if isinstance(value, dict):
        items = [
            f"{join('', key)} = {_toml(item, limit, depth - 1)}" for key, item in list(value.items())[:limit]
        ]
        return f"{{ {', '.join(items)} }}" if items else "{}"
    return str(value)
