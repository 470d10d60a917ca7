"""Predicted beside measured Δ on models of public packages that nobody here wrote.

    python -m benchmarks.third_party                          all (half an hour of one core, after pip)
    python -m benchmarks.third_party --only fastai --verbose  one package, every norm
    python -m benchmarks.third_party --only monai/VNet,keras --jobs 2

Pinned packages are installed into --packages, without what they ask for but what their imports need; torch
and torchvision are the running environment's. Measured Δ lies in --cache and is measured again only where
the model's description or a version has changed, so that a run that was stopped goes on. Every model has a
process and a time limit of its own (forks: not on Windows): a crash or a hang is a row of the table.

Without --only it writes benchmarks/results/third-party.md and .json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from . import child
from .judged import Row, as_json
from .models import entries
from .packages import install
from .page import line_of, report, summary

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
# a server that has imported torch once, and forks
CONTEXT: Any = multiprocessing.get_context("forkserver")


def run(
    package: str, keys: Sequence[str], tell: Callable[[Row], None], *, packages: Path, cache: Path, limit: int
) -> list[Row]:
    """The models of one package, each told as soon as it is there."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"packages": packages, "cache": cache, "limit": limit}
        process = CONTEXT.Process(target=child.all_of, args=(package, keys, Path(folder)), kwargs=options)
        process.start()
        rows = []
        for turn, key in enumerate(keys):
            file = Path(folder, f"{turn}.json")
            while process.is_alive() and not file.exists():
                process.join(0.2)
            if file.exists():
                rows.append(msgspec.json.decode(file.read_bytes(), type=Row))
            else:
                rows.append(Row(key, trouble=f"not measured: {package} could not be imported"))
            tell(rows[-1])
        process.join()
        return rows


def chosen(only: str | None, parser: argparse.ArgumentParser) -> list[str]:
    """The models whose names begin with one of those given."""
    keys = list(entries())
    if only is None:
        return keys
    names = only.split(",")
    for name in names:
        if not any(key.startswith(name) for key in keys):
            parser.error(f"no model begins with {name}: there are {', '.join(keys)}")
    return [key for key in keys if key.startswith(tuple(names))]


def arguments(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Command line, and the models that it asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.third_party",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", help="comma-separated beginnings of package/model")
    parser.add_argument("--packages", type=Path, default=HERE / "packages", help="folder to install into")
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="folder that keeps measurements")
    parser.add_argument("--jobs", type=int, default=1, help="packages at a time")
    parser.add_argument("--limit", type=int, default=300, help="seconds of processor time for one model")
    parser.add_argument("--output", type=Path, help="page to write, with .json beside it")
    parser.add_argument("--verbose", action="store_true", help="print every norm")
    options = parser.parse_args(argv)
    if options.jobs < 1 or options.limit <= 0:
        parser.error("--jobs and --limit should be above 0")
    keys = chosen(options.only, parser)
    if options.output is None and options.only is None:
        options.output = ROOT / "benchmarks" / "results" / "third-party.md"
    return options, keys


def told(row: Row, verbose: bool) -> None:
    """Print a model, and with `verbose` each of its norms."""
    lines = [line_of(row)]
    for norm in row.norms if verbose else ():
        shown = "unknown" if norm.predicted is None else f"{norm.predicted:.3f}"
        lines.append(f"    {norm.norm:60s} measured {norm.measured:.3f} ± {norm.error:.3f}  {shown}")
    print("\n".join(lines), flush=True)


def main() -> None:
    """Install, measure, lint, print and save."""
    options, keys = arguments()
    packages, cache = options.packages.absolute(), options.cache.absolute()
    install(packages)
    cache.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    CONTEXT.set_forkserver_preload(["benchmarks.third_party.child", "dropout_lint.api"])
    shelves: dict[str, list[str]] = {}
    for key in keys:
        shelves.setdefault(key.split("/")[0], []).append(key)
    tell = partial(told, verbose=options.verbose)
    with ThreadPoolExecutor(options.jobs) as pool:
        work = partial(run, packages=packages, cache=cache, limit=options.limit)
        shelf = pool.map(lambda item: work(*item, tell), shelves.items())
        rows = list(chain.from_iterable(shelf))
    print("\n" + summary(rows))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        command = "python -m benchmarks.third_party" + (f" --only {options.only}" if options.only else "")
        options.output.write_text(report(rows, command), encoding="utf-8")
        options.output.with_suffix(".json").write_text(json.dumps(as_json(rows), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
