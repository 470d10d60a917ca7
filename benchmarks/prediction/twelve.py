"""Predicted against measured Δ at every norm, over models, places, ratios and kinds of dropout.

    python benchmarks/prediction.py                  the whole table (some hours; with --jobs 2 half)
    python benchmarks/prediction.py --quick          a small part of it (some minutes)
    python benchmarks/prediction.py --models preresnet20,vgg_bn --p 0.5 --kinds Dropout
    python benchmarks/prediction.py --jobs 8         eight settings at a time; the same figures
    python benchmarks/prediction.py --shares         check the shares too, by removing each dropout
    python benchmarks/prediction.py --held-out       networks that the assumed constants were not chosen on

Measured Δ (Li et al. 2019, Sec. 4): mean over channels of the variance of the norm's input in test mode, with
frozen statistics, over its mean in train mode, both over the same training data.

    untrained    Var_train by train-mode passes with fixed weights; these exact statistics are then frozen.
    trained      a few epochs on scikit-learn's digits; Var_train is the running variance that lies in the
    checkpoint.

Writes benchmarks/results/prediction.md and .json. With --cache DIR weights and measurements are kept there,
and only predictions are made anew.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import prediction_shares
import prediction_times
import torch
from prediction_evaluated import Result, evaluate
from prediction_measured import Case, cases, stored
from prediction_networks import KINDS, RATIOS, ROOT, models
from prediction_tables import quantile, report

T = TypeVar("T")
S = TypeVar("S")

LARGE = ("resnet18", "densenet121", "efficientnet_b0")
STATES = ("fresh", "trained")


def results_of(task: tuple[Case, list[str]], cache: Path | None, passes: int) -> list[Result]:
    """The results of one setting; one process makes them all."""
    case, states = task
    return list(evaluate(case, states, cache, passes))


def in_order(work: Callable[[T], S], tasks: Sequence[T], jobs: int) -> Iterator[S]:
    """`work` on every task, in the tasks' order, `jobs` at a time."""
    if jobs == 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, tasks)


def command_line(argv: Sequence[str]) -> str:
    """The command as anyone would type it: folders of this machine left out."""
    words, skip = [f"python benchmarks/{Path(argv[0]).name}"], False
    for word in argv[1:]:
        if skip:
            skip = False
            continue
        skip = word == "--output"
        if word == "--cache":
            words.append("--cache DIR")
            skip = True
        elif not skip:
            words.append(word)
    return " ".join(words)


def listed(text: str | None, known: Iterable[str], what: str, parser: argparse.ArgumentParser) -> list[str]:
    """The comma-separated names of an option; all known ones without it."""
    known = list(known)
    names = text.split(",") if text else known
    for name in names:
        if name not in known:
            parser.error(f"no such {what}: {name} (one of {', '.join(known)})")
    return names


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", help="comma-separated; default: all")
    parser.add_argument("--p", help="comma-separated ratios (β for Uout)")
    parser.add_argument("--kinds", help="comma-separated: " + ", ".join(KINDS))
    parser.add_argument("--places", help="comma-separated, such as P3,P6,own; default: all that a model has")
    parser.add_argument("--states", help="fresh, trained or both")
    parser.add_argument(
        "--held-out", action="store_true", help="networks that the assumed constants were not chosen on"
    )
    parser.add_argument("--quick", action="store_true", help="p = 0.5, Dropout only, small models")
    parser.add_argument(
        "--passes", type=int, default=4, help="train-mode passes over the data for an untrained model"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="settings at a time, each in a process of one thread"
    )
    parser.add_argument("--cache", type=Path, help="folder that keeps weights and measurements")
    parser.add_argument("--output", type=Path, help="where the page goes; the results' folder without it")
    parser.add_argument(
        "--shares",
        nargs="?",
        const=",".join(prediction_shares.NETWORKS),
        help="check the shares by removing each dropout; of these models only",
    )
    parser.add_argument("--times", action="store_true", help="time predictions at usual input sizes")
    parser.add_argument("--cached-only", action="store_true", help="only the settings that --cache holds")
    parser.add_argument("--verbose", action="store_true", help="print every norm")
    options = parser.parse_args()
    if options.output is None:
        name = "prediction-held-out.md" if options.held_out else "prediction.md"
        options.output = ROOT / "benchmarks" / "results" / name
    if options.cached_only and options.cache is None:
        parser.error("--cached-only needs --cache")
    if options.jobs < 1 or options.passes < 1:
        parser.error("--jobs and --passes should be at least 1")
    return parser, options


