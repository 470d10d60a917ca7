"""Monte-Carlo averaging: many noisy passes instead of one without noise (Li et al. 2019, Fig. 6)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lint.errors import MeasureError, UsageError
from dropout_lint.guard.arguments import as_names, check_model, check_whole
from dropout_lint.guard.modes import test_mode
from dropout_lint.guard.wrappers import unwrapped
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.shapes import device_of
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.measurement.batches import Picker, to_device
from dropout_lint.remedies.batches import device_for
from dropout_lint.remedies.independence import Call, shapes_of, why_dependent
from dropout_lint.remedies.modes import DropoutSwitch
from dropout_lint.remedies.noise import find_noise, gated
from dropout_lint.remedies.trees import flatten


@dataclass(frozen=True)
class MonteCarlo:
    """The predictions of many passes with dropout on.

    Attributes:
        mean: the model's output (nested as the model nests it, plain dataclasses too), each tensor averaged
            over the passes.
        std: the same, standard deviation over the passes (divided by samples − 1); 0 for a single pass.
        samples: how many passes were averaged.
        left: noise of train mode that could not be switched on, so that the spread is without it.
    """

    mean: Any
    std: Any
    samples: int
    left: tuple[str, ...] = ()


@contextmanager
def dropout_on(
    model: nn.Module, *, also: Collection[str] = (), catalogue: Catalogue = STANDARD
) -> Iterator[DropoutSwitch]:
    """Within it every dropout drops and everything else, norms above all, is in test mode.

    Dropout modules of every kind (DropPath, Uout and the like too), those inside attention and recurrent
    layers, functional calls, whatever their `training=` argument says, and whatever else draws in train mode:
    calls behind `if self.training:`, masks and noise written by hand. What has to be in train mode for these
    is found at the first call of the model, by running it on what it is called with. Each module's mode is
    restored afterwards.

    A functional dropout that is off in training too (`training=False` written out) is switched on as well:
    from the call alone it cannot be told from one in test mode.

    Args:
        model: any model.
        also: qualified names of modules to put in train mode, without what they contain; a string is one.
        catalogue: which classes are dropouts.

    Yields:
        the switch, whose `draws` counts the functional calls that dropped.

    Warns:
        UserWarning: some noise of train mode could not be switched on, or train mode could not be run.

    Raises:
        UsageError: the model is no module, or `also` names no module of it, or a norm.
    """
    check_model(model)
    also = as_names("also", also)
    inner = unwrapped(model)
    switch = DropoutSwitch(on=True)
    on = _noisy(inner, also, catalogue)
    with test_mode(model, on), switch, _gates_at_first_call(inner, on, catalogue, switch):
        yield switch


def monte_carlo(
    model: nn.Module,
    batch: Any,
    samples: int = 20,
    *,
    transform: Callable[[Any], Any] | None = None,
    chunk: int | None = None,
    also: Collection[str] = (),
    catalogue: Catalogue = STANDARD,
) -> MonteCarlo:
    """Mean and spread of `samples` predictions with dropout on and every norm in test mode.

    All passes run as one on a batch that many times larger (every element of it draws its own mask). This
    avoids the variance shift, at `samples` times the cost: Li et al. needed about 10 samples to come near one
    ordinary prediction, gained a little with more, and never reached the network trained without dropout.

    One pass can stand for many only where the first dimension is a set of samples that do not see each other.
    That is looked at once for each model and form of input, with two passes in test mode that leave no trace;
    where it does not hold (a sequence first, a graph's edges, centring over the batch) the passes run one at
    a time, and a warning says why.

    Args:
        model: any model; its modes are restored.
        batch: a tensor, a tuple of positional arguments (those beyond what `forward` requires are left out)
            or a dict of keyword arguments. Tensors whose first dimension is that of the first tensor are
            repeated, others shared.
        samples: how many passes, at least 1.
        transform: applied to the model's output before averaging, such as a softmax: averaging probabilities
            is not the same as averaging logits.
        chunk: passes that run at once, to save memory; all of them by default. On a CPU few at once can be
            faster, as they stay in the cache. 1 needs no look at the samples, and gives no warning.
        also: see `dropout_on`.
        catalogue: which classes are dropouts.

    Raises:
        UsageError: `samples` or `chunk` is no whole number of at least 1, the model is no module or has no
            values, or its output holds no tensor.
        MeasureError: no dropout draws, the batch holds no tensor, or an output has no batch dimension.
    """
    check_model(model)
    check_whole("samples", samples, least=1)
    if chunk is not None:
        check_whole("chunk", chunk, least=1)
    also = as_names("also", also)
    model = unwrapped(model)
    picked = Inputs((batch,)) if isinstance(batch, Tensor) else Picker(model)(batch)
    inputs = to_device(picked, device_for(model, None), copy=False)
    leaves, build = flatten((inputs.args, dict(inputs.kwargs)))
    size = next((leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 0), None)
    if size is None:
        raise MeasureError(
            "the batch holds no tensor with a batch dimension", "pass what the model is called with"
        )
    on = _noisy(model, also, catalogue)
    call = Call(model, leaves, build, size, transform)
    step = min(samples, chunk or samples)
    if step > 1 and not _may_stack(call):
        step = 1
    noise, is_news = find_noise(
        model,
        lambda times: call(partial(_repeat, times=times)),
        on,
        catalogue,
        device_for(model, None),
        key=call.shapes,
        twice=step > 1,
    )
    if is_news and noise.told(""):
        warnings.warn(f"monte_carlo: {noise.told(type(model).__name__)}", stacklevel=2)
    if noise.draws == 0:
        raise MeasureError(
            f"no dropout of {type(model).__name__} drew anything",
            "p = 0 draws nothing; name in `also` a module whose mode decides over noise",
        )
    if noise.shared:
        step = 1
    totals: _Totals | None = None
    with torch.no_grad(), test_mode(model, on), gated(noise.gates), DropoutSwitch(on=True):
        for start in range(0, samples, step):
            times = min(step, samples - start)
            values, build_output = flatten(call(partial(_repeat, times=times)))
            if totals is None:
                totals = _Totals(values, build_output)
            totals.add([_split(value, times, size) for value in values], times)
    assert totals is not None
    return MonteCarlo(totals.mean(), totals.std(samples), samples, tuple(map(str, noise.left)))


def _noisy(model: nn.Module, also: Collection[str], catalogue: Catalogue) -> Callable[[nn.Module], bool]:
    """Says of a module whether it is in train mode in any case: one that drops, or is named in `also`."""
    modules = dict(model.named_modules()) if also else {}
    unknown = sorted(set(also) - modules.keys())
    if unknown:
        raise UsageError(f"also names no module of this model: {', '.join(unknown)}", "use qualified names")
    norms = sorted(name for name in also if catalogue.norm(modules[name]) is not None)
    if norms:
        raise UsageError(f"also names a norm: {', '.join(norms)}", "norms stay in test mode")
    noisy = {id(modules[name]) for name in also}
    noisy |= {id(module) for module in model.modules() if catalogue.dropout(module) is not None}
    return lambda module: id(module) in noisy or isinstance(module, (nn.RNNBase, nn.MultiheadAttention))


@contextmanager
def _gates_at_first_call(
    model: nn.Module, on: Callable[[nn.Module], bool], catalogue: Catalogue, switch: DropoutSwitch
) -> Iterator[None]:
    """Put what makes noise into train mode when `model` is called for the first time."""
    with ExitStack() as stack:

        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            handle.remove()
            leaves, build = flatten((args, kwargs))
            counted = switch.draws

            def run(times: int) -> Any:
                copies, named = build([leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves])
                return model(*copies, **named)

            noise, is_news = find_noise(model, run, on, catalogue, device_of(model), key=shapes_of(leaves))
            switch.draws = counted
            if is_news and noise.told(""):
                warnings.warn(f"dropout_on: {noise.told(type(model).__name__)}", stacklevel=2)
            stack.enter_context(gated(noise.gates))

        handle = model.register_forward_pre_hook(look, with_kwargs=True, prepend=True)
        stack.callback(handle.remove)
        yield


def _may_stack(call: Call) -> bool:
    """Whether many passes can run as one; warns where they cannot."""
    if call.size == 0:
        return True
    reason, is_news = why_dependent(call)
    if reason is not None and is_news:
        warnings.warn(
            f"monte_carlo runs {type(call.model).__name__} one pass at a time, because the first dimension of"
            f" the batch is no set of independent samples: {reason}. Pass chunk=1 to say that this is meant.",
            stacklevel=3,
        )
    return reason is None


class _Totals:
    """Running mean and squared deviations over passes, one pair for each tensor of the output.

    Raises:
        UsageError: there is no tensor among the leaves of the output.
    """

    def __init__(self, leaves: list[Any], build: Callable[[list[Any]], Any]) -> None:
        if not any(isinstance(leaf, Tensor) for leaf in leaves):
            kinds = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or "nothing"
            raise UsageError(
                f"the output holds no tensor to average, but {kinds}",
                "with `transform` pick the tensors, such as `lambda out: out.logits`",
            )
        self.build = build
        self.means: list[Any] = [None] * len(leaves)
        self.m2: list[Any] = [None] * len(leaves)
        self.count = 0

    def add(self, values: list[Any], times: int) -> None:
        """Merge passes whose tensors are (times, N, …), by Chan's rule."""
        total = self.count + times
        for i, value in enumerate(values):
            if not isinstance(value, Tensor):
                self.means[i] = value
                continue
            wide = value if value.dtype in (torch.float32, torch.float64) else value.float()
            variance, mean = torch.var_mean(wide, dim=0, correction=0)
            if self.means[i] is None:
                self.means[i], self.m2[i] = mean, variance * times
                continue
            step = mean - self.means[i]
            self.m2[i] = self.m2[i] + variance * times + step**2 * (self.count * times / total)
            self.means[i] = self.means[i] + step * (times / total)
        self.count = total

    def mean(self) -> Any:
        return self.build(self.means)

    def std(self, samples: int) -> Any:
        spreads = [
            (m2 / max(samples - 1, 1)).sqrt() if m2 is not None else mean
            for m2, mean in zip(self.m2, self.means, strict=True)
        ]
        return self.build(spreads)


def _repeat(leaf: Tensor, times: int) -> Tensor:
    # a copy also for a single time: a layer may work in place
    return leaf.repeat(times, *[1] * (leaf.dim() - 1))


def _split(value: Any, times: int, size: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 0 or value.shape[0] != times * size:
        raise MeasureError(
            f"the model gives a tensor of shape {tuple(value.shape)} for a batch of {times * size}",
            "with `transform` pick the outputs that keep the batch as their first dimension",
        )
    return value.reshape(times, size, *value.shape[1:])
