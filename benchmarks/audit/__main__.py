"""What the linter finds in models that others published.

    python -m benchmarks.audit                      all of them (about half an hour of one core)
    python -m benchmarks.audit --only timm --match efficientnet

torchvision and timm are the extra `zoo`; what the environment lacks is taken from --packages. A lint that is
in --cache is not done again, unless the tool's source has changed. Without --only and --match it writes
benchmarks/results/audit.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from .linted import lint
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
    parser.add_argument("--packages", type=Path, help="folder with further packages")
    parser.add_argument("--cache", type=Path, default=Path(__file__).with_name("cache"))
    parser.add_argument("--limit", type=int, default=180, help="seconds for one model")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.packages:
        sys.path.append(str(options.packages.absolute()))
    options.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for target in targets():
        if options.only in (None, target.package) and options.match in target.name:
            row = lint(target, options.cache.absolute(), options.limit)
            rows.append(row)
            told = row.trouble or f"worst Δ {row.worst}, {len(row.loud)} errors and warnings"
            print(f"{target.name}: {told}", flush=True)
    print(counts(rows))
    if not options.only and not options.match:
        PAGE.write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
