"""The JSON schemas of SARIF 2.1.0: the one that Microsoft distributes, and the one that OASIS publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator

FILE = Path(__file__).parent / "data" / "sarif-2.1.0.json"
OASIS = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
GUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-5][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"
LATER_ROLES = {"conversionSource", "externalPropertyFile", "repositoryRoot"}


def microsoft() -> dict[str, Any]:
    """The schema as the npm package `@microsoft/sarif-multitool-linux` holds it; see data/README.md."""
    schema: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return schema


def oasis() -> dict[str, Any]:
    """The schema as OASIS publishes it with errata 01: Microsoft's with what is different there."""
    schema: dict[str, Any] = _stricter(microsoft())
    schema["$schema"] = "http://json-schema.org/draft-04/schema#"
    schema["id"] = OASIS
    schema["properties"]["runs"]["type"] = ["array", "null"]
    definitions = schema["definitions"]
    definitions["region"]["anyOf"] = [
        {"required": [name]} for name in ("startLine", "charOffset", "byteOffset")
    ]
    roles = definitions["artifact"]["properties"]["roles"]["items"]
    roles["enum"] = [role for role in roles["enum"] if role not in LATER_ROLES]
    return schema


def _stricter(part: Any) -> Any:
    """GUIDs by a pattern in place of a format, and the type of every enumeration named."""
    if isinstance(part, list):
        return [_stricter(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {name: _stricter(value) for name, value in part.items()}
    if found.get("format") == "uuid":
        del found["format"]
        found["pattern"] = GUID
    if isinstance(found.get("enum"), list):
        found["type"] = "string"
    return found


def problems(log: Any) -> list[str]:
    """What in a log breaks either schema, formats such as `uri` and `uri-reference` included."""
    # draft 4 does not know `uri-reference`, which the schema uses all the same
    validators = (
        Draft202012Validator(microsoft(), format_checker=Draft202012Validator.FORMAT_CHECKER),
        Draft4Validator(oasis(), format_checker=Draft7Validator.FORMAT_CHECKER),
    )
    return [f"{error.json_path}: {error.message}" for each in validators for error in each.iter_errors(log)]
