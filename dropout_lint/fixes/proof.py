"""Proof that a fix changed nothing in eval mode: outputs, state_dict and training as before."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dropout_lint.errors import FixError
from dropout_lint.fixes.training import (
    ATTENTION,
    Named,
    Run,
    attention_arguments,
    difference,
    run_fixed,
    run_original,
)
from dropout_lint.fixes.values import equal, lengthened, same, to_device, widened
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import walk
from dropout_lint.layers import STANDARD, Catalogue, is_dropout_function


class DropoutsOff(TorchFunctionMode):
    """Functional dropouts return their input: how an always-on one would behave if it followed eval()."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_dropout_function(func):
            return args[0] if args else kwargs["input"]
        if getattr(func, "__name__", "") in ATTENTION:
            given = dict(zip(attention_arguments(func), args, strict=False)) | kwargs
            return func(**{**given, "dropout_p": 0.0})
        return func(*args, **kwargs)


def prove(
    original: nn.Module,
    fixed: nn.Module,
    inputs: Inputs,
    *,
    named: Named | None = None,
    repaired: bool = False,
    catalogue: Catalogue = STANDARD,
) -> tuple[str, ...]:
    """Check a fixed model against the one that it was made from; neither is changed.

    Args:
        original: the model as it was linted; on the meta device its weights are drawn for the check, the same
            for both models.
        fixed: the model after the fix.
        inputs: what both are run with.
        named: the dropouts that the fix names; None for none.
        repaired: an always-on dropout was repaired, so the original is run with its functional dropouts off.
        catalogue: which modules are dropouts.

    Returns:
        what was checked, in words.

    Raises:
        FixError: a check failed; the message names it.
    """
    checks = [check_keys(original, fixed)]
    left, right = twin(original), twin(fixed)
    device = next((tensor.device for tensor in left.state_dict().values()), torch.device("cpu"))
    args, kwargs = to_device(inputs.args, device), to_device(dict(inputs.kwargs), device)
    with quiet():
        states = Buffers(left), Buffers(right)
        expected = run(left.eval(), args, kwargs, repaired)
        actual = run(right.eval(), args, kwargs, False)
        if not same(expected, actual):
            raise FixError("the eval-mode outputs are not bit-identical", "the model was left as it was")
        check_buffers(*states, "an eval-mode pass")
        checks.append(eval_words(repaired))
        checks += check_sizes(left, right, (args, kwargs), repaired)
        named = named or Named()
        states = Buffers(left), Buffers(right)
        before, (args, kwargs) = train_original(left, args, kwargs, named, catalogue)
        after = train_fixed(right, args, kwargs, before, catalogue)
        failure = difference(before, after, named)
        if failure:
            raise FixError(f"the fixed model {failure}", "the model was left as it was")
        check_buffers(*states, "a training step")
        checks.append(training_words(before))
    return tuple(checks)


def eval_words(repaired: bool) -> str:
    """What the comparison in test mode shows: a dropout that was repaired made those outputs random."""
    off = ", with the always-on dropouts of the original off" if repaired else ""
    return f"eval-mode outputs are bit-identical{off}"


def training_words(original: Run) -> str:
    """What the comparison in train mode shows."""
    count = sum(original.kept.values())
    others = f"the {count} other dropout calls act" if count > 1 else "the other dropout call acts"
    kept = f"{others} as before on the same masks" if count else "no other dropout runs"
    return f"in training {kept}, and gradients reach the same parameters"


def train_original(
    model: nn.Module, args: Any, kwargs: Any, named: Named, catalogue: Catalogue = STANDARD
) -> tuple[Run, tuple[Any, Any]]:
    """The original in train mode, with a larger batch where it does not run with the given one.

    Returns:
        the run, and the inputs that it took.

    Raises:
        FixError: it does not run in train mode, so that nothing can be proven of training.
    """
    batch = next((t.shape[0] for t in walk((args, kwargs)) if t.dim()), 0)
    problem = ""
    for one, other in ((args, kwargs), lengthened((args, kwargs), batch)):
        try:
            return run_original(model, one, other, named, catalogue), (one, other)
        except FixError:
            raise
        except Exception as error:  # the user's own forward may raise anything
            problem = problem or f"{type(error).__name__}: {error}"
    raise FixError(
        f"the model does not run in train mode with these inputs ({problem}), so that nothing can be proven "
        "of training",
        "give inputs that it can be trained with",
    )


