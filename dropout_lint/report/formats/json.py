"""The report as JSON, schema version 1.

`python -m dropout_lint.report.formats.json > docs/report.schema.json` writes the published schema anew.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dropout_lint.report.context import Context
from dropout_lint.report.schema import Report


def render(report: Report, context: Context) -> str:
    """The JSON text, indented."""
    return report.to_json() + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of the report, from the structs themselves."""
    body = msgspec.json.schema(Report)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dropout-lint report, version 1",
        **body,
    }


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode())
