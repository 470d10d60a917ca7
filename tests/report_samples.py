"""A report with every kind of thing in it, for the tests of the formats."""

from __future__ import annotations

from types import MappingProxyType

from dropout_lint.report.context import Context
from dropout_lint.report.convert import report_of
from dropout_lint.report.drawing import Box, Drawing
from dropout_lint.report.schema import (
    DropoutInfo,
    EditInfo,
    FindingInfo,
    FixInfo,
    IgnoreInfo,
    MeasurementInfo,
    NormInfo,
    Place,
    PredictionInfo,
    Report,
    StaleInfo,
    SuppressedInfo,
    TargetInfo,
    TraceInfo,
)

SOURCE = """\
class Block(nn.Module):
    def __init__(self):
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        out = self.conv1(x)
        out = self.bn2(self.drop(out))
        return x + out
"""


def finding(
    index: int = 0,
    delta: float | None = 0.5,
    *,
    code: str = "DL101",
    severity: str = "error",
    file: str = "model.py",
    line: int | None = 7,
    column: int = 24,
) -> FindingInfo:
    name = f"blocks.{index}.drop"
    return FindingInfo(
        code=code,
        name="dropout-before-batch-norm",
        severity=severity,  # type: ignore[arg-type]
        message="dropout reaches a batch norm with no weight layer between",
        dropout=DropoutInfo(
            name=name,
            kind="Dropout",
            p=0.5,
            functional=False,
            location=Place(file=file, line=3, column=21) if line else None,
            call=Place(file=file, line=line, column=column) if line else None,
        ),
        norm=NormInfo(name=f"blocks.{index}.bn2", kind="BatchNorm2d"),
        path=[name, "add()", f"blocks.{index}.bn2"],
        weights_between=0,
        width=16,
        position="P3",
        delta=delta,
        basis="trained-estimate",
        fix=FixInfo(
            applicability="automatic",
            strategy="move",
            title="move it behind conv2",
            delta_after=0.98,
            edits=[EditInfo(file=file, first=7, last=7, text="        out = self.bn2(out)")],
        ),
        source="Li et al. 2019, Eq. 6",
    )


def target(name: str = "model.py:Net", **changes: object) -> TargetInfo:
    fields = {
        "status": "ok",
        "model": "Net",
        "inputs": ["2x3x32x32"],
        "inputs_guessed": True,
        "inputs_origin": "guessed from stem",
        "trace": TraceInfo(method="fake", nodes=31, opaque=[]),
        "findings": [finding(0, 0.5), finding(1, 0.42), finding(2, 0.61)],
        "predictions": [
            PredictionInfo(
                norm="blocks.0.bn2", delta=0.5, basis="trained-estimate", shares={"blocks.0.drop": 1.0}
            ),
            PredictionInfo(norm="blocks.1.bn2", delta=0.42, basis="trained-estimate", shares={}),
            PredictionInfo(norm="head.norm", delta=0.7, basis="trained-estimate", shares={}, shifts=False),
        ],
    }
    return TargetInfo(target=name, **{**fields, **changes})  # type: ignore[arg-type]


def everything() -> Report:
    """Findings, one without a place, suppressed ones, a partial and a failed target, unused and stale."""
    first = target(
        status="partial",
        trace=TraceInfo(method="fake", nodes=31, opaque=["decoder"], reasons={"decoder": "scripted"}),
        suppressed=[
            SuppressedInfo(by="source", finding=finding(3, 0.9), reason="measured | it <is> harmless"),
            SuppressedInfo(by="baseline", finding=finding(4, 0.8)),
        ],
        unused_ignores=[IgnoreInfo(place=Place(file="model.py", line=8), codes=["DL302"])],
        measurements=[MeasurementInfo(norm="blocks.0.bn2", delta=0.45, shift_ratio=2.2, after_fix=0.97)],
    )
    second = target("other.py:Net", findings=[finding(5, None, code="DL203", severity="info", line=None)])
    failed = TargetInfo(target="nope:x", status="error", error="no module named 'nope'", help="install it")
    report = report_of([first, second, failed], "0.1.0")
    stale = StaleInfo(target="model.py:Net", code="DL101", dropout="gone.drop", norm="gone.bn")
    return Report(
        version=1, tool=report.tool, targets=report.targets, summary=report.summary, stale_baseline=[stale]
    )


def drawing(blocks: int = 2) -> Drawing:
    boxes = [Box(name="x", label="input", kind="input", shape="2×3×32×32")]
    edges: list[tuple[int, int]] = []
    for index in range(blocks):
        start = len(boxes) - 1
        for name, label, kind, noisy in (
            ("conv1", "Conv2d", "weight", index > 0),
            ("drop", "Dropout p=0.5", "dropout", True),
            ("bn2", "BatchNorm2d", "norm", True),
            ("add", "add", "merge", True),
        ):
            edges.append((len(boxes) - 1, len(boxes)))
            boxes.append(
                Box(
                    name=f"blocks.{index}.{name}",
                    label=label,
                    kind=kind,  # type: ignore[arg-type]
                    shape="2×16×32×32",
                    delta=0.45 if name == "bn2" else None,
                    noisy=noisy,
                )
            )
        edges.append((start, len(boxes) - 1))
    boxes.append(Box(name="output", label="output", kind="output"))
    edges.append((len(boxes) - 2, len(boxes) - 1))
    return Drawing(boxes=boxes, edges=edges)


def context(**changes: object) -> Context:
    from dropout_lint.rules import load_rules

    rules = {rule.code: rule for rule in load_rules()}
    fields = {"rules": MappingProxyType(rules), "drawings": {"model.py:Net": drawing()}}
    return Context(**{**fields, **changes})  # type: ignore[arg-type]
