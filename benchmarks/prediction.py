"""Predicted against measured Δ at every norm, over models, places, ratios and kinds of dropout.

    python benchmarks/prediction.py                  the whole table (about an hour on two cores)
    python benchmarks/prediction.py --quick          a small part of it (some minutes)
    python benchmarks/prediction.py --models preresnet20,vgg_bn --p 0.5 --kinds Dropout

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
import contextlib
import copy
import hashlib
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[1].absolute()
sys.path.insert(0, str(ROOT))

from dropout_lint.noise import predict  # noqa: E402
from dropout_lint.noise.equations import kim_eq29, kim_eq31, li_eq6  # noqa: E402
from dropout_lint.target.types import Inputs  # noqa: E402
from dropout_lint.trace import Trace, trace  # noqa: E402
from fixtures.noise import NOISES  # noqa: E402

BASES = ("initialisation", "weights", "checkpoint")
TARGETS = {"initialisation": (0.05, 0.12), "weights": (0.03, 0.08), "checkpoint": (0.02, 0.06)}
KINDS = ("Dropout", "Dropout2d", "DropPath", "Uout")
RATIOS = (0.1, 0.3, 0.5)
BATCH = 256


# --- data -----------------------------------------------------------------------------------------------


def digits() -> tuple[Tensor, Tensor]:
    """(1797, 1, 8, 8) standardised digits of scikit-learn, and their labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images = (images - images.mean()) / images.std()
    return images[order], torch.tensor(bunch.target)[order]


def as_images(size: int) -> Callable[[Tensor], Tensor]:
    """Three colour channels, `size` pixels wide."""

    def shape(x: Tensor) -> Tensor:
        if size != x.shape[-1]:
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
        return x.repeat(1, 3, 1, 1)

    return shape


def as_rows(x: Tensor) -> Tensor:
    """Twenty principal components, standardised."""
    flat = x.flatten(1) - x.flatten(1).mean(0)
    _, _, v = torch.pca_lowrank(flat, q=20, niter=4)
    z = flat @ v
    return z / z.std(0)


def as_frames(x: Tensor) -> Tensor:
    """Forty frames of twenty-four features, each feature standardised as speech features are."""
    z = F.interpolate(x, (40, 24), mode="bilinear", align_corners=False)[:, 0]
    return (z - z.mean((0, 1))) / z.std((0, 1)).clamp(min=1e-3)


# --- models ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A row of the table: how to build a network with dropout at a place, and how its data are shaped."""

    build: Callable[[str, str, float], nn.Module]
    data: Callable[[Tensor], Tensor]
    places: tuple[str, ...] = ("own",)
    kinds: tuple[str, ...] = KINDS
    epochs: int = 4
    rows: int = 1797


def swapped(model: nn.Module, kind: str, p: float) -> nn.Module:
    """Every nn.Dropout of the model replaced by another kind of the same ratio."""
    if kind != "Dropout":
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if isinstance(child, nn.Dropout):
                    parent._modules[name] = NOISES[kind](child.p)
    return model


def before_last_conv(model: nn.Module, kind: str, p: float) -> nn.Module:
    """A dropout before the last convolution of each torchvision basic block (P3 of a post-activation
    branch).
    """
    for module in model.modules():
        if type(module).__name__ == "BasicBlock":
            module.conv2 = nn.Sequential(NOISES[kind](p), module.conv2)  # type: ignore[arg-type]
    return model


