"""`dropout-lint recalibrate`: a checkpoint in, the same checkpoint with re-estimated norm statistics out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from dropout_lint.cli import console, options
from dropout_lint.errors import UsageError
from dropout_lint.loading.usercode import user_code

if TYPE_CHECKING:
    import torch

    from dropout_lint.inputs.example import Built


@click.command("recalibrate", context_settings={"help_option_names": ["-h", "--help"]})
@options.targets(required=True, many=False)
@click.option(
    "--checkpoint",
    metavar="IN",
    required=True,
    help="The trained weights: safetensors, or whatever torch.load(weights_only=True) reads.",
)
@click.option(
    "--data",
    metavar="MODULE:LOADER",
    required=True,
    help="The training data: an iterable of batches, or a function that returns one.",
)
@click.option("--output", metavar="OUT", required=True, help="Where the new checkpoint goes.")
@click.option(
    "--metric",
    metavar="MODULE:FUNCTION",
    help="Called with the model in test mode before and after; both values are printed.",
)
@click.option("--variance-only", is_flag=True, help="Leave the running means as they are.")
@click.option(
    "--method",
    type=click.Choice(["batch", "pooled", "stages"]),
    default="batch",
    show_default=True,
    help="What the norms before a norm divide by while it is estimated: each batch's own statistics, all "
    "they have seen so far (one pass each), or their final statistics (one pass for each norm).",
)
@click.option(
    "--skip", multiple=True, metavar="NAME", help="Leave this norm, or the norms in this module, alone."
)
@click.option("--device", default="auto", show_default=True, help="Where to run: auto, cpu, cuda or cuda:1.")
@options.verbosity()
def command(
    *,
    target: str,
    checkpoint: str,
    data: str,
    output: str,
    metric: str | None,
    variance_only: bool,
    method: str,
    skip: tuple[str, ...],
    device: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Re-estimate the statistics of TARGET's norms as test mode sees them, with all dropout off.

    Writes the checkpoint again, in the same layout, with nothing but running means and variances changed, and
    marked in its metadata: `check` does not call those statistics stale, until they change.
    """
    check_files(checkpoint, output)
    with console.report_stream() as stream:
        text = recalibrated(
            target,
            checkpoint,
            data,
            output,
            metric=metric,
            device=device,
            variance_only=variance_only,
            method=method,
            skip=skip,
        )
        stream.write(f"wrote {output}\n" if quiet else f"{text}\nwrote {output}\n")
    return 0


def check_files(checkpoint: str, output: str) -> None:
    """Refuse what cannot work before anything is loaded.

    Raises:
        UsageError: the input is missing, or the output is the input, of another kind, or in no folder.
    """
    source, target = Path(checkpoint).expanduser(), Path(output).expanduser()
    if not source.is_file():
        raise UsageError(f"there is no checkpoint `{checkpoint}`", f"paths are relative to {Path.cwd()}")
    if target.is_dir():
        raise UsageError(f"--output {output} is a folder", "name the file in it")
    if target.exists() and target.samefile(source):
        raise UsageError("--output is the checkpoint itself", "name another file; move it afterwards")
    if (source.suffix == ".safetensors") != (target.suffix == ".safetensors"):
        raise UsageError(
            f"--output {output} would be another kind of file than {checkpoint}",
            f"the layout stays as it is: end the name with {source.suffix or 'no .safetensors'}",
        )
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", "make it first")


def recalibrated(
    target: str,
    checkpoint: str,
    data: str,
    output: str,
    *,
    metric: str | None,
    device: str,
    **how: Any,
) -> str:
    """Do it all, and return the report."""
    from dropout_lint.guard.wrappers import bare
    from dropout_lint.loading.checkpoint import load_checkpoint
    from dropout_lint.loading.resolving import resolve
    from dropout_lint.measurement.place import move, place
    from dropout_lint.measurement.sources import load_batches, load_function
    from dropout_lint.remedies.recalibrate import recalibrate
    from dropout_lint.remedies.rewrite import rewrite_checkpoint

    built = only_one(target, resolve(target, prefer_meta=False))
    model, notes = built.model, list(built.notes)
    load_checkpoint(model, checkpoint)
    where, moves = place(model, device)
    if moves:
        move(model, where)
    batches = load_batches(data, notes)
    score = None if metric is None else load_function(metric, "--metric", "the model")
    with user_code(f"re-estimating on {data}"):
        result = recalibrate(model, batches, metric=score, device=where, **how)
    moved = {move.name for move in result.moved}
    changed: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if bare(name) in moved:
            for buffer in ("running_var",) if result.variance_only else ("running_mean", "running_var"):
                changed[f"{name}.{buffer}".lstrip(".")] = getattr(module, buffer).cpu()
    rewrite_checkpoint(checkpoint, output, model, changed)
    for note in (*notes, *result.notes):
        console.say(f"note: {note}")
    return str(result)


def only_one(target: str, found: list[Built]) -> Built:
    """The one model that the target names."""
    if len(found) != 1:
        names = ", ".join(f"`{built.target}`" for built in found[:6])
        raise UsageError(
            f"`{target}` holds {len(found)} models, and a checkpoint fits one", f"name it: {names}"
        )
    return found[0]
