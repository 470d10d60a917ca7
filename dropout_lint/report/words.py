"""Numbers and names as words: how bad a Δ is, counts, the first sentences of a rule's text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from dropout_lint.report.schema import FindingInfo, PredictionInfo, Summary, TargetInfo
from dropout_lint.terms import SEVERITIES
from dropout_lint.words import count, listed, number, with_interval

SEVERITY_PLURALS = {"error": "errors", "warning": "warnings", "info": "notes"}
SEVERITY_SINGULARS = {"error": "error", "warning": "warning", "info": "note"}


def delta_range(findings: Sequence[FindingInfo]) -> str:
    """`0.41 (0.30–0.55)`, or `0.38 to 0.61` over several findings or norms; "" where none has a Δ."""
    told = [(finding.delta, finding.interval) for finding in findings]
    told += [(norm.delta, norm.interval) for finding in findings for norm in finding.norms]
    known = sorted((delta, interval) for delta, interval in told if delta is not None)
    if not known:
        return ""
    low, high = number(known[0][0]), number(known[-1][0])
    return with_interval(*known[0]) if low == high else f"{low} to {high}"


def untraced(target: TargetInfo) -> str:
    """What of a model could not be traced; "" for a model that is traced whole."""
    if target.status != "partial" or target.trace is None:
        return ""
    return f"{target.target}: could not trace {', '.join(target.trace.opaque)}"


def predicted(item: PredictionInfo) -> str:
    """`0.41 (0.30–0.55)`, `≈ 0.41 (0.30–0.55)` where an operation without a rule lies before the norm."""
    shown = with_interval(item.delta, item.interval)
    return f"≈ {shown}" if item.approximate and item.delta is not None else shown


def counts(summary: Summary) -> str:
    """`1 error and 2 notes`, "" where there are none."""
    return listed(
        [
            count(amount, SEVERITY_SINGULARS[name], SEVERITY_PLURALS[name])
            for name in SEVERITIES
            if (amount := getattr(summary, name))
        ]
    )


def set_aside(summary: Summary) -> str:
    """`2 suppressed and 1 in the baseline`, "" where there are none."""
    parts = []
    if summary.suppressed:
        parts.append(f"{summary.suppressed} suppressed")
    if summary.baselined:
        parts.append(f"{summary.baselined} in the baseline")
    return listed(parts)


def plain(markdown: str) -> str:
    """One Markdown paragraph as plain text: links by their text, no emphasis, no line breaks."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"\*\*(.+?)\*\*", r"\1", text)
    text = re.sub(r"(?<![\w*])[*_](\S(?:.*?\S)?)[*_](?![\w*])", r"\1", text)
    return " ".join(text.split())


def paragraph(markdown: str) -> str:
    """The first paragraph of a Markdown text that is no heading, list or code block, as plain text."""
    blocks = re.split(r"\n\s*\n", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL).strip())
    for block in blocks:
        if block.strip() and not re.match(r"\s*([-*+#|>]|\d+\.)\s", block):
            return plain(block)
    return plain(blocks[0]) if blocks else ""


def opening(markdown: str, limit: int = 320) -> str:
    """The first sentences of a Markdown text, about `limit` characters of them and one at least."""
    text = paragraph(markdown)
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-ZΔ`(])", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        # an abbreviation ends no sentence
        if len(kept) + len(sentence) + 1 > limit and not re.search(
            r"(Eq|Sec|Fig|Tab|Prop|al|e\.g|i\.e|cf)\.$", kept
        ):
            break
        kept += " " + sentence
    return kept


def prose(text: str, width: int) -> list[str]:
    """`text` in lines; those after the first are indented."""
    return textwrap.wrap(
        text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