def models() -> dict[str, Model]:
    """The issue's list."""
    from fixtures import densenet, mlp_bn, preresnet, resnetv1, resnext, tdnn, vgg_bn, wide_resnet

    positions = tuple(f"P{i}" for i in range(8))
    image = as_images(8)

    def zoo(package: str, name: str, **options: Any) -> nn.Module:
        if package == "timm":
            import timm

            return timm.create_model(name, **options)  # type: ignore[no-any-return]
        for operator in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            with contextlib.suppress(RuntimeError):  # declared already
                torch.library.define(
                    f"torchvision::{operator.split('(')[0]}", "(" + operator.split("(", 1)[1]
                )
        import torchvision

        return getattr(torchvision.models, name)(**options)  # type: ignore[no-any-return]

    return {
        "preresnet20": Model(lambda s, k, p: preresnet.build(s, p, dropout=k), image, positions),
        "resnetv1_20": Model(lambda s, k, p: resnetv1.build(s, p, dropout=k), image, ("P3", "P4", "end")),
        "bottleneck": Model(
            lambda s, k, p: preresnet.build(s, p, block="bottleneck", depth=20, dropout=k),
            image,
            ("P0", "P3", "P4", "P6", "P7"),
        ),
        "wrn16_4": Model(lambda s, k, p: swapped(wide_resnet.build(p), k, p), image),
        "densenet_bc40": Model(lambda s, k, p: swapped(densenet.build(p), k, p), image),
        "resnext11": Model(lambda s, k, p: swapped(resnext.build(s, p), k, p), image, ("a", "b")),
        "vgg_bn": Model(lambda s, k, p: swapped(vgg_bn.build(p, p), k, p), as_images(16), kinds=KINDS),
        "mlp_bn": Model(
            lambda s, k, p: swapped(mlp_bn.build(p, num_classes=10), k, p),
            as_rows,
            kinds=("Dropout", "Uout"),
            epochs=12,
        ),
        "tdnn": Model(lambda s, k, p: swapped(tdnn.build(p), k, p), as_frames, kinds=("Dropout", "Uout")),
        "resnet18": Model(
            lambda s, k, p: before_last_conv(zoo("torchvision", "resnet18", num_classes=10), k, p),
            as_images(32),
            ("P3",),
            epochs=2,
            rows=768,
        ),
        "densenet121": Model(
            lambda s, k, p: zoo("torchvision", "densenet121", drop_rate=p, num_classes=10),
            as_images(32),
            kinds=("Dropout",),
            epochs=2,
            rows=512,
        ),
        "efficientnet_b0": Model(
            lambda s, k, p: zoo("timm", "efficientnet_b0", drop_path_rate=p, drop_rate=p, num_classes=10),
            as_images(32),
            kinds=("DropPath",),
            epochs=2,
            rows=512,
        ),
    }


# --- measuring ------------------------------------------------------------------------------------------


