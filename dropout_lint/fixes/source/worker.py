"""A process of its own that builds the original and the edited model and compares them.

`main` has torch loaded and forks for each job, so that no edited module is ever imported into a process that
goes on living. A job is the path of a JSON file; its answer is written beside it.
Where there is no fork the job runs in this process, which the client then ends.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

import torch

from dropout_lint.analysis import Options, analyse
from dropout_lint.errors import FixError
from dropout_lint.fixes.plan.words import linted_again
from dropout_lint.fixes.proof import eval_words, run, train_fixed, train_original, training_words, twin
from dropout_lint.fixes.source.protocol import FORK, IMPORT
from dropout_lint.fixes.training import Named, difference
from dropout_lint.fixes.values import same, to_device
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import replaced, walk
from dropout_lint.layers import Catalogue, ExtraDropout, Noise
from dropout_lint.loading.compat import plain_python
from dropout_lint.loading.resolving import resolve
from dropout_lint.measurement import measure
from dropout_lint.rules import load_rules


def overlay(files: dict[str, str]) -> None:
    """From now on import these files from the given texts instead of from disk."""
    original = SourceFileLoader.get_code
    by_path = {os.path.realpath(path): text for path, text in files.items()}

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        path = os.path.realpath(self.get_filename(fullname))
        text = by_path.get(path)
        if text is None:
            return original(self, fullname)
        code: CodeType = self.source_to_code(text.encode(), path)
        return code

    class New:
        """Finds the modules that are not on disk yet."""

        @staticmethod
        def find_spec(name: str, path: Sequence[str] | None = None, _: object = None) -> ModuleSpec | None:
            file = f"{name.rpartition('.')[2]}.py"
            places = (os.path.realpath(Path(entry or ".") / file) for entry in (path or sys.path))
            found = next((place for place in places if place in by_path and not Path(place).exists()), None)
            if found is None:
                return None
            return spec_from_file_location(name, found, loader=SourceFileLoader(name, found))

    sys.meta_path.insert(0, New)
    # Python's own loader, so that every import of the user's code sees the edited text
    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]  # exchanged on purpose
    sys.dont_write_bytecode = True


def build(job: dict[str, Any], *, meta: bool = False) -> Any:
    """The target of a job, with real weights unless `meta`."""
    models = resolve(
        job["resolve"], inputs=tuple(job["inputs"]), checkpoint=job["checkpoint"], prefer_meta=meta
    )
    return next((built for built in models if built.target == job["target"]), models[0])


def expected(job: dict[str, Any]) -> dict[str, Any]:
    """Build and run the original; keep in a file what the edited model is compared with."""
    built = build(job)
    args, kwargs = torch.load(job["tensors"], weights_only=False)
    model = twin(built.model) if built.on_meta else built.model
    model.eval()
    torch.manual_seed(1)
    device = torch.device("cpu")
    args, kwargs = to_device(args, device), to_device(kwargs, device)
    kept = {"state": copy.deepcopy(model.state_dict()), "args": args, "kwargs": kwargs}
    kept["output"] = list(walk(run(model, args, kwargs, job["repaired"])))
    kept["measured"] = measure_all(job, model, args, kwargs)  # before training touches the statistics
    try:
        kept["trained"], kept["fed"] = train_original(
            model, args, kwargs, named_of(job), catalogue=options_of(job["options"]).catalogue
        )
    except FixError as error:
        return {"unprovable": error.message}
    torch.save(kept, job["kept"])
    return {}


def named_of(job: dict[str, Any]) -> Named:
    """The dropouts that the edits name."""
    given = job["named"]
    return Named(tuple(map(tuple, given["calls"])), given["functional"], tuple(map(tuple, given["after"])))


def measure_all(job: dict[str, Any], model: Any, args: Any, kwargs: Any) -> dict[str, float]:
    """Measured Δ at every norm over random batches like the inputs; {} where none was asked for."""
    if not job["batches"]:
        return {}
    generator = torch.Generator().manual_seed(0)

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor).normal_(generator=generator) if tensor.is_floating_point() else tensor

    batches = [
        Inputs(replaced(tuple(args), drawn), replaced(dict(kwargs), drawn)) for _ in range(job["batches"])
    ]
    return dict(measure(model, batches, device="cpu", seed=0).delta)


def actual(job: dict[str, Any]) -> dict[str, Any]:
    """Build the edited model and run every check against what `expected` kept; the first failure is named."""
    overlay(job["files"])
    try:
        built = build(job)
    except Exception as error:
        return {"failed": f"the edited source does not build: {error}", "details": traceback.format_exc()}
    kept = torch.load(job["kept"], weights_only=False)
    model = built.model
    if built.on_meta:
        model = model.to_empty(device="cpu")
    try:
        model.load_state_dict(kept["state"], strict=True)
    except RuntimeError as error:
        return {"failed": f"the old state_dict does not load: {error}"}
    checks = ["the edited source builds in its own process", "the old state_dict loads with strict=True"]
    output = run(model.eval(), kept["args"], kwargs=kept["kwargs"], dropouts_off=False)
    if not same(output, kept["output"]):
        return {"failed": "the eval-mode outputs are not bit-identical"}
    checks.append(eval_words(job["repaired"]))
    measured = measure_all(job, model, kept["args"], kept["kwargs"])  # before training touches the statistics
    try:
        args, kwargs = kept["fed"]
        after = train_fixed(model, args, kwargs, kept["trained"], options_of(job["options"]).catalogue)
    except FixError as error:
        return {"failed": error.message}
    failure = difference(kept["trained"], after, named_of(job))
    if failure:
        return {"failed": f"the edited model {failure}"}
    checks.append(training_words(kept["trained"]))
    return {**lint_again(job, checks), "measured": measured, "measured_before": kept["measured"]}


def lint_again(job: dict[str, Any], checks: list[str]) -> dict[str, Any]:
    """Lint the edited model as the original was: nothing may be found beyond what the plan expects."""
    built = build(job, meta=job["meta"])
    found = analyse(
        built.model,
        built.inputs,
        options_of(job["options"]),
        constructed=built.constructed,
        judged=True,
    )
    surplus = Counter(item.rule.code for item in found.findings) - Counter(job["expected"])
    if surplus:
        return {"failed": f"the edited model still has findings: {', '.join(sorted(surplus.elements()))}"}
    checks.append(linted_again("edited source", len(found.findings)))
    return {"checks": checks}


def options_of(data: dict[str, Any]) -> Any:
    """The options that `prover.options_as_data` wrote."""
    extra = {
        name: ExtraDropout(Noise(entry["noise"]), entry["p"], entry["keeps"])
        for name, entry in data["dropouts"].items()
    }
    return Options(
        catalogue=Catalogue(extra),
        rules=load_rules(data["rules"]),
        select=tuple(data["select"]),
        ignore=tuple(data["ignore"]),
        threshold=data["threshold"],
    )


def do(path: str) -> None:
    """Run one job and write its answer."""
    file = Path(path)
    job = json.loads(file.read_text())
    os.chdir(job["cwd"])
    sys.path[:] = job["path"]
    try:
        answer = {"expected": expected, "actual": actual}[job["kind"]](job)
    except BaseException as error:
        answer = {"failed": f"{type(error).__name__}: {error}", "details": traceback.format_exc()}
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(answer))
    partial.replace(file.with_suffix(".answer"))


def main() -> None:
    """Read lines from stdin until it ends: paths of jobs, and `import NAME` for what all of them will need.

    SIGTERM ends the job along with this process.
    """
    torch.set_num_threads(1)
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child = 0

    def end(*_: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    for line in sys.stdin:
        path = line.strip()
        if path.startswith(IMPORT):
            with plain_python():  # as a job imports them
                import_module(path.removeprefix(IMPORT))
            continue
        if not path:
            continue
        if FORK:
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                try:
                    do(path)
                finally:
                    sys.stderr.flush()
                    os._exit(0)
            os.waitpid(child, 0)
            child = 0
        else:
            do(path)
        channel.write(f"{path}\n")
        channel.flush()
