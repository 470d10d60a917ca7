"""What `dropout-lint fix --write` writes for models of public packages, read as their maintainers would.

    python -m benchmarks.fixes_third_party                       all (about an hour of one core, after pip)
    python -m benchmarks.fixes_third_party --only monai/VNet     one model
    python -m benchmarks.fixes_third_party --page                the page alone, from what lies in --cache

Each package is copied into a scratch project as published, so that it is not installed and may be edited.
There `check --fixes` and `fix --write` run by the command line, and Δ is measured at every norm
by brute force as published and with the diff (`benchmarks/third_party/measured.py`).
The verdicts stand in `verdicts.toml`, keyed by the diff's hash:
a diff that has changed has none until it is read again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from ..third_party.models import entries
from ..third_party.packages import install
from .page import report
from .records import Record, verdicts
from .run import record

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE, DIFFS = RESULTS / "fixes-third-party.md", RESULTS / "fixes-third-party"
LARGE = 20_000
"""Characters from which on a diff is not kept beside the page."""
OURS = ("torch-geometric/Data", "torch-geometric/DeepGCNLayer", "torch-geometric/GPSConv", "dropblock")
"""Models whose outermost module stands in `benchmarks/third_party`: their diffs would be about our code."""


def main() -> None:
    """Fix, measure, print and save."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fixes_third_party",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    third = ROOT / "benchmarks" / "third_party"
    parser.add_argument("--only", help="comma-separated beginnings of package/model")
    parser.add_argument("--packages", type=Path, default=third / "packages", help="folder to install into")
    parser.add_argument("--cache", type=Path, default=third / "fixes", help="folder that keeps what was done")
    parser.add_argument("--scratch", type=Path, default=third / "scratch", help="folder for the projects")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one step of one model")
    parser.add_argument("--page", action="store_true", help="do nothing but write the page")
    options = parser.parse_args()
    only = tuple(options.only.split(",")) if options.only else ("",)
    keys = [key for key in entries() if key.startswith(only) and not key.startswith(OURS)]
    cache = options.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    if not options.page:
        install(options.packages.absolute())
        for key in keys:
            done = record(key, options.packages.absolute(), options.scratch.absolute(), options.limit)
            (cache / f"{key.replace('/', '--')}.json").write_bytes(msgspec.json.encode(done))
            print(f"{key}: {done.trouble or f'{len(done.asked)} asked, {len(done.did)} done'}", flush=True)
    files = [cache / f"{key.replace('/', '--')}.json" for key in entries()]
    records = [msgspec.json.decode(file.read_bytes(), type=Record) for file in files if file.exists()]
    DIFFS.mkdir(parents=True, exist_ok=True)
    for old in DIFFS.glob("*.diff"):
        old.unlink()
    for done in records:
        if 0 < len(done.diff) < LARGE:
            (DIFFS / f"{done.model.replace('/', '--')}.diff").write_text(done.diff, encoding="utf-8")
    PAGE.write_text(report(records, verdicts()), encoding="utf-8")


if __name__ == "__main__":
    main()
