"""A progress bar on a terminal, and nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dropout_lint.measurement.session import Progress


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress | None]:
    """A reporter for `measure(progress=…)` that draws on stderr, or None where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        shown: dict[str, TaskID] = {}

        def report(done: int, total: int | None, what: str) -> None:
            if what not in shown:  # a new line, since a total that was known cannot be taken back
                for task in shown.values():
                    bar.remove_task(task)
                shown.clear()
                shown[what] = bar.add_task(what, total=total)
            bar.update(shown[what], completed=done, total=total)

        yield report