class Spread:
    """Per-channel mean and variance of everything it has seen."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, torch.zeros(()), torch.zeros(())

    def see(self, x: Tensor) -> None:
        """Channels in dimension 1."""
        flat = x.detach().double().transpose(0, 1).flatten(1)
        self.count += flat.shape[1]
        self.total = self.total + flat.sum(1)
        self.square = self.square + flat.square().sum(1)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        return self.square / self.count - self.mean**2


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Every batch norm by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def observe(model: nn.Module, x: Tensor, passes: int = 1) -> dict[str, Spread]:
    """Moments of each norm's input over the data in the model's present mode."""
    spreads = {name: Spread() for name in batch_norms(model)}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: spreads[name].see(args[0]))
        for name, module in batch_norms(model).items()
    ]
    with torch.no_grad():
        for _ in range(passes):
            for batch in x.split(BATCH):
                if len(batch) > 32:
                    model(batch)
    for handle in handles:
        handle.remove()
    return spreads


def measure(model: nn.Module, x: Tensor, trained: bool, passes: int) -> dict[str, float]:
    """Δ at every batch norm; the untrained model's statistics are frozen at what train mode shows."""
    model = copy.deepcopy(model)
    norms: dict[str, Any] = batch_norms(model)
    if not trained:
        model.train()
        for name, spread in observe(model, x, passes).items():
            norms[name].running_mean.copy_(spread.mean)
            norms[name].running_var.copy_(spread.variance)
    model.eval()
    seen = observe(model, x)
    return {
        name: float(seen[name].variance.mean() / norms[name].running_var.double().mean()) for name in norms
    }


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """A few epochs of Adam with a cosine schedule."""
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for _ in range(epochs):
        for index in torch.randperm(len(x))[: len(x) // 64 * 64].split(64):
            optimiser.zero_grad()
            out = model(x[index])
            loss = F.cross_entropy(out, y[index] % out.shape[1])
            if not loss.requires_grad or not bool(loss.detach().isfinite()):
                continue
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()


# --- the papers' own forms ------------------------------------------------------------------------------


def closed_forms(tr: Trace) -> dict[str, float]:
    """Δ at each norm by the papers alone: what reaches it first, Eq. 6 or 29 in a chain, Eq. 31 after an
    add.
    """
    norm_at = {site.node: site for site in tr.norms}
    result = {site.name: 1.0 for site in tr.norms}
    branches: dict[str, int] = {}
    for site in tr.dropouts:
        if not site.spec.is_noisy:
            continue
        keep = 1 / (1 + site.spec.mask_variance)
        todo, seen = [(user, False) for user in site.node.users], set()
        rectified = _after_relu(site.node)
        while todo:
            node, added = todo.pop()
            if (node, added) in seen or node.op == "output":
                continue
            seen.add((node, added))
            if node in norm_at:
                name = norm_at[node].name
                if added:
                    branches[name] = branches.get(name, 0) + 1
                    delta = kim_eq31(1.0, keep, [1.0] * branches[name])
                else:
                    delta = kim_eq29(keep) if rectified else li_eq6(0.0, 1.0, keep)
                result[name] = min(result[name], delta)
                continue
            is_add = node.op != "call_module" and getattr(node.target, "__name__", node.target) in (
                "add",
                "iadd",
                "add_",
            )
            todo += [(user, added or is_add) for user in node.users]
    return result


def _after_relu(node: torch.fx.Node) -> bool:
    before = node.all_input_nodes[0] if node.all_input_nodes else None
    while before is not None and before.op != "placeholder":
        text = f"{before.target} {before.name}".lower()
        if "relu" in text:
            return True
        if any(word in text for word in ("conv", "bn", "norm", "linear", "add")):
            return False
        before = before.all_input_nodes[0] if before.all_input_nodes else None
    return False


# --- running --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One network with one dropout setting."""

    model: str
    place: str
    kind: str
    p: float

    @property
    def key(self) -> str:
        return f"{self.model}-{self.place}-{self.kind}-{self.p}"


@dataclass
class Result:
    """Measured and predicted Δ at every norm of a case, for one basis."""

    case: Case
    basis: str
    measured: dict[str, float]
    predicted: dict[str, float]
    closed: dict[str, float]
    seconds: float = 0.0
    forward_seconds: float = 0.0
    fallbacks: dict[str, int] = field(default_factory=dict)

    def errors(self, which: str = "predicted") -> list[float]:
        """Absolute errors, one for each norm."""
        values: Mapping[str, float] = getattr(self, which)
        return [abs(values[name] - self.measured[name]) for name in self.measured if name in values]


def cases(
    table: Mapping[str, Model], names: Sequence[str], ratios: Sequence[float], kinds: Sequence[str]
) -> Iterator[Case]:
    """All settings that apply."""
    for name in names:
        for place in table[name].places:
            for kind in table[name].kinds:
                if kind in kinds:
                    yield from (Case(name, place, kind, p) for p in ratios)


def prepared(  # noqa: PLR0917
    case: Case, model: Model, trained: bool, data: tuple[Tensor, Tensor], cache: Path | None, passes: int
) -> tuple[nn.Module, dict[str, float]]:
    """The network, trained or not, with its measured Δ."""
    seed = int(hashlib.sha1(case.key.encode()).hexdigest()[:6], 16)
    torch.manual_seed(seed)
    net = model.build(case.place, case.kind, case.p)
    x, y = data
    stored = cache / f"{case.key}-{'trained' if trained else 'fresh'}.pt" if cache else None
    if stored and stored.exists():
        state, measured = torch.load(stored, weights_only=True)
        net.load_state_dict(state)
        return net, measured
    if trained:
        train(net, x, y, model.epochs)
    measured = measure(net, x, trained, passes)
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        torch.save((net.state_dict(), measured), stored)
    return net, measured


def evaluate(  # noqa: PLR0917
    case: Case,
    model: Model,
    data: tuple[Tensor, Tensor],
    cache: Path | None,
    passes: int,
    states: Sequence[str],
) -> Iterator[Result]:
    """One result for each basis."""
    for trained in (False, True):
        if ("trained" if trained else "fresh") not in states:
            continue
        net, measured = prepared(case, model, trained, data, cache, passes)
        tr = trace(net, Inputs((data[0][:4],)))
        net.eval()
        with torch.no_grad():
            net(data[0][:1])
            start = time.perf_counter()
            net(data[0][:1])
            forward = time.perf_counter() - start
        net.train()
        closed = closed_forms(tr)
        for basis in ("checkpoint",) if trained else ("initialisation", "weights"):
            start = time.perf_counter()
            prediction = predict(tr, basis=basis)  # type: ignore[arg-type]
            seconds = time.perf_counter() - start
            predicted = {shift.norm: shift.delta for shift in prediction.norms}
            yield Result(
                case, basis, measured, predicted, closed, seconds, forward, dict(prediction.fallbacks)
            )


def shares_hold(case: Case, model: Model, data: tuple[Tensor, Tensor], passes: int) -> tuple[int, int]:
    """At how many norms removing the dropout with the largest share raises measured Δ most; of how many."""
    torch.manual_seed(0)
    net = model.build(case.place, case.kind, case.p)
    shares = {
        s.norm: s.shares for s in predict(trace(net, Inputs((data[0][:4],)))).norms if len(s.shares) > 1
    }
    raised: dict[str, dict[str, float]] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Dropout):
            without = copy.deepcopy(net)
            without.get_submodule(name).p = 0.0  # type: ignore[assignment]
            raised[name] = measure(without, data[0], False, passes)
    held = 0
    for norm, parts in shares.items():
        by_measure = max(raised, key=lambda name: raised[name][norm])
        held += by_measure == max(parts, key=lambda name: parts[name])
    return held, len(shares)


