"""Reports: one file a format, each `render(report, context) -> str`. Never imports torch."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

from dropout_lint.errors import UsageError
from dropout_lint.report.context import Context
from dropout_lint.report.schema import Report

# a new format is a new file in this folder and a line here
FORMATS = MappingProxyType(
    {
        "text": "dropout_lint.report.formats.text",
        "concise": "dropout_lint.report.formats.concise",
        "json": "dropout_lint.report.formats.json",
        "sarif": "dropout_lint.report.formats.sarif",
        "github": "dropout_lint.report.formats.github",
        "junit": "dropout_lint.report.formats.junit",
        "markdown": "dropout_lint.report.formats.markdown",
        "html": "dropout_lint.report.formats.html",
    }
)


def render(report: Report, format: str, context: Context | None = None) -> str:
    """The report in one format, ending in a newline.

    Raises:
        UsageError: there is no such format.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown output format {format!r}", f"formats are {', '.join(FORMATS)}")
    if context is None:
        context = Context()
    text: str = import_module(FORMATS[format]).render(report, context)
    return text if text.endswith("\n") or not text else text + "\n"


__all__ = ["FORMATS", "Context", "Report", "render"]