def tasks_of(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[list[tuple[Case, list[str]]], list[str]]:
    """The settings asked for with their states, and the networks whose shares are checked."""
    table = models()
    table = {name: model for name, model in table.items() if model.held_out == options.held_out}
    small = [name for name in table if name not in LARGE]
    names = listed(options.models, table, "model", parser)
    names = small if options.quick and not options.models else names
    kinds = listed(options.kinds or ("Dropout" if options.quick else None), KINDS, "kind", parser)
    try:
        ratios = [float(p) for p in options.p.split(",")] if options.p else list(RATIOS)
    except ValueError:
        parser.error(f"--p takes numbers, not {options.p}")
    if not all(0 < p < 1 for p in ratios):
        parser.error(f"--p takes ratios between 0 and 1, not {options.p}")
    if options.quick and not options.p:
        ratios = [0.5]
    every = dict.fromkeys(place for model in table.values() for place in model.places)
    places = listed(options.places, every, "place", parser)
    states = listed(options.states, STATES, "state", parser)
    shared = listed(options.shares, table, "model", parser) if options.shares else []
    tasks = []
    for case in cases(table, names, ratios, kinds):
        if case.place in places:
            cached = [s for s in states if not options.cached_only or stored(case, s, options.cache).exists()]
            tasks.append((case, cached))
    return tasks, shared


def told(result: Result, verbose: bool) -> str:
    """A line for each result, and with `verbose` one for each norm."""
    errors = result.errors()
    lines = [
        f"{result.case.key:38s} {result.basis:15s} MAE {statistics.fmean(errors):.4f}  "
        f"95% {quantile(errors, 0.95):.3f}  closed {statistics.fmean(result.errors('closed')):.3f}"
    ]
    if verbose:
        lines += [
            f"    {name:30s} measured {value:.3f}  predicted {result.predicted[name]:.3f}"
            f"  closed {result.closed[name]:.3f}"
            for name, value in result.measured.items()
        ]
    return "\n".join(lines)


def saved(results: Sequence[Result]) -> str:
    """Every norm of every result, as JSON."""
    data = [
        {
            **asdict(r.case),
            "basis": r.basis,
            "norms": {
                name: [round(r.measured[name], 4), round(r.predicted[name], 4), round(r.closed[name], 4)]
                for name in r.measured
                if name in r.predicted
            },
        }
        for r in results
    ]
    return json.dumps(data)


def main() -> None:
    """Measure, predict, print and save."""
    parser, options = arguments()
    tasks, shared = tasks_of(parser, options)
    torch.set_num_threads(1)
    work = functools.partial(results_of, cache=options.cache, passes=options.passes)
    results: list[Result] = []
    for found in in_order(work, tasks, options.jobs):
        for result in found:
            results.append(result)
            print(told(result, options.verbose), flush=True)
    page = report(results, command_line(sys.argv))
    if shared:
        judge = functools.partial(prediction_shares.verdicts, cache=options.cache, passes=options.passes)
        verdicts = []
        for some in in_order(judge, prediction_shares.settings(shared), options.jobs):
            verdicts += some
            if some:
                print(prediction_shares.row(f"{some[0].case.key}, {some[0].state}", some), flush=True)
        page += "\n" + prediction_shares.section(verdicts) + "\n"
    if options.times:
        page += "\n" + prediction_times.section() + "\n"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
    options.output.with_suffix(".json").write_text(saved(results), encoding="utf-8")
    print("\n" + page.split("## By place", maxsplit=1)[0])


if __name__ == "__main__":
    main()
