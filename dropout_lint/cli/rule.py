"""`dropout-lint rule`: explain one rule, or list them all."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from dropout_lint.cli import console, options
from dropout_lint.cli.completion import complete
from dropout_lint.report.style import Style
from dropout_lint.rules import load_rules

if TYPE_CHECKING:
    from dropout_lint.rules.findings import Rule


def markdown(rule: Rule) -> str:
    """The whole rule as Markdown."""
    lines = [
        f"# {rule.code} {rule.name}",
        "",
        f"Severity: **{rule.severity}** · Fix: **{rule.fix or 'none'}** · Source: {rule.source}",
        "",
    ]
    for heading, text in rule.sections.items():
        lines += [f"## {heading}", "", text.strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def listing(rules: Iterable[Rule], color: bool) -> str:
    """One line a rule."""
    style = Style(color)
    rules = sorted(rules, key=lambda rule: rule.code)
    width = max((len(rule.name) for rule in rules), default=0)
    lines = []
    for rule in rules:
        word = rule.severity.ljust(7)
        shown = style.dim(word) if rule.severity == "off" else style.severity(word, rule.severity)
        fix = f"fix: {rule.fix}" if rule.fix else ""
        lines.append(f"{style.strong(rule.code)}  {shown}  {rule.name.ljust(width)}  {fix}".rstrip())
    return "\n".join(lines) + "\n"


def as_json(rules: Iterable[Rule]) -> str:
    """The rules as a JSON list, without the paths of their files."""
    entries = [
        {
            "code": rule.code,
            "name": rule.name,
            "severity": rule.severity,
            "fix": rule.fix,
            "source": rule.source,
            "sections": dict(rule.sections),
        }
        for rule in rules
    ]
    return msgspec.json.format(msgspec.json.encode(entries), indent=2).decode() + "\n"


@click.command("rule", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "code", required=False, shell_complete=lambda ctx, parameter, incomplete: complete(incomplete)
)
@click.option(
    "--output-format",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    help="text is drawn for the terminal, and is Markdown where it is piped.",
)
@options.config()
@options.verbosity()
def command(*, code: str | None, output_format: str, config: str | None, quiet: bool, verbose: bool) -> int:
    """Explain one rule by its CODE or name, or list all of them, the project's own as well.

    A prefix of codes (DL1) lists the rules that begin so.
    """
    settings = options.settings(config).settings
    rules = load_rules(settings.rules)
    color = console.use_color(sys.stdout)
    family = rules.family(code) if code else list(rules)
    chosen = family or [rules.get(code or "")]
    if output_format == "json":
        text = as_json(chosen)
    elif family:
        text = listing(chosen, color and output_format == "text")
    elif output_format == "markdown" or not (color or sys.stdout.isatty()):
        text = markdown(chosen[0])
    else:
        draw(markdown(chosen[0]), color)
        return 0
    sys.stdout.write(text)
    return 0


def draw(text: str, color: bool) -> None:
    """Markdown drawn for the terminal."""
    from rich.console import Console
    from rich.markdown import Markdown

    width = console.width_of(sys.stdout)
    Console(file=sys.stdout, width=width, force_terminal=color, no_color=not color).print(
        Markdown(text, code_theme="ansi_dark")
    )
