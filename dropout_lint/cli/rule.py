"""`dropout-lint rule`: explain one rule, or list them all."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from dropout_lint.cli import console, options
from dropout_lint.cli.completion import complete
from dropout_lint.errors import UsageError
from dropout_lint.loading.compat import own_process
from dropout_lint.report.style import Style
from dropout_lint.rules import load_rules
from dropout_lint.rules.loader import own_files

if TYPE_CHECKING:
    from dropout_lint.rules.findings import Rule


def markdown(rule: Rule) -> str:
    """The whole rule as Markdown."""
    mild = "" if rule.mild is None else f" (**{rule.mild.severity}** from Δ = {rule.mild.delta:.2f} on)"
    lines = [
        f"# {rule.code} {rule.name}",
        "",
        f"Severity: **{rule.severity}**{mild} · Fix: **{rule.fix or 'none'}** · Source: {rule.source}",
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
            "mild": None if rule.mild is None else asdict(rule.mild),
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
@click.option(
    "--test",
    is_flag=True,
    help="Build and lint the rules' examples: Example must be found by its rule alone, Use instead be clean.",
)
@options.config()
@options.verbosity()
def command(
    *, code: str | None, output_format: str, test: bool, config: str | None, quiet: bool, verbose: bool
) -> int:
    """Explain one rule by its CODE or name, or list all of them, the project's own as well.

    A prefix of codes (DL1) lists the rules that begin so. With --test, CODE may be a rule file or a folder of
    them; without one the project's own rules are tested. Exit status 1 where an example does not do what it
    should.
    """
    del verbose  # read by the group, which shows tracebacks
    settings = options.settings(config).settings
    if test:
        return tested(code, settings.rules, quiet)
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


def tested(code: str | None, own: list[str], quiet: bool) -> int:
    """Test the examples of the rule, of the rule file or folder, or of the project's own rules.

    Raises:
        RuleError: a rule file is malformed, or the rule is unknown.
        UsageError: there is nothing to test.
    """
    files = [*own, code] if code and Path(code).exists() and code not in own else own
    rules = load_rules(files)
    if code is None or Path(code).exists():
        names = set(own_files(load_rules([code] if code else own)))
        wanted = [rule for rule in rules if rule.path in names]
    else:
        wanted = rules.family(code) or [rules.get(code)]
    if not wanted:
        raise UsageError(
            "there is no rule to test", "name a code, a rule file, or set `rules` under [tool.dropout-lint]"
        )
    own_process()
    from dropout_lint.runs.examples import check_examples

    with console.report_stream() as stdout:
        checked = list(check_examples(rules, wanted))
        wrong = [item for item in checked if item.problem]
        for item in wrong if quiet else checked:
            stdout.write(f"{item.rule.code} {item.section}: {item.problem or 'ok'}\n")
    return int(bool(wrong))


def draw(text: str, color: bool) -> None:
    """Markdown drawn for the terminal."""
    from rich.console import Console
    from rich.markdown import Markdown

    width = console.width_of(sys.stdout)
    Console(file=sys.stdout, width=width, force_terminal=color, no_color=not color).print(
        Markdown(text, code_theme="ansi_dark")
    )
