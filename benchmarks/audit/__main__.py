"""What the linter finds in models that others published.

    python -m benchmarks.audit                      all of them (about half an hour of one core)
    python -m benchmarks.audit --only timm --match efficientnet

torchvision and timm are the extra `zoo`; what the environment lacks is taken from --packages. A lint that is
in --cache is not done again, unless the tool's source has changed. Without --only and --match it writes
benchmarks/results/audit.md; with --cached-only of what the cache holds, and the page says how much that is.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from .linted import kept, lint
from .page import counts, report
from .targets import targets

PAGE = Path(__file__).parents[1] / "results" / "audit.md"


def main() -> None:
    """Lint, print and save."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=["torchvision", "timm", "transformers"])
    parser.add_argument("--match", default="", help="models whose target holds this")
    parser.add_argument("--cached-only", action="store_true", help="leave out what the cache lacks")
    parser.add_argument("--packages", type=Path, help="folder with further packages")
    parser.add_argument("--cache", type=Path, default=Path(__file__).with_name("cache"))
    parser.add_argument("--limit", type=int, default=180, help="seconds for one model")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.packages:
        sys.path.append(str(options.packages.absolute()))
    options.cache.mkdir(parents=True, exist_ok=True)
    asked = [
        target
        for target in targets()
        if options.only in (None, target.package) and options.match in target.name
    ]
    rows = []
    for target in asked:
        row = kept(target, options.cache)
        if row is None and not options.cached_only:
            row = lint(target, options.cache.absolute(), options.limit)
        if row is not None:
            rows.append(row)
            told = row.trouble or f"worst Δ {row.worst}, {len(row.loud)} errors and warnings"
            print(f"{target.name}: {told}", flush=True)
    print(counts(rows))
    if not options.only and not options.match:
        PAGE.write_text(report(rows, len(asked)), encoding="utf-8")


if __name__ == "__main__":
    main()
