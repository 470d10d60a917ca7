"""JUnit XML: a suite for each target, a case for each finding; errors and warnings are failures."""

from __future__ import annotations

import re
from xml.etree import ElementTree as xml

from dropout_lint.config.installed import short
from dropout_lint.report.context import Context
from dropout_lint.report.locations import primary, spot
from dropout_lint.report.schema import FindingInfo, Report, TargetInfo
from dropout_lint.words import severity_of_shift, with_interval

# XML 1.0, section 2.2: the characters that no document may hold
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report, context: Context) -> str:
    """The document."""
    root = xml.Element("testsuites", name=report.tool.name)
    totals = {"tests": 0, "failures": 0, "errors": 0}
    for target in report.targets:
        suite = add_suite(root, target, context)
        for key in totals:
            totals[key] += int(suite.attrib[key])
    for key, value in totals.items():
        root.set(key, str(value))
    xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def add_suite(root: xml.Element, target: TargetInfo, context: Context) -> xml.Element:
    """One target as a suite; without findings it is one case that passes."""
    suite = xml.SubElement(root, "testsuite", name=clean(target.target))
    failures = 0
    for finding in target.findings:
        failures += add_case(suite, target, finding, context)
    for entry in target.suppressed:
        case = xml.SubElement(
            suite, "testcase", classname=clean(target.target), name=clean(title(entry.finding))
        )
        reason = entry.reason or ("in the baseline" if entry.by == "baseline" else "ignored in the source")
        xml.SubElement(case, "skipped", message=clean(reason))
    if target.status == "error":
        case = xml.SubElement(suite, "testcase", classname=clean(target.target), name="lint")
        problem = xml.SubElement(case, "error", type="target", message=clean(target.error or ""))
        problem.text = clean(target.help or "")
    elif target.skipped is not None:
        case = xml.SubElement(suite, "testcase", classname=clean(target.target), name="lint")
        xml.SubElement(case, "skipped", message=clean(target.skipped))
    elif not len(suite):
        xml.SubElement(suite, "testcase", classname=clean(target.target), name="no misplaced dropout")
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", str(int(target.status == "error")))
    suite.set("skipped", str(len(target.suppressed) + (target.skipped is not None)))
    return suite


def add_case(suite: xml.Element, target: TargetInfo, finding: FindingInfo, context: Context) -> int:
    """One finding as a case; returns 1 where it is a failure."""
    case = xml.SubElement(suite, "testcase", classname=clean(target.target), name=clean(title(finding)))
    place = primary(finding)
    if place:
        case.set("file", clean(short(place.file)))
        case.set("line", str(place.line))
    lines = [spot(place), finding.message]
    if finding.path:
        lines.append("path: " + " -> ".join(finding.path))
    if finding.delta is not None:
        shown = with_interval(finding.delta, finding.interval)
        lines.append(f"delta: {shown} ({severity_of_shift(finding.delta, context.threshold)})")
    for norm in finding.norms[1:]:
        lines.append(f"{norm.name}: delta {with_interval(norm.delta, norm.interval)}")
    if finding.fix.title:
        lines.append(f"fix: {finding.fix.title}")
    text = clean("\n".join(line for line in lines if line))
    if finding.severity == "info":
        xml.SubElement(case, "system-out").text = text
        return 0
    failure = xml.SubElement(case, "failure", type=finding.severity, message=clean(finding.message))
    failure.text = text
    return 1


def title(finding: FindingInfo) -> str:
    """The name of a case: code, rule and module."""
    name = finding.dropout.name if finding.dropout else finding.norm.name if finding.norm else ""
    return f"{finding.code} {finding.name} {name}".rstrip()


def clean(text: str) -> str:
    """`text` without the characters that XML does not allow."""
    return FORBIDDEN.sub("\ufffd", text)
