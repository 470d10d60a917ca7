"""Reports: one file a format, each `render(report, context) -> str`. Never imports torch."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from dropout_lint.errors import UsageError
from dropout_lint.report import formats
from dropout_lint.report.context import Context
from dropout_lint.report.schema import Report

FORMATS = tuple(sorted(module.name for module in iter_modules(formats.__path__)))
"""The output formats: the files of `formats/`."""


def render(report: Report, format: str, context: Context | None = None) -> str:
    """The report in one format, ending in a newline.

    Raises:
        UsageError: there is no such format.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown output format {format!r}", f"formats are {', '.join(FORMATS)}")
    if context is None:
        context = Context()
    text: str = import_module(f"{formats.__name__}.{format}").render(report, context)
    return text if text.endswith("\n") or not text else text + "\n"


__all__ = ["FORMATS", "Context", "Report", "render"]
