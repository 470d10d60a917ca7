"""`dropout-lint measure`: the measured shift at every norm, on the user's batches or on noise."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import rich_click as click

from dropout_lint import __version__
from dropout_lint.cli import console, options
from dropout_lint.errors import UsageError
from dropout_lint.loading.compat import own_process
from dropout_lint.report import render
from dropout_lint.report.context import Context
from dropout_lint.report.convert import report_of
from dropout_lint.report.measured import table
from dropout_lint.runs.check import rules_of

if TYPE_CHECKING:
    from dropout_lint.measurement.validate import Validation
    from dropout_lint.report.schema import TargetInfo

# the other FORMATS of `check` speak of findings alone
FORMATS = click.Choice(["text", "json", "html"])


@click.command("measure", context_settings={"help_option_names": ["-h", "--help"]})
@options.targets(required=True, many=False)
@click.option(
    "--data",
    metavar="MOD:LOADER",
    help="An iterable of batches, or a function that returns one (package.module:loader, file.py:loader;"
    " arguments as for TARGET). Without it the batches are the values of the example inputs that the model's"
    " code gives, else random noise, and the report says which.",
)
@click.option(
    "--batches", type=click.IntRange(1), metavar="N", help="Most batches to use, over all processes."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Samples of a random batch, instead of example inputs too. [default: 16 where guessed]",
)
@options.inputs()
@options.checkpoint()
@click.option(
    "--device", default="auto", metavar="auto|cpu|cuda[:N]", show_default=True, help="Where the model runs."
)
@click.option("--amp", is_flag=True, help="Mixed precision, as in training with autocast.")
@click.option(
    "--statistics",
    type=click.Choice(["auto", "stored", "measured"]),
    default="auto",
    show_default=True,
    help="What norms normalise by in test mode: their running statistics, or what train mode shows."
    " auto: stored where they were trained and --data is given, but measured with --pilot.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.01,
    show_default=True,
    help="Stop once every 95 % interval is at most this far either side; 0 uses all batches.",
)
@click.option("--per-dropout", is_flag=True, help="Also measure with each dropout switched off alone.")
@click.option(
    "--compare-fixed", is_flag=True, help="Fix the graph, measure again and show both side by side."
)
@click.option(
    "--pilot",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Train a copy for so many steps of AdamW on --data first, and measure that: Δ as training really"
    " leads to it. With --compare-fixed also for the graph fixed by every strategy, side by side.",
)
@click.option(
    "--loss",
    metavar="MOD:FN",
    help="With --pilot: fn(output, batch) -> scalar. [default: cross-entropy with the batch's labels]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="RATE",
    help="With --pilot: of AdamW. [default: 0.001]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    help="With --pilot: what the masks are drawn from. [default: 0]",
)
@click.option("--plot", metavar="FILE", help="Draw shift ratio by norm index (.png, .svg, .pdf).")
@click.option(
    "--output-format", type=FORMATS, default="text", show_default=True, help="Format of the report."
)
@click.option("--output-file", metavar="FILE", help="Write the report there instead of to stdout.")
@options.selection()
@options.config()
@options.verbosity()
def command(
    *,
    output_format: str,
    output_file: str | None,
    config: str | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    delta_threshold: float | None,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> int:
    """Measure the variance shift between train and test mode at every norm that remembers its variance.

    TARGET is as for `check`. The model is left as it was; nothing is trained but, with --pilot, a copy. For
    every norm: Δ = Var_test / Var_train of its input with a 95 % interval, the shift ratio max(Δ, 1/Δ), how
    far the mean moves (in train standard deviations), and the Δ that is predicted without running the model.

    Many processes: `torchrun --nproc-per-node N -m dropout_lint measure TARGET --data …`. Each takes every
    N-th batch (a loader with a DistributedSampler keeps its own share), and the result is that of one
    process.

    Exit status: 0 measured, 2 it could not be measured.
    """
    del verbose  # read by the group, which shows tracebacks
    loaded = options.settings(
        config,
        select=select,
        ignore=ignore,
        delta_threshold=delta_threshold,
        input=given.pop("input"),
        checkpoint=given.pop("checkpoint"),
    )
    own = loaded.settings.for_target(given["target"])
    rules = rules_of(own)
    own_process()
    from dropout_lint.runs.linting import options_of
    from dropout_lint.runs.measure import measured, piloted

    run: Callable[..., tuple[TargetInfo, Validation]] = piloted
    training = {name: given.pop(name) for name in ("pilot", "loss", "learning_rate", "seed")}
    given |= {name: value for name, value in training.items() if value is not None}
    plot = given.pop("plot")
    if training["pilot"] is None:
        for name, value in training.items():
            if value is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} is for a pilot, and nothing is trained without one",
                    "say for how many steps: --pilot 200",
                )
        run = partial(measured, fix_required=True)
    elif given.pop("batch_size") is not None:
        raise UsageError(
            "--batch-size is for random batches, and a pilot trains on those of --data", "leave it out"
        )

    for file in (output_file, plot):
        if file:
            console.require_folder(file)
    with ExitStack() as stack:
        stdout = stack.enter_context(console.report_stream())
        rank = stack.enter_context(process_group(given["device"]))
        info, result = run(
            quiet=quiet or rank != 0,
            input=tuple(own.input),
            checkpoint=own.checkpoint,
            options=options_of(own, rules),
            **given,
        )
        if rank != 0:
            return 0
        if plot:
            result.before.plot(
                plot,
                after=result.after,
                predicted={row.norm: row.predicted for row in result.rows if row.predicted is not None},
                title=info.target + (f", trained for {result.steps} steps" if result.steps else ""),
            )
        if output_format == "text":
            text = as_text(info, result, stdout, quiet, bool(output_file))
        else:
            context = Context(threshold=own.delta_threshold)
            text = render(report_of([info], __version__), output_format, context)
        if output_file:
            console.write_file(output_file, text)
        else:
            stdout.write(text)
    return 0


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """The process group that torchrun's environment asks for, for the time of the command; gives the rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0
        return
    import torch
    import torch.distributed as dist

    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def as_text(info: TargetInfo, result: Validation, stdout: Any, quiet: bool, to_file: bool) -> str:
    """The report for people."""
    shapes = f" on {', '.join(info.inputs)}" if info.inputs else ""
    head = "" if quiet else f"{info.target}  {info.model}{shapes}\n"
    encoding = (getattr(stdout, "encoding", None) or sys.stdout.encoding or "ascii").lower().replace("-", "")
    body = table(
        replace(result, notes=() if quiet else tuple(info.notes)),
        pilot=info.measured.pilot if info.measured else None,
        width=80 if to_file else console.width_of(stdout),
        color=not to_file and console.use_color(stdout),
        fancy=encoding.startswith("utf"),
    )
    return head + body
