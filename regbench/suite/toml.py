"""Reading a suite file: from bytes to plain TOML tables, whatever is in the file."""

from __future__ import annotations

import difflib
import math
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from regbench.errors import Fault, SuiteError
from regbench.store.location import LARGEST_SUITE
from regbench.suite.faults import join, show, show_path

MOST_BYTES = LARGEST_SUITE
DEEPEST = 12
"""Tables and lists inside each other; regbench itself needs six."""
LARGEST_INTEGER = 2**63 - 1


def read(path: Path) -> dict[str, Any]:
    """Parse the TOML file. Raises ``SuiteError`` where there is no such file or it is not TOML."""
    try:
        if (
            not stat.S_ISREG(path.stat().st_mode) and not path.is_dir()
        ):  # opening a pipe would wait for its writer
            raise SuiteError(show_path(path), [Fault("file", "", "is not a regular file")])
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        raise SuiteError(show_path(path), [Fault("file", "", "not found")], hint=_nearby(path)) from None
    except IsADirectoryError:
        raise SuiteError(show_path(path), [Fault("file", "", "is a directory")], hint=_nearby(path)) from None
    except OSError as error:
        raise SuiteError(
            show_path(path), [Fault("file", "", f"cannot be read: {error.strerror or error}")]
        ) from None
    if len(content) > MOST_BYTES:
        raise SuiteError(
            show_path(path), [Fault("file", "", f"larger than {MOST_BYTES // 1024} KiB; no suite is")]
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        fault = Fault(
            f"line {line}", f"byte 0x{content[error.start]:02x}", "not UTF-8; save the file as UTF-8"
        )
        raise SuiteError(show_path(path), [fault]) from None
    return parse(text, show_path(path))


def parse(text: str, file: str) -> dict[str, Any]:
    """Parse TOML; ``file`` names it in the ``SuiteError``."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        fault = Fault("file", "", f"lists or tables nested more than {DEEPEST} deep")
    except tomllib.TOMLDecodeError as error:
        fault = _syntax_fault(str(error), text)
    except ValueError as error:  # a number with thousands of digits, a date that is none
        digits = "integer string conversion" in str(error)
        problem = "an integer with thousands of digits" if digits else str(error)
        fault = Fault("file", "", f"not TOML: {problem}")
    raise SuiteError(file, [fault], hint="the syntax of TOML: https://toml.io")


def plain(document: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The document with values that no suite can hold taken out, and a fault for each of them."""
    faults: list[Fault] = []

    def visit(value: Any, where: str, depth: int) -> Any:
        expected = _implausible(value, depth)
        if expected:
            faults.append(Fault(where, show(value), expected))
            return None
        if isinstance(value, dict):
            return {key: visit(item, join(where, key), depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [visit(item, join(where, index), depth + 1) for index, item in enumerate(value)]
        return value

    return {key: visit(item, join("", key), 1) for key, item in document.items()}, faults


def _implausible(value: Any, depth: int) -> str:
    if isinstance(value, dict | list):
        return f"nested more than {DEEPEST} deep" if depth > DEEPEST else ""
    if isinstance(value, str | bool):
        return ""
    if isinstance(value, int):
        return "" if abs(value) <= LARGEST_INTEGER else "expected an integer of at most 64 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "expected a finite number"
    return "expected a string, number, boolean, list or table; suites hold no dates"


def _syntax_fault(message: str, text: str) -> Fault:
    """``tomllib`` says the position at the end of its message."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return Fault("file", "", f"not TOML: {message}")
    problem, line, column = found.groups()
    if line is None:
        lines = text.splitlines() or [""]
        line, column = str(len(lines)), str(len(lines[-1]) + 1)
    return Fault(f"line {line}, column {column}", "", f"not TOML: {problem[0].lower()}{problem[1:]}")


def _nearby(path: Path) -> str:
    """Suite files beside the missing one, or in ``suites/``, the most similar name first."""
    folders = (
        {path if path.is_dir() else path.parent, Path("suites")}
        if "\0" not in str(path)
        else {Path("suites")}
    )
    suites = sorted(file for folder in folders for file in folder.glob("*.toml") if file.is_file())
    stems = {file.stem.casefold(): show_path(file) for file in reversed(suites)}
    near = difflib.get_close_matches(path.stem.casefold(), stems, n=1)
    if near:
        return f"did you mean {stems[near[0]]}?"
    if suites:
        return f"suites near there: {', '.join(show_path(file) for file in suites[:8])}"
    return "give the path of a suite file, like suites/quick.toml"
