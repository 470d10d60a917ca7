"""The HTML report in a real browser: headless Chromium runs its script and says what came of it.

axe-core (MPL-2.0, not part of this repository) is taken from where `AXE_CORE` says, else from the package
axe-core-python of the development install.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from report_samples import SOURCE, context, drawing, everything, finding, target

from dropout_lint.report import render
from dropout_lint.report.schema import EditInfo, FixInfo

pytest.importorskip("jinja2")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# no sandbox, since CI is often root in a container; the others keep it from talking to anyone
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

TELL = "<script>const tell = (result) => { parent.document.title = JSON.stringify(result); };</script>"
PROBE = """
<script>
addEventListener("load", () => {
  const result = {};
  const drop = [...document.querySelectorAll("li.dropout")][0];
  const button = drop.querySelector("button");
  button.focus();
  result.focusable = document.activeElement === button;
  button.click();  // as Enter and the space bar do
  result.pressed = button.getAttribute("aria-pressed");
  result.lit = [...document.querySelectorAll("li.lit code")].map((item) => item.textContent);
  result.litLines = document.querySelectorAll("path.lit").length;
  button.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
  result.litAfterEscape = document.querySelectorAll("li.lit").length;
  const find = document.querySelector(".find");
  find.value = "blocks.1.";
  find.dispatchEvent(new Event("input"));
  result.found = document.querySelector(".found").textContent;
  find.value = "";
  find.dispatchEvent(new Event("input"));
  const background = () => getComputedStyle(document.body).backgroundColor;
  result.light = background();
  document.getElementById("theme").click();
  result.dark = background();
  result.wider = document.documentElement.scrollWidth > innerWidth;
  const rows = document.querySelectorAll(".rows li");
  const dots = document.querySelectorAll(".lanes circle");
  const middle = (item) => {
    const box = item.getBoundingClientRect();
    return (box.top + box.bottom) / 2;
  };
  result.offset = Math.max(...[...rows].map((row, i) => Math.abs(middle(row) - middle(dots[i]))));
  result.rows = rows.length;
  tell(result);
});
</script>
"""


def probe(page: str, folder: Path, width: int = 1000, script: str = PROBE) -> dict[str, Any]:
    """What the page says of itself after it was used; in a frame, since no window is as narrow as a phone."""
    inner = page.replace("</body>", TELL + script + "</body>")
    file = folder / "report.html"
    frame = f'<iframe width="{width}" height="900" srcdoc="{escape(inner)}"></iframe>'
    file.write_text(f"<!doctype html><title></title>{frame}", encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), *FLAGS, f"--window-size={width + 100},1000",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    result: dict[str, Any] = json.loads(unescape(title[1]))
    return result


@pytest.mark.parametrize(("blocks", "width"), [(2, 1000), (300, 520)])
def test_the_drawing_answers_to_the_keyboard(
    blocks: int, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(SOURCE)
    page = render(everything(), "html", context(drawings={"model.py:Net": drawing(blocks)}))
    result = probe(page, tmp_path, width)
    assert result["rows"] == len(drawing(blocks).boxes)
    assert result["focusable"] and result["pressed"] == "true"
    assert result["lit"] == ["blocks.0.drop", "blocks.0.bn2"]
    assert result["litLines"] == 1
    assert result["litAfterEscape"] == 0
    assert result["found"] == f"4 of {result['rows']} operations"
    assert result["light"] != result["dark"]
    assert not result["wider"]
    assert result["offset"] <= 1


CUT = """
<script>
addEventListener("load", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  const cut = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const holder = walk.currentNode.parentElement;
    const scrolls = innerWidth > 600 && holder.closest(".code, .scroll, pre");
    const drawn = holder.closest("script, .hidden, .skip, svg");
    if (!walk.currentNode.data.trim() || drawn || scrolls) continue;
    const range = document.createRange();
    range.selectNodeContents(walk.currentNode);
    if ([...range.getClientRects()].some((box) => box.right > innerWidth)) cut.push(holder.outerHTML);
  }
  tell({cut, width: document.documentElement.scrollWidth, inner: innerWidth});
});
</script>
"""


@pytest.mark.parametrize("width", [420, 800, 1400])
def test_no_text_is_cut(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(SOURCE.replace("out = self", "a_long_name = another_name = self" * 4))
    edit = EditInfo(file="model.py", first=7, last=7, text="        out = self.a_long_name(out) + 1" * 6)
    fix = FixInfo(
        applicability="automatic", strategy="move", title="move " + "a.long.name" * 20, edits=[edit]
    )
    long = structs.replace(finding(0), fix=fix, message="a.long.name." * 20)
    report = everything()
    report = structs.replace(
        report, targets=[*report.targets, target("package.module:" * 12, findings=[long])]
    )
    result = probe(render(report, "html", context()), tmp_path, width, CUT)
    assert result["inner"] == width
    assert result["width"] <= width
    assert not result["cut"]


AXE_RUN = """
<script>
addEventListener("load", async () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  document.documentElement.classList.add("THEME");
  const found = await axe.run();
  const wrong = found.violations.map((rule) => [rule.impact, rule.id, rule.nodes[0].html]);
  tell({wrong, looked: found.passes.length});
});
</script>
"""


def axe() -> Path | None:
    """The script of axe-core, None where it is not installed."""
    package = find_spec("axe_core_python")
    folder = Path(package.origin or "").parent if package else Path()
    given = Path(os.environ.get("AXE_CORE", folder / "axe.min.js"))
    return given if given.is_file() else None


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 800, 1400])
def test_axe_finds_nothing(theme: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = axe()
    if script is None:
        pytest.skip("needs axe-core-python, or an axe.min.js named by AXE_CORE")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(SOURCE)
    page = render(everything(), "html", context())
    run = f"<script>{script.read_text(encoding='utf-8')}</script>" + AXE_RUN.replace("THEME", theme)
    result = probe(page, tmp_path, width, run)
    assert result["looked"] > 10
    assert not result["wrong"]
