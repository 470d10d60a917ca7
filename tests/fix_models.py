"""Random small models as source text: blocks, skips, concats and dropouts at random places."""

from __future__ import annotations

from hypothesis import strategies as st

WIDTH = 6
HEAD = """\
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)

"""
SHARED = f"""\

def dropped(x, training):
    return F.dropout(x, 0.3, training)


class Drop(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.dropout(x, self.p, self.training)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d({WIDTH}, {WIDTH}, 3, padding=1), nn.BatchNorm2d({WIDTH})
        self.drop = Drop(0.1)

    def forward(self, x):
        return self.drop(F.relu(self.bn(self.conv(x))))


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.fc, self.drop = Encoder(), nn.Linear({WIDTH}, 2), Drop(0.5)

    def forward(self, x):
        return self.fc(self.drop(dropped(self.encoder(x), self.training).mean((2, 3))))


"""
RATIOS = ("0.1", "0.3", "0.5")


class Writer:
    """Collects the constructor and forward lines of one class."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.init: list[str] = []
        self.forward: list[str] = []
        self.count = 0

    def layer(self, name: str, made: str) -> str:
        """A new attribute."""
        self.count += 1
        attribute = f"{name}{self.count}"
        self.init.append(f"self.{attribute} = {made}")
        return f"self.{attribute}"

    def dropout(self, value: str) -> str:
        """An expression that drops `value`, in one of the ways in which it is written."""
        p = self.draw(st.sampled_from(RATIOS))
        written = {
            "functional": f"F.dropout({value}, p={p}, training=self.training)",
            "positional": f"F.dropout({value}, {p}, self.training)",
            "helper": f"self.dropped({value})",
            "function": f"dropped({value}, self.training)",
        }
        made = {"module": "nn.Dropout", "channel": "nn.Dropout2d", "wrapper": "Drop"}
        way = self.draw(st.sampled_from(["module", *made, *written, "shared"]))
        if way in written:
            return written[way]
        if way in made:
            return f"{self.layer('drop', f'{made[way]}({p})')}({value})"
        if not any("self.shared" in line for line in self.init):
            self.init.append(f"self.shared = nn.Dropout({p})")
        return f"self.shared({value})"

    def maybe(self, name: str, chance: int = 4) -> None:
        """Sometimes a dropout statement on a variable, plain or guarded."""
        if self.draw(st.integers(0, chance)):
            return
        line = f"{name} = {self.dropout(name)}"
        if self.draw(st.booleans()):
            self.forward.append(line)
        else:
            self.init.append("self.rate = 0.5") if "self.rate = 0.5" not in self.init else None
            self.forward += ["if self.rate > 0:", f"    {line}"]

    def sequential(self, name: str) -> None:
        """A Sequential of convolution, norm and activation with a dropout somewhere in it."""
        parts = [f"nn.Conv2d({WIDTH}, {WIDTH}, 3, padding=1)", f"nn.BatchNorm2d({WIDTH})", "nn.ReLU()"]
        parts += [f"nn.Conv2d({WIDTH}, {WIDTH}, 1)"] if self.draw(st.booleans()) else []
        if self.draw(st.booleans()):
            place = self.draw(st.integers(0, len(parts)))
            parts.insert(place, f"nn.Dropout({self.draw(st.sampled_from(RATIOS))})")
        self.forward.append(
            f"{name} = {self.layer('net', 'nn.Sequential(' + ', '.join(parts) + ')')}({name})"
        )

    def stage(self, name: str) -> None:
        """Weight, norm and activation in some order, with dropouts between, as statements or nested."""
        conv = self.layer("conv", f"nn.Conv2d({WIDTH}, {WIDTH}, 3, padding=1)")
        norm = self.layer("bn", f"nn.BatchNorm2d({WIDTH})")
        kinds = self.draw(
            st.sampled_from(["conv norm relu", "norm relu conv", "conv relu norm", "conv relu"])
        )
        if self.draw(st.booleans()):
            value = name
            for kind in kinds.split():
                value = {"conv": f"{conv}({value})", "norm": f"{norm}({value})", "relu": f"F.relu({value})"}[
                    kind
                ]
                if not self.draw(st.integers(0, 4)):
                    value = self.dropout(value)
            self.forward.append(f"{name} = {value}")
            return
        for kind in kinds.split():
            made = {"conv": f"{conv}({name})", "norm": f"{norm}({name})", "relu": f"torch.relu({name})"}[kind]
            self.forward.append(f"{name} = {made}")
            self.maybe(name)

    def block(self) -> None:
        """A stage, a residual block, a concat, a Sequential, or an encoder by somebody else."""
        match self.draw(
            st.sampled_from(["plain", "residual", "residual", "concat", "sequential", "encoder"])
        ):
            case "plain":
                self.stage("x")
            case "sequential":
                self.sequential("x")
            case "encoder":
                self.forward.append(f"x = {self.layer('encoder', 'Encoder()')}(x)")
            case "residual":
                self.forward.append("y = x")
                for _ in range(self.draw(st.integers(1, 2))):
                    self.draw(st.sampled_from([self.stage, self.sequential]))("y")
                self.maybe("y")
                self.forward.append(
                    self.draw(st.sampled_from(["x = x + y", "x = y + x", "x = torch.add(x, y)"]))
                )
                self.maybe("x")
            case "concat":
                self.forward.append("y = x")
                self.stage("y")
                self.maybe("y")
                mix = self.layer("mix", f"nn.Conv2d({2 * WIDTH}, {WIDTH}, 1)")
                self.forward.append(f"x = {mix}(torch.cat([x, y], 1))")


@st.composite
def sources(draw: st.DrawFn) -> str:
    """Text of a module with a class `Net` that can be built without arguments."""
    writer = Writer(draw)
    stem = writer.layer("stem", f"nn.Conv2d(3, {WIDTH}, 3, padding=1)")
    writer.forward.append(f"x = {stem}(x)")
    for _ in range(draw(st.integers(1, 3))):
        writer.block()
    writer.maybe("x", 2)
    head = draw(st.sampled_from(["pool", "mean", "flat", "none"]))
    if head == "pool":
        writer.forward.append("x = F.adaptive_avg_pool2d(x, 1).flatten(1)")
    elif head == "mean":
        writer.forward.append("x = x.mean((2, 3))")
    elif head == "flat":
        writer.forward.append("x = x.flatten(1)")
    if head != "none":
        writer.maybe("x", 2)
        size = WIDTH * 64 if head == "flat" else WIDTH
        writer.forward.append(f"x = {writer.layer('fc', f'nn.Linear({size}, 3)')}(x)")
        writer.maybe("x", 3)
    body = ["class Net(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    body += [f"        {line}" for line in writer.init]
    body += [
        "",
        "    def dropped(self, x):",
        "        return F.dropout(x, 0.2, self.training)",
        "",
        "    def forward(self, x):",
        *(f"        {line}" for line in writer.forward),
        "        return x",
    ]
    return HEAD + SHARED + "\n".join(body) + "\n"