def shares_text(
    results: Sequence[Result],
    wanted: Sequence[str] | None,
    table: Mapping[str, Model],
    shaped: Mapping[str, tuple[Tensor, Tensor]],
    passes: int,
) -> str:
    """The check of the shares, over the untrained settings of the wanted models at p = 0.3, or over all."""
    checked = [
        case
        for case in dict.fromkeys(r.case for r in results if r.basis != "checkpoint")
        if case.kind == "Dropout" and (wanted is None or (case.model in wanted and case.p == 0.3))
    ]
    counts = [shares_hold(c, table[c.model], shaped[c.model], passes) for c in checked]
    held, of = sum(c[0] for c in counts), sum(c[1] for c in counts)
    which = ", ".join(f"{c.model} {c.place} p = {c.p}" for c in checked)
    return (
        "## Shares\n\nRemoving the dropout with the largest share raises the measured Δ most at "
        f"{held} of {of} norms (untrained, {which}). Aim: 95 %. Where it misses, the two largest are "
        "near each other, or max pooling lies between (VGG)."
    )


TIMED = (
    ("preresnet20", "P6", "Dropout", 32),
    ("wrn16_4", "own", "Dropout", 32),
    ("resnet18", "P3", "Dropout", 224),
    ("densenet121", "own", "Dropout", 224),
    ("efficientnet_b0", "own", "DropPath", 224),
)