def train_fixed(
    model: nn.Module, args: Any, kwargs: Any, original: Run, catalogue: Catalogue = STANDARD
) -> Run:
    """The fixed model in train mode.

    Raises:
        FixError: it does not train.
    """
    try:
        return run_fixed(model, args, kwargs, original.kept, catalogue)
    except Exception as error:  # the user's own forward may raise anything
        raise FixError(f"the fixed model does not train: {type(error).__name__}: {error}") from error


class Buffers:
    """The buffers of a model as they are now, to see later which of them have changed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def changed(self) -> set[str]:
        """Names of the buffers that hold other values by now."""
        now = dict(self.model.named_buffers())
        return {name for name, old in self.before.items() if name not in now or not equal(old, now[name])}


def check_buffers(original: Buffers, fixed: Buffers, what: str) -> None:
    """Compare which buffers a pass has changed: a recorded graph does not follow `if self.training:`.

    Raises:
        FixError: counters, queues or averages are kept by one model alone.
    """
    differing = sorted(original.changed() ^ fixed.changed())
    if differing:
        raise FixError(
            f"{what} changes buffers of one model alone: {', '.join(differing[:4])}",
            "the model was left as it was",
        )


def check_sizes(original: nn.Module, fixed: nn.Module, given: tuple[Any, Any], repaired: bool) -> list[str]:
    """Compare the outputs for inputs of other sizes, where the original takes them.

    A recorded graph holds the numbers that the example's sizes were when it was recorded, in `range(len(x))`.

    Returns:
        what was checked, in words.

    Raises:
        FixError: for another batch size the fixed model fails; for any other size its output differs.
    """
    checks = []
    batch = next((t.shape[0] for t in walk(given) if t.dim()), 0)
    for what, resized in (("a larger batch", lengthened(given, batch)), ("larger inputs", widened(given))):
        args, kwargs = resized
        try:
            expected = run(original, args, kwargs, repaired)
        except Exception:  # a size that the model was not written for
            continue
        try:
            with redirect_stderr(StringIO()):  # a recorded graph prints where it failed
                matches = same(expected, run(fixed, args, kwargs, False))
        except Exception as error:
            if what != "a larger batch":
                checks.append("the fixed model takes inputs of the example's height, width or length alone")
                continue
            raise FixError(
                f"the recorded graph holds for batches of {batch} alone ({type(error).__name__}: {error})"
            ) from error
        if not matches:
            raise FixError(
                f"the recorded graph holds for the example's sizes alone: {what} give other outputs"
            )
        checks.append(f"eval-mode outputs are bit-identical for {what}")
    return checks


def check_keys(original: nn.Module, fixed: nn.Module) -> str:
    """Compare the state_dicts key for key, in their order, with shapes.

    Raises:
        FixError: a key is new, missing, elsewhere, or of another shape.
    """
    before = {
        key: tuple(value.shape) for key, value in original.state_dict().items() if torch.is_tensor(value)
    }
    after = {key: tuple(value.shape) for key, value in fixed.state_dict().items() if torch.is_tensor(value)}
    if before != after:
        differing = sorted(set(before.items()) ^ set(after.items()))[:4]
        raise FixError(f"the state_dict keys differ: {differing}", "the model was left as it was")
    if [name for name, _ in original.named_parameters()] != [name for name, _ in fixed.named_parameters()]:
        raise FixError("the order of the parameters differs", "the model was left as it was")
    return "the state_dict has the same keys and shapes"


def twin(model: nn.Module) -> nn.Module:
    """A deep copy on a device that computes; meta weights get values that depend on their names alone."""
    new = copy.deepcopy(model)
    tensors = [*new.parameters(), *new.buffers()]
    if any(tensor.device.type == "meta" for tensor in tensors):
        new.to_empty(device="cpu")
        for name, tensor in [*new.named_parameters(), *new.named_buffers()]:
            fill(name, tensor)
    return new


def fill(name: str, tensor: Tensor) -> None:
    """Give a tensor values drawn by its name: small and random, variances positive, integers 0."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        if not tensor.is_floating_point():
            tensor.zero_()
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            fan = max(1, tensor[0].numel() if tensor.dim() > 1 else 16)
            tensor.normal_(0.0, fan**-0.5, generator=generator)


def run(model: nn.Module, args: Any, kwargs: Any, dropouts_off: bool) -> Any:
    """One forward pass on fresh copies of the inputs, from a fixed random state."""
    args, kwargs = copy.deepcopy(args), copy.deepcopy(kwargs)
    torch.manual_seed(0)
    with torch.no_grad(), DropoutsOff() if dropouts_off else nullcontext():
        return model(*args, **kwargs)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        yield
