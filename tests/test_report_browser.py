"""The HTML report in a real browser: headless Chromium runs its script and says what came of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from report_samples import SOURCE, context, drawing, everything

from dropout_lint.report import render

pytest.importorskip("jinja2")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# no sandbox, since CI is often root in a container; the others keep it from talking to anyone
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

PROBE = """
<script>
addEventListener("load", () => {
  const result = {};
  const drop = [...document.querySelectorAll("li.dropout")][0];
  drop.focus();
  result.focusable = document.activeElement === drop;
  drop.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
  result.pressed = drop.getAttribute("aria-pressed");
  result.lit = [...document.querySelectorAll("li.lit > code")].map((item) => item.textContent);
  result.litLines = document.querySelectorAll("path.lit").length;
  drop.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
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
  document.title = JSON.stringify(result);
});
</script>
"""


def probe(page: str, folder: Path, width: int = 1000) -> dict[str, Any]:
    """What the page says of itself after it was used."""
    file = folder / "report.html"
    file.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), *FLAGS, f"--window-size={width},900",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
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