def fastest(call: Callable[[], Any], times: int = 5) -> float:
    """Least seconds of some calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def times(table: Mapping[str, Model]) -> list[str]:
    """Seconds of a prediction against an eval forward of one image of the usual size."""
    lines = ["## Time at usual input sizes", ""]
    lines.append("Fastest of five; one image, eval mode, p = 0.3. Running variances are set to 0.9 so that ")
    lines[-1] += "`checkpoint` takes the path of a trained network."
    bases = ("initialisation", "weights", "checkpoint")
    lines += ["", "| model | place | pixels | forward, s | " + " | ".join(f"{b}, × forward" for b in bases)]
    lines[-1] += " |"
    lines.append("|" + "---|" * (4 + len(bases)))
    for name, place, kind, size in TIMED:
        net = table[name].build(place, kind, 0.3)
        x = torch.randn(1, 3, size, size)
        traced = trace(net, Inputs((torch.randn(2, 3, size, size),)))
        net.eval()
        with torch.no_grad():
            net(x)
            forward = fastest(lambda net=net, x=x: net(x))  # type: ignore[misc]
        net.train()
        for buffer_name, buffer in net.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.fill_(0.9)
        ratios = [
            fastest(lambda traced=traced, basis=basis: predict(traced, basis=basis)) / forward  # type: ignore[misc]
            for basis in bases
        ]
        lines.append(
            f"| {name} | {place} | {size} | {forward:.4f} | " + " | ".join(f"{r:.1f}" for r in ratios) + " |"
        )
    return [*lines, "", "Aim: at most 1 for `weights` and `checkpoint`."]


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(q * len(ordered)) - 1))] if ordered else math.nan


def table_of(
    results: Sequence[Result], by: Callable[[Result], tuple[str, ...]], heads: Sequence[str]
) -> list[str]:
    """A Markdown table of errors."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(by(result), []).append(result)
    lines = [
        "| "
        + " | ".join(
            [*heads, "norms", "mean abs error", "95 %", "bias", "closed forms", "seconds", "× forward"]
        )
        + " |"
    ]
    lines.append("|" + "---|" * (len(heads) + 7))
    for key, group in groups.items():
        errors = [e for r in group for e in r.errors()]
        closed = [e for r in group for e in r.errors("closed")]
        bias = [r.predicted[n] - r.measured[n] for r in group for n in r.measured if n in r.predicted]
        seconds = statistics.median(r.seconds for r in group)
        ratio = statistics.median(r.seconds / r.forward_seconds for r in group)
        lines.append(
            "| "
            + " | ".join(key)
            + f" | {len(errors)} | {statistics.fmean(errors):.4f} | {quantile(errors, 0.95):.3f} "
            f"| {statistics.fmean(bias):+.3f} | {statistics.fmean(closed):.3f} | {seconds:.3f} "
            f"| {ratio:.1f} |"
        )
    return lines


MISSES = """## How to read this, and where rows miss

The ledger's assumed numbers (`DECAY`, `NOISE_GAIN`, `POINT_GAIN`, `AGREEMENT`, `PAIR`,
`INPUT_ALIKE`) were chosen while looking at part of these very settings, so the errors are in-sample
for them. `AGREEMENT` was set to what was measured between skips and branches of trained ResNetV1-20
(0.27 to 0.42). Numbers of train-mode passes differ (2 to 4). With `--cached-only` the table holds
the settings that were measured, not the whole grid. The column `× forward` is against a forward
pass of these small images; for usual sizes see below, where the page was made with `--times`.

- *WRN from shapes alone*: its builder initialises by He's rule, shapes only know torch's default,
  so the branch's size against its skip is off. With the weights' values the error is a quarter.
- *DenseNet with weights' values*: average pooling keeps of the signal what its smoothness says,
  and digits are less smooth than assumed (neighbours correlate by 0.42 where `DECAY` says 0.54, and
  by less than 0 after the first pooling, where 0.36 is predicted). Then the mean of ReLU's output
  moves less when the noise vanishes than for a normal distribution (0.18 standard deviations where
  0.27 is predicted, at the last layer of the first dense block, p = 0.5). With weights' values such
  shifts are carried from channel to channel and add up; from shapes alone they are not, and those
  errors partly cancel.
- *Trained, large p*: data part and noise are predicted well at most norms that were looked at. What
  misses is how much larger the signal gets in test mode, when the noise ahead of a ReLU is gone:
  for ResNetV1 (ReLU behind the add) too large by 10 to 20 %, because trained features are more
  skewed than the ledger knows; for pre-activation networks too small in the last stage.
- *Trained, few steps*: running variances are averages over steps in which the weights still move. In
  the MLP at p = 0.5 the train-mode variance of the final weights is 16 and 31 % below the two running
  variances behind dropouts: no reading of the file alone can tell.
- *Noise of older dropouts* through trained weights takes part in their amplification to a degree
  that is assumed (`NOISE_GAIN`); no norm measures it apart.
- *Time*: predictions take some tenths of a millisecond for each node of the graph, whatever the image
  size, and read all weights several times. Where no norm lies behind a dropout nothing is worked out.
"""


def command_line(argv: Sequence[str]) -> str:
    """The command as anyone would type it: folders of this machine left out."""
    words, skip = ["python benchmarks/prediction.py"], False
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


