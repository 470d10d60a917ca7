"""Deployed programs: what of dropout is on in them, and whether a norm is in the other mode. None is run."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_project import cli
from torch import nn

import dropout_lint
from dropout_lint.cli import run
from dropout_lint.errors import UsageError

IMAGES = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    """Two dropouts before a norm, one behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(0.3)
        self.drop2d = nn.Dropout2d(0.2)
        self.bn = nn.BatchNorm2d(8)
        self.alpha = nn.AlphaDropout(0.1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        x = self.bn(self.drop2d(self.drop(self.conv(x)))).relu()
        return self.fc(self.alpha(x).mean((2, 3)))


def found(program: Any) -> list[tuple[str, str]]:
    """Code and dropout of each finding."""
    report = dropout_lint.lint(program)
    assert not report.predictions
    return [(item.code, item.dropout.kind) for item in report.findings if item.dropout]


def exported(net: nn.Module) -> Any:
    """An `ExportedProgram` of it."""
    return torch.export.export(net, IMAGES)


DROPOUTS = ["aten.dropout", "aten.feature_dropout", "aten.alpha_dropout"]


@pytest.mark.parametrize("form", ["program", "module", "graph_module", "copy"])
@pytest.mark.parametrize("training", [True, False])
def test_an_exported_program_says_which_dropouts_are_on(training: bool, form: str) -> None:
    program = exported(Net().train(training))
    # a copy of the module forgets that it refuses `.train()` (torch 2.13), and stays in its mode
    given = {
        "program": lambda: program,
        "module": program.module,
        "graph_module": lambda: program.graph_module,
        "copy": lambda: copy.deepcopy(program.module()).eval(),
    }[form]()
    assert found(given) == ([("DL408", kind) for kind in DROPOUTS] if training else [])
    (note,) = dropout_lint.lint(given).target.notes
    norm = "normalising by the batch" if training else "going by stored statistics"
    assert f"3 dropouts {'on' if training else 'off'}" in note and f"1 norm {norm} (batch_norm)" in note
    assert "no Δ can be predicted" in note


def test_a_finding_names_node_ratio_and_line() -> None:
    report = dropout_lint.lint(exported(Net()))
    first = report.findings[0]
    assert first.message == "aten.dropout dropout (p = 0.3) is on in this program: its outputs are random"
    assert first.dropout is not None and first.dropout.p == 0.3 and first.path == ["dropout", "batch_norm"]
    assert first.dropout.call is not None and Path(first.dropout.call.file).name == "test_deployed.py"
    assert (report.target.model, report.ok) == ("torch.export program", False)
    assert report.target.trace is not None and report.target.trace.method == "read"
    assert first.delta is None and "Δ " not in report.to_text().replace("no Δ can", "")
    assert json.loads(report.to_json())["targets"][0]["predictions"] == []


def test_what_was_taken_apart_is_found_by_its_draws() -> None:
    apart = exported(Net()).run_decompositions()
    kinds = ["aten.native_dropout", "aten.bernoulli", "aten.bernoulli"]
    assert found(apart) == [("DL408", kind) for kind in kinds]
    from torch.fx.experimental.proxy_tensor import make_fx

    assert [code for code, _ in found(make_fx(Net().train())(*IMAGES))] == ["DL408"] * 3


@pytest.mark.parametrize(
    ("dropping", "words"),
    [
        (True, "it drops, the norm goes by its stored statistics"),
        (False, "it drops nothing, the norm normalises by the batch"),
    ],
)
def test_a_norm_in_the_other_mode_is_found(dropping: bool, words: str) -> None:
    net = Net().train(dropping)
    net.bn.train(not dropping)
    report = dropout_lint.lint(exported(net), select=["DL409"])
    assert [item.dropout.kind for item in report.findings if item.dropout] == DROPOUTS
    first = report.findings[0]
    assert first.message.endswith(words) and first.norm is not None and first.norm.name == "batch_norm"


def test_a_frozen_norm_among_others_is_not_set_against_a_dropout_that_does_not_reach_it() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.drop = nn.BatchNorm1d(8).eval(), nn.BatchNorm1d(8), nn.Dropout(0.3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(self.second(self.first(x)))

    program = torch.export.export(Two(), (torch.randn(4, 8),))
    assert [code for code, _ in found(program)] == ["DL408"]


def test_pt2e_leaves_dropouts_on_beside_a_norm_in_test_mode() -> None:
    pt2e = pytest.importorskip("torchao.quantization.pt2e")  # 0.18.0
    graph = exported(Net()).module()
    pt2e.move_exported_model_to_eval(graph)
    assert found(graph) == [(code, kind) for kind in DROPOUTS[1:] for code in ("DL408", "DL409")]
    assert [node.args[1] for node in graph.graph.nodes if "aten.dropout" in str(node.target)] == [0.5]


def test_attention_and_recurrent_layers_drop_inside() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(
                x, x, x, dropout_p=0.2 if self.training else 0.0
            )

    inputs = (torch.randn(2, 3, 4, 8),)
    assert found(torch.export.export(Attention(), inputs)) == [("DL408", "aten.scaled_dot_product_attention")]
    assert found(torch.export.export(Attention().eval(), inputs)) == []
    lstm = nn.LSTM(3, 4, 2, dropout=0.2)
    assert found(torch.export.export(lstm, (torch.randn(5, 2, 3),))) == [("DL408", "aten.lstm")]
    assert found(torch.export.export(lstm.eval(), (torch.randn(5, 2, 3),))) == []


def test_a_draw_inside_a_region_of_its_own_is_seen() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                x = nn.functional.dropout(x * 2, 0.5)
            return self.bn(x)

    report = dropout_lint.lint(torch.export.export(Inside().eval(), (torch.randn(4, 8),)))
    assert [item.code for item in report.findings] == ["DL408", "DL409"]
    assert report.findings[0].path[-1] == "batch_norm"


def quiet_trace(net: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(net, *IMAGES, check_trace=False)


@pytest.mark.parametrize(
    ("way", "training", "on"),
    [
        (torch.jit.script, True, 0),  # it follows .eval()
        (torch.jit.script, False, 0),
        (quiet_trace, True, 3),  # the trace has that mode for good
        (quiet_trace, False, 0),
    ],
)
def test_scripted_and_traced_modules(way: Any, training: bool, on: int) -> None:
    assert [code for code, _ in found(way(Net().train(training)))] == ["DL408"] * on


def test_a_scripted_module_whose_dropout_never_follows() -> None:
    assert found(torch.jit.script(AlwaysOn())) == [("DL408", "aten.dropout"), ("DL409", "aten.dropout")]


class AlwaysOn(nn.Module):
    """Dropout that forgets `training`."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised noise."""
        return self.bn(nn.functional.dropout(x, 0.4))


# files ------------------------------------------------------------------------------------------------------


def checked(file: str, folder: Path) -> tuple[int, list[tuple[str, str]], dict[str, Any]]:
    """Exit status, findings and the whole answer of the command line, run in this process."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
        status = run(["check", file, "--output-format", "json"])
    (target,) = json.loads(out.getvalue())["targets"]
    return status, [(item["code"], item["dropout"]["name"]) for item in target["findings"]], target


def test_the_command_line_reads_what_torch_saved(tmp_path: Path) -> None:
    torch.export.save(exported(Net()), tmp_path / "train.pt2")
    torch.export.save(exported(Net().eval()), tmp_path / "test.pt2")
    torch.jit.save(torch.jit.script(Net()), tmp_path / "train.pt")
    torch.jit.save(torch.jit.script(Net().eval()), tmp_path / "test.pt")
    names = ["dropout", "feature_dropout", "alpha_dropout"]
    assert checked("train.pt2", tmp_path)[:2] == (1, [("DL408", name) for name in names])
    assert checked("test.pt2", tmp_path)[:2] == (0, [])
    # a script is judged as it was saved: who loads it need not know of modes
    status, findings, target = checked("train.pt", tmp_path)
    assert (status, findings) == (1, [("DL408", name) for name in ("drop", "drop2d", "alpha")])
    assert target["model"] == "TorchScript program"
    assert checked("test.pt", tmp_path)[:2] == (0, [])
    torch.export.save(exported(Net().eval()), tmp_path / "train.pt2")  # not what was kept
    assert checked("train.pt2", tmp_path)[:2] == (0, [])


def test_a_program_that_a_target_builds_is_read(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n"
        "    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.BatchNorm1d(8))\n"
        "    return torch.export.export(net, (torch.randn(4, 8),))\n"
    )
    assert checked("nets:build", tmp_path)[:2] == (1, [("DL408", "dropout")])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("broken.pt2", b"no archive", "could not be read as a program that torch.export saved"),
        ("weights.pt", b"no archive", "could not be read as a program that torch.jit saved"),
        ("broken.onnx", b"no protobuf", "onnx"),  # unreadable, or not installed
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    done = cli("check", name, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "help: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_options_of_models_and_other_commands_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(AlwaysOn()), tmp_path / "net.pt")
    for words, said in (
        (
            ("check", "net.pt", "--input", "4x8"),
            "is a deployed program, which holds its weights and is not run",
        ),
        (("check", "./net.pt:attr"), "is a deployed program, and has no attributes"),
        (("check", "nte.pt"), "there is no file or folder"),
        (("fix", "net.pt"), "is a program of TorchScript: it holds one mode"),
        (("measure", "net.pt"), "is a program of TorchScript: it holds one mode"),
    ):
        done = cli(*words, cwd=tmp_path)
        assert done.returncode == 2 and said in done.stderr, (words, done.stderr)
    with pytest.raises(UsageError, match="not ExportedProgram"):
        dropout_lint.measure(torch.export.export(AlwaysOn(), (torch.randn(4, 8),)), [torch.randn(4, 8)])


# ONNX -------------------------------------------------------------------------------------------------------


def onnx_file(folder: Path, version: int, dropout: dict[str, Any], norm: dict[str, Any]) -> str:
    """A file with a Dropout before a BatchNormalization, its operator set and their attributes given.

    `dropout` may also hold the inputs `mode` (a bool, or "input" for one of the graph), `norm` the `outputs`.
    """
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    mode, outputs = dropout.pop("mode", None), norm.pop("outputs", 1)
    inputs = [helper.make_tensor_value_info("x", kind.FLOAT, [4, 8])]
    constants = [
        helper.make_tensor(name, kind.FLOAT, [8], [1.0] * 8) for name in ("scale", "bias", "mean", "var")
    ]
    constants.append(helper.make_tensor("ratio", kind.FLOAT, [], [0.3]))
    reads = ["x"] if version < 12 else ["x", "ratio", *(["mode"] if mode is not None else [])]
    if mode == "input":
        inputs.append(helper.make_tensor_value_info("mode", kind.BOOL, []))
    elif mode is not None:
        constants.append(helper.make_tensor("mode", kind.BOOL, [], [mode]))
    nodes = [
        helper.make_node("Dropout", reads, ["dropped"], "drop", **dropout),
        helper.make_node(
            "BatchNormalization",
            ["dropped", "scale", "bias", "mean", "var"],
            ["y", "new_mean", "new_var", "saved_mean", "saved_var"][:outputs],
            "norm",
            **norm,
        ),
    ]
    y = [helper.make_tensor_value_info("y", kind.FLOAT, [4, 8])]
    graph = helper.make_graph(nodes, "net", inputs, y, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return "net.onnx"


BOTH, NONE = [("DL408", "drop"), ("DL409", "drop")], list[tuple[str, str]]()


@pytest.mark.parametrize(
    ("version", "dropout", "norm", "expected"),
    [
        (17, {"mode": True}, {"training_mode": 0}, BOTH),
        (17, {"mode": True}, {"training_mode": 1, "outputs": 3}, BOTH[:1]),
        (17, {"mode": False}, {"training_mode": 0}, NONE),
        (17, {}, {"training_mode": 1, "outputs": 3}, BOTH[1:]),
        (17, {"mode": "input"}, {}, NONE),
        (12, {"mode": True}, {}, BOTH),
        (12, {"mode": True}, {"outputs": 5}, BOTH[:1]),
        (10, {"ratio": 0.3}, {}, NONE),  # from 7 to 11 Dropout does nothing
        (6, {"ratio": 0.3}, {"is_test": 1}, BOTH),
        (6, {"ratio": 0.3, "is_test": 1}, {"is_test": 1}, NONE),
    ],
)
def test_an_onnx_file_by_its_operator_set(
    tmp_path: Path, version: int, dropout: dict[str, Any], norm: dict[str, Any], expected: Any
) -> None:
    opened = dropout.get("mode") == "input"
    file = onnx_file(tmp_path, version, dict(dropout), dict(norm))
    status, findings, target = checked(file, tmp_path)
    assert (status, findings) == (int(bool(expected)), expected)
    assert (target["model"], target["status"]) == ("ONNX program", "partial" if opened else "ok")
    if opened:
        assert target["trace"]["reasons"] == {"drop": "its mode is decided when the program runs"}
    assert all(item["dropout"]["p"] == 0.3 for item in target["findings"])


def test_an_onnx_file_with_functions_branches_and_draws(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    text = """
        <ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        net (float[N, 8] x, bool flag, float[8] s) => (float[N, 8] y) {
            a = local.noisy (x)
            b = If (flag) <
                then_branch = yes () => (float[N, 8] t) { r = RandomUniformLike (a)  t = Mul (a, r) },
                else_branch = no () => (float[N, 8] e) { e = Identity (a) }
            >
            y = BatchNormalization (b, s, s, s, s)
        }
        <domain: "local", opset_import: ["" : 17]>
        noisy (x) => (y) {
            ratio = Constant <value = float {0.2}> ()
            mode = Constant <value = bool {1}> ()
            y = Dropout (x, ratio, mode)
        }
    """
    (tmp_path / "net.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    status, findings, target = checked("net.onnx", tmp_path)
    assert status == 1 and [code for code, _ in findings] == ["DL408", "DL409"] * 2
    assert [item["dropout"]["kind"] for item in target["findings"][::2]] == ["Dropout", "RandomUniformLike"]
    assert all(len(item["path"]) == 2 for item in target["findings"])


def test_torchs_exporter_keeps_dropout_on_and_the_norm_in_test_mode(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    torch.onnx.export(Net().train(), IMAGES, tmp_path / "net.onnx", dynamo=True, verbose=False)  # torch 2.13
    _, findings, target = checked("net.onnx", tmp_path)
    assert [code for code, _ in findings] == ["DL408", "DL409"] * 3
    assert [item["norm"]["kind"] for item in target["findings"][:2]] == ["BatchNormalization"] * 2


def test_without_onnx_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('No module named onnx', name='onnx')\n")
    done = cli("check", "net.onnx", cwd=tmp_path)
    assert done.returncode == 2
    assert "`net.onnx` is an ONNX file, and onnx is not installed" in done.stderr
    assert "pip install 'dropout-lint[onnx]'" in done.stderr
