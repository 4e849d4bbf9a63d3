"""The JSON Schema of suite files, with the options of all installed plugins, for editors."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from regbench.plugins import Plugin, Registry
from regbench.suite.schema import Suite

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def json_schema(registry: Registry) -> Schema:
    """The schema of a whole suite file; which options an entry has follows from its name."""
    schema = model_schema(Suite)
    definitions: Schema = schema["$defs"]
    for table, entry, key, plugins in (
        ("datasets", "DatasetEntry", "name", registry.datasets),
        ("regularizers", "RegularizerEntry", "name", registry.regularizers),
        ("figures", "FigureEntry", "kind", registry.figures),
    ):
        if not plugins:
            continue
        general = definitions.pop(entry)
        for name, plugin in plugins.items():
            definitions[f"{table}.{name}"] = _entry(general, key, plugin, definitions)
        schema["properties"][table]["items"] = {"oneOf": [_reference(f"{table}.{name}") for name in plugins]}
    definitions["SuiteHead"]["properties"]["metrics"]["items"] = {"enum": list(registry.metrics)}
    complete = {"required": schema.pop("required")}
    part = {"required": ["extends"], "description": "What the suite is called, and which one it extends."}
    extending = {"required": ["suite"], "properties": {"suite": part}}
    return {"$schema": DIALECT, **schema, "anyOf": [complete, extending], "title": "regbench suite"}


def model_schema(model: type[BaseModel], prefix: str = "") -> Schema:
    """pydantic's schema of a model without what TOML has no word for: null, and defaults that are null.

    Definitions are named with ``prefix``.
    """
    schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    definitions = {f"{prefix}{name}": part for name, part in schema.pop("$defs", {}).items()}
    tidied: Schema = _tidy({**schema, "$defs": definitions})
    return tidied


def _tidy(part: Any) -> Any:
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    tidied = {key: _tidy(value) for key, value in part.items() if not _superfluous(key, value)}
    if isinstance(part.get("description"), str):
        tidied["description"] = " ".join(part["description"].split())
    choices = [choice for choice in tidied.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del tidied["anyOf"]
        return {**choices[0], **tidied}
    return {**tidied, "anyOf": choices} if choices else tidied


def _superfluous(key: str, value: Any) -> bool:
    """Titles repeat the key, discriminators the choices; defaults of nothing but nulls cannot be written."""
    if key == "title":
        return isinstance(value, str)
    if isinstance(value, dict):
        empty = all(item is None for item in value.values())
        return (key == "default" and empty) or (key == "discriminator" and "propertyName" in value)
    return key == "default" and value is None


def _entry(general: Schema, key: str, plugin: Plugin, definitions: Schema) -> Schema:
    """The schema of one plugin's entries; what its options refer to is added to ``definitions``."""
    entry = deepcopy(general)
    entry["properties"][key] = {"const": plugin.name, "description": _summary(plugin)}
    prefix = f"{plugin.name}."
    try:
        options = model_schema(plugin.cls.Options, prefix)
    except PydanticInvalidForJsonSchema as error:
        options = {
            "type": "object",
            "description": f"{plugin.name} cannot say which options it has: {error.message}",
        }
    definitions |= options.pop("$defs", {})
    required = options.get("required", [])
    if "sweep" in entry["properties"]:
        swept = options.get("properties", {})
        entry["properties"]["sweep"] |= {
            "properties": {
                name: {"type": "array", "items": part, "minItems": 1} for name, part in swept.items()
            },
            "additionalProperties": False,
        }
        search = entry["properties"]["search"]
        search |= {"properties": dict.fromkeys(swept, search["additionalProperties"])}
        search["additionalProperties"] = False
        options.pop("required", None)  # it may be swept instead
    elif required:
        entry["required"] = [*entry["required"], "options"]
    entry["properties"]["options"] = options
    return entry


def _summary(plugin: Plugin) -> str:
    return (plugin.cls.__doc__ or plugin.name).strip().partition("\n")[0]


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}