def report(results: Sequence[Result], command: str) -> str:
    """The whole page."""
    import numpy

    lines = ["# Predicted against measured Δ", "", f"`{command}`", ""]
    lines.append(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} thread(s)."
    )
    lines += [
        "",
        "One error for each norm: |predicted Δ - measured Δ|. `closed forms` is the mean error of the "
        "papers' own "
        "equations (Li Eq. 6, Kim Eq. 29 and 31) on the same norms.",
        "",
    ]
    lines += ["## By basis", "", *table_of(results, lambda r: (r.basis,), ["basis"]), ""]
    lines += ["Aims: " + ", ".join(f"{b} {m} (95 %: {q})" for b, (m, q) in TARGETS.items()) + ".", ""]
    lines += [
        "## By model",
        "",
        *table_of(results, lambda r: (r.basis, r.case.model), ["basis", "model"]),
        "",
    ]
    lines += [
        "## By place",
        "",
        *table_of(
            results,
            lambda r: (r.basis, r.case.model, r.case.place, r.case.kind),
            ["basis", "model", "place", "kind"],
        ),
        "",
    ]
    missed = {name: count for r in results for name, count in r.fallbacks.items()}
    lines += [MISSES]
    lines.append(f"Operations passed by the stated fallback: {missed or 'none'}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", help="comma-separated; default: all")
    parser.add_argument("--p", help="comma-separated ratios (β for Uout)")
    parser.add_argument("--kinds", help="comma-separated: " + ", ".join(KINDS))
    parser.add_argument("--places", help="comma-separated, such as P3,P6,own; default: all that a model has")
    parser.add_argument("--states", default="fresh,trained", help="fresh, trained or both")
    parser.add_argument("--quick", action="store_true", help="p = 0.5, Dropout only, small models")
    parser.add_argument(
        "--passes", type=int, default=4, help="train-mode passes over the data for an untrained model"
    )
    parser.add_argument("--cache", type=Path, help="folder that keeps weights and measurements")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "prediction.md")
    parser.add_argument(
        "--shares",
        nargs="?",
        const="all",
        help="check the shares by removing each dropout; of these models only (at p = 0.3), or of all",
    )
    parser.add_argument("--times", action="store_true", help="time predictions at usual input sizes")
    parser.add_argument("--cached-only", action="store_true", help="only the settings that --cache holds")
    parser.add_argument("--verbose", action="store_true", help="print every norm")
    options = parser.parse_args()
    table = models()
    small = [name for name in table if name not in ("resnet18", "densenet121", "efficientnet_b0")]
    names = options.models.split(",") if options.models else (small if options.quick else list(table))
    ratios = (
        [float(p) for p in options.p.split(",")] if options.p else ([0.5] if options.quick else list(RATIOS))
    )
    kinds = options.kinds.split(",") if options.kinds else (["Dropout"] if options.quick else list(KINDS))
    images, labels = digits()
    shaped: dict[str, tuple[Tensor, Tensor]] = {}
    results: list[Result] = []
    for case in cases(table, names, ratios, kinds):
        if options.places and case.place not in options.places.split(","):
            continue
        model = table[case.model]
        if case.model not in shaped:
            shaped[case.model] = (model.data(images)[: model.rows], labels[: model.rows])
        states = options.states.split(",")
        if options.cached_only:
            states = [s for s in states if (options.cache / f"{case.key}-{s}.pt").exists()]
        for result in evaluate(case, model, shaped[case.model], options.cache, options.passes, states):
            results.append(result)
            errors = result.errors()
            print(
                f"{case.key:38s} {result.basis:15s} MAE {statistics.fmean(errors):.4f}  "
                f"95% {quantile(errors, 0.95):.3f}"
                f"  closed {statistics.fmean(result.errors('closed')):.3f}",
                flush=True,
            )
            if options.verbose:
                for name, value in result.measured.items():
                    print(
                        f"    {name:30s} measured {value:.3f}  predicted {result.predicted[name]:.3f}"
                        f"  closed {result.closed[name]:.3f}"
                    )
    shares = ""
    if options.shares:
        wanted = None if options.shares == "all" else options.shares.split(",")
        shares = shares_text(results, wanted, table, shaped, options.passes)
    page = report(results, command_line(sys.argv)) + (f"\n{shares}\n" if shares else "")
    if options.times:
        page += "\n" + "\n".join(times(table)) + "\n"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
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
    options.output.with_suffix(".json").write_text(json.dumps(data), encoding="utf-8")
    print("\n" + page.split("## By place")[0])


if __name__ == "__main__":
    main()
