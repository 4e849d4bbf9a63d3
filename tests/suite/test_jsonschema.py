"""The JSON Schema accepts what regbench accepts, and helps with the options of each plugin."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest

from regbench.data.base import DatasetOptions
from regbench.plugins import Registry
from regbench.suite.jsonschema import json_schema
from tests.suite import fakes
from tests.suite.test_load import TEXT

SCHEMA = json_schema(fakes.registry())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
MALFORMED = Path(__file__).parent / "malformed"


def accepts(text: str) -> bool:
    return VALIDATOR.is_valid(tomllib.loads(text))


def test_it_is_a_json_schema() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_it_accepts_a_sound_suite() -> None:
    VALIDATOR.validate(tomllib.loads(TEXT))


@pytest.mark.parametrize(
    "name",
    [
        "misspelt-key",
        "not-one-of-the-choices",
        "nothing",
        "option-beside-options",
        "options",
        "out-of-range",
        "setting-in-the-wrong-table",
        "sweep",
        "swept-values",
        "table-for-list-and-list-for-table",
        "unknown-names",
        "unknown-table",
        "wrong-types",
    ],
)
def test_it_refuses_malformed_suites(name: str) -> None:
    assert not accepts((MALFORMED / f"{name}.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("entry", "sound"),
    [
        ('name = "vae-kl"\noptions = { weight = 2 }', True),
        ('name = "vae-kl"\noptions = { weight = -2 }', False),
        ('name = "vae-kl"\noptions = { prototypes = 2 }', False),
        ('name = "infovae-mmd"\noptions = { bandwidth = "median" }', True),
        ('name = "infovae-mmd"\noptions = { bandwidth = "mean" }', False),
        ('name = "proto-vae"\nsweep = { prototypes = [1, 2] }', True),
        ('name = "proto-vae"\nsweep = { prototypes = [1, 0] }', False),
        ('name = "proto-vae"\nsweep = { prototypes = [] }', False),
        ('name = "proto-vae"\nsweep = { weight = [1] }', False),
        ('name = "other"', False),
    ],
)
def test_options_and_sweeps_of_a_regularizer(entry: str, sound: bool) -> None:
    assert accepts(f"{TEXT}\n[[regularizers]]\n{entry}\n") is sound


def test_a_data_set_that_needs_options() -> None:
    assert accepts(f'{TEXT}\n[[datasets]]\nname = "tree"\noptions = {{ path = "x" }}\n')
    assert not accepts(f'{TEXT}\n[[datasets]]\nname = "tree"\n')
    assert not accepts(f'{TEXT}\n[[datasets]]\nname = "tree"\noptions = {{ side = 8 }}\n')


def described(part: Any) -> list[str]:
    """Names of properties that have no description."""
    if isinstance(part, list):
        return [name for item in part for name in described(item)]
    if not isinstance(part, dict):
        return []
    properties = part.get("properties", {})
    missing = [name for name, schema in properties.items() if not {"description", "$ref"} & schema.keys()]
    return missing + [name for item in part.values() for name in described(item)]


def test_every_field_of_a_suite_is_described() -> None:
    schema = json_schema(Registry())
    assert set(described(schema)) <= {"kind"}, "but the constant that tells claims apart"


def test_there_is_nothing_that_toml_cannot_write() -> None:
    assert "null" not in str(SCHEMA)
    assert "None" not in str(SCHEMA)


class Odd:
    """Its options hold what JSON Schema has no word for."""

    class Options(DatasetOptions):
        function: ClassVar[int] = 0
        kind: type = int


def test_a_plugin_whose_options_have_no_schema_keeps_the_others() -> None:
    registry = fakes.registry()
    registry.regularizers["odd"] = fakes.plugin("odd", Odd)
    schema = json_schema(registry)
    assert (
        "cannot say which options"
        in schema["$defs"]["regularizers.odd"]["properties"]["options"]["description"]
    )
    jsonschema.Draft202012Validator(schema).validate(tomllib.loads(TEXT))
