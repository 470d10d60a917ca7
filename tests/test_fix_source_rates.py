"""What a source fix takes along and says: ratios, guards, subclasses, other readers, comments."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_fix_source import fix, lines, written

LAYER = """
class Layer(nn.Module):
    def __init__(self, c, k, rate{more}):
        super().__init__()
        self.rate = rate
        {init}
        self.conv = nn.Conv2d(c, k, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(k)

    def forward(self, x):
        out = self.conv(x)
        {drop}
        return torch.cat([x, F.relu(self.norm(out))], 1)


class Net(nn.Module):
    def __init__(self, layers=3, k=8, rate=0.2, scale=2, use=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Sequential()
        c = 16
        for i in range(layers):
            self.block.add_module(f"l{{i}}", Layer(c, k, {given}))
            c += k
        self.norm = nn.BatchNorm2d(c)
        self.fc = nn.Linear(c, 10)

    def forward(self, x):
        return self.fc(F.relu(self.norm(self.block(self.stem(x)))).mean([2, 3]))
"""
GUARDED = "if self.rate > 0:\n            out = F.dropout(out, p=self.rate, training=self.training)"
FUNCTION = "out = F.dropout(out, self.rate, self.training)"
MODULE = "if self.use:\n            out = self.drop(out)"
MADE = "self.use = use\n        self.drop = nn.Dropout(rate) if rate else nn.Identity()"


def layers(drop: str, given: str = "rate", more: str = "", init: str = "pass") -> str:
    return LAYER.format(drop=drop, given=given, more=more, init=init)


CARRIED = {
    "guarded function": (layers(GUARDED), "nn.Dropout(rate)"),
    "keyword": (layers(FUNCTION, "rate=rate"), "nn.Dropout(rate)"),
    "arithmetic": (layers(FUNCTION, "rate * scale / 2"), "nn.Dropout(rate * scale / 2)"),
    "within an operation": (
        layers("out = F.dropout(out, self.rate * 0.5, self.training)", "rate + 0.2"),
        "nn.Dropout((rate + 0.2) * 0.5)",
    ),
    "module under conditions": (
        layers(MODULE, "rate, use", ", use", MADE),
        "nn.Dropout(rate if use else 0.0)",
    ),
    "default that holds": (layers(MODULE, "rate", ", use=True", MADE), "nn.Dropout(rate)"),
    "constant of the file": ("RATE = 0.2\n\n\n" + layers(FUNCTION, "RATE").lstrip(), "nn.Dropout(RATE)"),
    "may be None": (
        layers("if self.rate:\n            " + FUNCTION).replace("rate=0.2, scale", "rate=None, scale")
        + "\n\ndef build():\n    return Net(rate=0.2)\n",
        "nn.Dropout(rate or 0.0)",
    ),
    "number": (layers("out = F.dropout(out, 0.2, self.training)"), "nn.Dropout(0.2)"),
}


@pytest.mark.parametrize("case", list(CARRIED))
def test_a_moved_ratio_stays_what_it_was(case: str, tmp_path: Path) -> None:
    body, expected = CARRIED[case]
    file = written(tmp_path, body)
    result = fix(f"{file}:{'build()' if 'def build' in body else 'Net'}", strategy="move")
    assert {item.action for item in result.applied} == {"move", "merge"}
    assert f"self.dropout = {expected}" in lines(result.diff, "+")
    assert not any("constant" in note for note in result.notes)


def test_a_ratio_that_became_a_number_is_noted(tmp_path: Path) -> None:
    file = written(tmp_path, layers(FUNCTION, "0.2"))
    result = fix(f"{file}:Net", strategy="move")
    assert "self.dropout = nn.Dropout(0.2)" in lines(result.diff, "+")
    (note,) = (note for note in result.notes if "constant" in note)
    assert "the ratio was `self.rate` in the source; it is now the constant 0.2" in note


REFUSED = {
    "computed in a loop": layers(FUNCTION, "0.1 * i + 0.1"),
    "reassigned": layers(FUNCTION).replace("        c = 16\n", "        c = 16\n        rate = rate + 0.1\n"),
    "set twice": layers(FUNCTION, init="self.rate = rate / 2"),
    "condition of forward": layers("if out.shape[0] > 1:\n            " + FUNCTION),
    "set from outside": layers(FUNCTION, "0.1")
    + """

def build():
    net = Net()
    for layer in net.block:
        layer.rate = 0.3
    return net
""",
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_ratio_that_cannot_be_carried_stays_where_it_is(case: str, tmp_path: Path) -> None:
    body = REFUSED[case]
    file = written(tmp_path, body)
    result = fix(f"{file}:{'build()' if 'def build' in body else 'Net'}", strategy="move")
    assert not result.changes
    assert {"DL101"} == {code for item in result.skipped for code in item.codes}
    assert all(
        "cannot be evaluated" in item.reason or "after it was made" in item.reason for item in result.skipped
    )


def test_a_sibling_gets_the_ratio_by_its_own_parameter(tmp_path: Path) -> None:
    body = """
    class Body(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.drop = nn.Dropout(rate)
            self.bn = nn.BatchNorm2d(8)

        def forward(self, x):
            return self.bn(self.drop(self.conv(x))).relu()


    class Head(nn.Module):
        def __init__(self, p, c=8):
            super().__init__()
            self.fc = nn.Linear(c, 2)

        def forward(self, x):
            return self.fc(x.mean((2, 3)))


    class Net(nn.Module):
        def __init__(self, drop_rate=0.4):
            super().__init__()
            self.body = Body(drop_rate)
            self.head = Head(p=drop_rate)

        def forward(self, x):
            return self.head(self.body(x))
    """
    file = written(tmp_path, body)
    result = fix(f"{file}:Net")
    assert "self.dropout = nn.Dropout(p)" in lines(result.diff, "+")


def test_uout_for_a_function_keeps_ratio_zero(tmp_path: Path) -> None:
    file = written(tmp_path, layers(FUNCTION))
    result = fix(f"{file}:Net", strategy="uout", beta=0.3)
    assert "self.uout = Uout(0.3 if rate else 0.0)" in lines(result.diff, "+")


def test_uout_for_a_function_asks_the_attribute_where_that_is_all_there_is(tmp_path: Path) -> None:
    body = layers(FUNCTION, init="self.rate = min(rate, 0.3)")
    result = fix(f"{written(tmp_path, body)}:Net", strategy="uout", beta=0.3)
    assert "self.uout = Uout(0.3 if self.rate else 0.0)" in lines(result.diff, "+")


def test_a_condition_that_is_left_behind_is_noted(tmp_path: Path) -> None:
    body = """
    class Net(nn.Module):
        def __init__(self, use=True):
            super().__init__()
            self.use = use
            self.conv = nn.Conv2d(3, 8, 3)
            self.d = nn.Dropout(0.3)
            self.bn = nn.BatchNorm2d(8)
            self.out = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.conv(x)
            if self.use:
                x = self.bn(self.d(x))
            return self.out(x)
    """
    result = fix(f"{written(tmp_path, body)}:Net")
    assert "return self.out(self.d(x))" in lines(result.diff, "+")
    assert "d: it stood under `if self.use`, and does not where it is now" in result.notes


def test_a_moved_call_keeps_to_its_loop(tmp_path: Path) -> None:
    body = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)])
            self.bns = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            for i, conv in enumerate(self.convs):
                x = F.dropout(conv(x), 0.2 * i, self.training)
                x = self.bns[i](x).relu()
            return self.fc(x.mean((2, 3)))
    """
    file = written(tmp_path, body)
    result = fix(f"{file}:Net", strategy="move")
    assert not result.changes
    assert "i of the call is not the same at the new place" in result.skipped[0].reason


FAMILY = """
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(0.3)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def features(self, x):
        return self.bn(self.drop(self.conv(x)))

    def forward(self, x):
        return self.fc(self.features(x).relu().mean((-2, -1)))


class Same(Base):
    def extra(self, x):
        return x

    def features(self, x):
        return super().features(x) * 2
"""
OTHERS = """

class Other(Same):
    def features(self, x):
        return self.bn(self.conv(x)) + 1


class Wide(Base):
    def forward(self, x):
        return self.features(x).relu().sum()
"""


def test_a_move_that_would_split_a_subclass_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, FAMILY + OTHERS)
    result = fix(f"{file}:Base", strategy="move")
    assert not result.changes
    assert result.skipped[0].reason == (
        "features and forward of Base would change together, and Wide overrides only forward and Other "
        "overrides only features"
    )
    plain = written(tmp_path, FAMILY, "plain.py")
    assert fix(f"{plain}:Base", strategy="move").changes


def test_classes_outside_of_the_model_that_lose_their_dropout_are_noted(tmp_path: Path) -> None:
    body = layers(GUARDED) + "\n\nclass Deeper(Layer):\n    pass\n"
    result = fix(f"{written(tmp_path, body)}:Net", strategy="move")
    assert any(
        note.endswith(": Deeper, outside of this model, loses the dropout that is moved")
        for note in result.notes
    )


CHILD = """
from parent_of_child import Net


class Child(Net):
    def forward(self, x):
        return self.drop(x)
"""


def test_a_dropout_that_a_subclass_elsewhere_calls_stays_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
    class Net(nn.Module):
        def __init__(self, p=0.3):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.drop = nn.Dropout(p)
            self.bn = nn.BatchNorm2d(8)

        def forward(self, x):
            return self.bn(self.drop(self.conv(x)))


    def build():
        import child

        return Net()
    """
    written(tmp_path, body, "parent_of_child.py")
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    result = fix("parent_of_child:build()", strategy="remove")
    assert lines(result.diff, "-") == ["return self.bn(self.drop(self.conv(x)))"]


def test_readers_that_lose_the_noise_are_named(tmp_path: Path) -> None:
    body = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.d = nn.Dropout(0.3)
            self.bn = nn.BatchNorm2d(8)
            self.aux = nn.Conv2d(8, 2, 1)
            self.out = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            h = torch.relu(self.d(self.conv(x)))
            aux = self.aux(h)
            h = self.bn(h)
            return self.out(h), aux, h.shape[0]
    """
    result = fix(f"{written(tmp_path, body)}:Net")
    assert "d: aux no longer sees its noise" in result.notes


TIDY = {
    "conditional": (
        """
        h = self.c(x)
        h = F.dropout(h, self.p, self.training) if self.p else h
        h = self.bn(h)
        return self.o(h)
        """,
        ["h = self.bn(h)"],  # the two lines change places
        ["h = self.bn(h)"],
    ),
    "conditional the other way round": (
        """
        h = self.c(x)
        h = self.bn(h if self.p == 0 else F.dropout(h, self.p, self.training))
        return self.o(h)
        """,
        ["h = self.bn(h if self.p == 0 else F.dropout(h, self.p, self.training))"],
        ["h = self.bn(h)", "h = h if self.p == 0 else F.dropout(h, self.p, self.training)"],
    ),
    "several on a line": (
        """
        y = self.c(x); y = self.d(y); y = self.bn(y); y = F.relu(y)
        return self.o(y)
        """,
        ["y = self.c(x); y = self.d(y); y = self.bn(y); y = F.relu(y)", "return self.o(y)"],
        ["y = self.c(x); y = self.bn(y); y = F.relu(y)", "return self.o(self.d(y))"],
    ),
    "the new place on a line with others": (
        """
        y = self.d(self.c(x))
        y = self.bn(y); z = F.relu(y); return self.o(z)
        """,
        ["y = self.d(self.c(x))", "y = self.bn(y); z = F.relu(y); return self.o(z)"],
        ["y = self.c(x)", "y = self.bn(y); z = F.relu(y); return self.o(self.d(z))"],
    ),
    "comments in a nested call": (
        """
        h = (
            self
            .bn(
                self.d(  # drop
                    self.c(x)  # conv
                ),
            )
        )
        return h
        """,
        ["h = (", "self.d(  # drop", "self.c(x)  # conv", "),"],
        ["# drop", "# conv", "h = self.d(", "self.c(x),"],
    ),
    "comment of a line that goes": (
        """
        x = self.d(x)  # noise
        h = self.bn(self.c(x))
        h = F.dropout(h, 0.5, self.training)
        return self.o(h)
        """,
        ["self.d = nn.Dropout(0.3)", "x = self.d(x)  # noise"],
        ["# noise"],
    ),
}
BODY = """
class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.p = p
        self.c = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.d = nn.Dropout(0.3)
        self.o = nn.Conv2d(8, 2, 1)

    def forward(self, x):
"""


@pytest.mark.parametrize("case", list(TIDY))
def test_what_is_left_is_tidy(case: str, tmp_path: Path) -> None:
    forward, gone, new = TIDY[case]
    body = BODY + forward.strip("\n").rstrip(" ")
    result = fix(f"{written(tmp_path, body)}:Net")
    assert lines(result.diff, "-") == gone
    assert lines(result.diff, "+") == new
