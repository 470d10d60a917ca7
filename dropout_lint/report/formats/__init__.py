"""One module a format: `render(report, context) -> str`."""
