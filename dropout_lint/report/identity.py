"""What a finding is known by, whatever line it stands on."""

from __future__ import annotations

import re

from dropout_lint.report.schema import FindingInfo

# a functional dropout's name ends in `@file.py:12`; the line is not part of what it is
LINE = re.compile(r"(@[^:]*):\d+$")
Key = tuple[str, str, str]


def key_of(finding: FindingInfo) -> Key:
    """What a finding is known by: code and qualified names, never a line."""
    dropout = LINE.sub(r"\1", finding.dropout.name) if finding.dropout else ""
    return finding.code, dropout, finding.norm.name if finding.norm else ""
