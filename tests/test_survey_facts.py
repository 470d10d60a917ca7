"""Facts about single dropouts, each shown by the smallest model that has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.remedies.initialisation import correct_init_
from dropout_lint.rules import load_rules
from dropout_lint.survey.facts import Facts
from dropout_lint.survey.placements import Placement, Survey
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace

RULES = load_rules()
IMAGE = torch.randn(2, 8, 8, 8)


class Model(nn.Module):
    """Layers by name, and a `forward` given as a function of the model and its inputs."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self._run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self._run(self, *inputs)


def look(forward: Callable[..., Any], *inputs: Tensor, **layers: nn.Module) -> Survey:
    recorded = trace(Model(forward, **layers), Inputs(args=inputs or (IMAGE,)))
    return survey(recorded, predict(recorded))


def only(surveyed: Survey) -> Placement:
    assert len(surveyed.placements) == 1
    return surveyed.placements[0]


def facts_of(forward: Callable[..., Any], *inputs: Tensor, **layers: nn.Module) -> Facts:
    return only(look(forward, *inputs, **layers)).facts


def codes(surveyed: Survey) -> list[str]:
    return [finding.rule.code for finding in RULES.match(surveyed)]


def conv(ins: int = 8, outs: int = 8, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, 3, padding=1, **options)


# the way to the norm ------------------------------------------------------------------------------------


def test_layer_norm_does_not_stop_the_noise() -> None:
    facts = facts_of(
        lambda m, x: m.bn(m.conv(m.ln(m.drop(x)))),
        drop=nn.Dropout(0.5),
        ln=nn.GroupNorm(2, 8),
        conv=conv(),
        bn=nn.BatchNorm2d(8),
    )
    assert (facts.norm, facts.weights_between, facts.norms_between) == ("batch", 1, 1)


@pytest.mark.parametrize("frozen", [nn.GroupNorm(2, 8), nn.InstanceNorm2d(8)])
def test_norms_that_do_not_shift_are_no_end(frozen: nn.Module) -> None:
    surveyed = look(lambda m, x: m.fc(m.norm(m.drop(x)).mean((2, 3))), drop=nn.Dropout(0.5), norm=frozen,
                    fc=nn.Linear(8, 3))  # fmt: skip
    assert only(surveyed).norm is None
    assert only(surveyed).path[-1] == "output"
    assert codes(surveyed) == []


def test_the_noise_stops_at_the_first_norm_that_shifts() -> None:
    placement = only(
        look(
            lambda m, x: m.bn2(m.conv(m.bn1(m.drop(x)))),
            drop=nn.Dropout(0.5),
            bn1=nn.BatchNorm2d(8),
            conv=conv(),
            bn2=nn.BatchNorm2d(8),
        )
    )
    assert placement.norm is not None and placement.norm.name == "bn1"


def test_every_norm_that_is_first_on_some_way_is_a_placement_and_one_finding_tells() -> None:
    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.drop(x)
        return m.bn1(x), m.bn2(m.conv(x))

    surveyed = look(forward, drop=nn.Dropout(0.5), bn1=nn.BatchNorm2d(8), bn2=nn.BatchNorm2d(8), conv=conv())
    assert [p.norm.name for p in surveyed.placements if p.norm] == ["bn1", "bn2"]
    assert [p.facts.weights_between for p in surveyed.placements] == [0, 1]
    assert codes(surveyed) == ["DL101"]


def test_merges_on_the_way_are_counted() -> None:
    facts = facts_of(
        lambda m, x, y: m.bn(m.conv(torch.cat([m.drop(x), y], 1)) + y),
        IMAGE,
        torch.randn(2, 8, 8, 8),
        drop=nn.Dropout(0.5),
        conv=conv(16, 8),
        bn=nn.BatchNorm2d(8),
    )
    assert (facts.weights_between, facts.concats_between, facts.adds_between) == (1, 1, 1)
    assert not facts.residual_add_between
    assert facts.width == 16


def test_adding_a_parameter_is_no_merge() -> None:
    bias = nn.Parameter(torch.randn(8, 1, 1))
    model = Model(lambda m, x: m.bn(m.drop(x) + m.bias), drop=nn.Dropout(0.5), bn=nn.BatchNorm2d(8))
    model.bias = bias
    recorded = trace(model, Inputs(args=(IMAGE,)))
    assert survey(recorded).placements[0].facts.adds_between == 0


def test_without_a_prediction_the_facts_about_delta_are_unknown() -> None:
    model = Model(lambda m, x: m.bn(m.drop(x)), drop=nn.Dropout(0.5), bn=nn.BatchNorm2d(8))
    surveyed = survey(trace(model, Inputs(args=(IMAGE,))))
    facts = surveyed.placements[0].facts
    assert facts.delta is None and facts.delta_low is None and facts.share is None
    assert codes(surveyed) == ["DL101"]


# residual branches --------------------------------------------------------------------------------------


def test_the_channels_that_a_dropout_feeds_count_above_1_as_well() -> None:
    """A mask without a scale: its own part of the concat has more variance in test mode than in training."""

    def forward(model: Any, x: Tensor) -> Tensor:
        kept = (torch.rand_like(x) < 0.5).float() if model.training else torch.ones_like(x)
        out: Tensor = model.bn(torch.cat([x * kept, model.drop(x)], 1))
        return out

    surveyed = look(forward, torch.randn(8, 8, 6, 6), drop=nn.Dropout(0.1), bn=nn.BatchNorm2d(16))
    facts = {place.dropout.name: place.facts for place in surveyed.placements}
    by_hand = next(found for name, found in facts.items() if name != "drop")
    assert by_hand.delta is not None and by_hand.fed_delta is not None and by_hand.own_delta is not None
    assert by_hand.fed_delta > by_hand.delta > 1
    assert by_hand.own_delta > 1


def residual(branch: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> Survey:
    return look(
        lambda m, x: m.fc(torch.relu(m.bn(x + branch(m, x))).mean((2, 3))),
        drop=nn.Dropout(0.5),
        bn=nn.BatchNorm2d(8),
        fc=nn.Linear(8, 3),
        **layers,
    )


def test_squeeze_and_excitation_is_a_gate_and_not_the_way() -> None:
    def branch(m: nn.Module, x: Tensor) -> Tensor:
        x = m.drop(m.conv2(torch.relu(m.norm(m.conv1(x)))))
        gate = torch.sigmoid(m.up(torch.relu(m.down(x.mean((2, 3), keepdim=True)))))
        return x * gate

    surveyed = residual(
        branch,
        conv1=conv(),
        norm=nn.BatchNorm2d(8),
        conv2=conv(),
        down=nn.Conv2d(8, 2, 1),
        up=nn.Conv2d(2, 8, 1),
    )
    assert surveyed.placements[0].facts.position == "P7"
    assert surveyed.placements[0].facts.at_branch_end
    assert codes(surveyed) == ["DL203"]


def test_an_activation_written_as_a_product_is_one() -> None:
    def branch(m: nn.Module, x: Tensor) -> Tensor:
        x = m.norm(m.conv1(x))
        x = x * torch.sigmoid(x)
        return m.conv2(m.drop(x))

    facts = residual(branch, conv1=conv(), norm=nn.BatchNorm2d(8), conv2=conv()).placements[0].facts
    assert facts.position == "P6" and facts.at_guideline


def test_a_scaled_branch_is_a_branch() -> None:
    facts = (
        residual(
            lambda m, x: 0.1 * m.conv2(m.drop(torch.relu(m.norm(m.conv1(x))))),
            conv1=conv(),
            norm=nn.BatchNorm2d(8),
            conv2=conv(),
        )
        .placements[0]
        .facts
    )
    assert (facts.position, facts.residual_add_between) == ("P6", True)


def test_the_innermost_branch_counts() -> None:
    def branch(m: nn.Module, x: Tensor) -> Tensor:
        x = torch.relu(m.norm1(m.conv1(x)))
        return x + m.conv3(m.drop(torch.relu(m.norm2(m.conv2(x)))))

    surveyed = residual(
        branch,
        conv1=conv(),
        norm1=nn.BatchNorm2d(8),
        conv2=conv(),
        norm2=nn.BatchNorm2d(8),
        conv3=conv(),
    )
    facts = surveyed.placements[0].facts
    assert (facts.position, facts.branch_norms) == ("P6", 1)


def test_a_shared_pre_activation_belongs_to_its_block() -> None:
    """The first block of a stage often normalises before it forks."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        out = torch.relu(m.norm1(m.stem(x)))
        skip = m.shortcut(out)
        out = m.conv2(torch.relu(m.norm2(m.conv1(m.drop(out)))))
        return m.fc((skip + out).mean((2, 3)))

    facts = facts_of(
        forward,
        stem=conv(),
        norm1=nn.BatchNorm2d(8),
        shortcut=nn.Conv2d(8, 8, 1),
        drop=nn.Dropout(0.5),
        conv1=conv(),
        norm2=nn.BatchNorm2d(8),
        conv2=conv(),
        fc=nn.Linear(8, 3),
    )
    assert facts.position == "P3"


def test_u_nets_are_no_residual_branches() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        deep = torch.relu(m.norm1(m.down(x)))
        deep = m.up(m.drop(torch.relu(m.norm2(m.conv(deep)))))
        return m.norm3(m.last(torch.cat([x, deep], 1)))

    facts = facts_of(
        forward,
        down=nn.Conv2d(8, 8, 4, 2, 1),
        norm1=nn.BatchNorm2d(8),
        conv=conv(),
        norm2=nn.BatchNorm2d(8),
        drop=nn.Dropout(0.5),
        up=nn.ConvTranspose2d(8, 8, 4, 2, 1),
        last=conv(16, 8),
        norm3=nn.BatchNorm2d(8),
    )
    assert not facts.in_branch and facts.position is None
    assert facts.weights_between == 2


def test_a_dense_layer_is_a_branch_whose_concat_excuses_nothing() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        new = m.conv2(m.drop(torch.relu(m.norm2(m.conv1(torch.relu(m.norm1(x)))))))
        return m.norm3(torch.cat([x, new], 1))

    surveyed = look(
        forward,
        norm1=nn.BatchNorm2d(8),
        conv1=conv(),
        norm2=nn.BatchNorm2d(8),
        drop=nn.Dropout(0.7),
        conv2=conv(),
        norm3=nn.BatchNorm2d(16),
    )
    facts = only(surveyed).facts
    assert (facts.branch_join, facts.position, facts.at_guideline) == ("concat", "P6", False)
    assert codes(surveyed) == ["DL102"]


def test_two_inputs_that_are_added_are_no_residual_branch() -> None:
    facts = facts_of(
        lambda m, x, y: m.norm(m.conv1(x) + m.conv2(m.drop(y))),
        IMAGE,
        torch.randn(2, 8, 8, 8),
        conv1=conv(),
        conv2=conv(),
        drop=nn.Dropout(0.5),
        norm=nn.BatchNorm2d(8),
    )
    assert not facts.in_branch and facts.adds_between == 1 and not facts.residual_add_between


# heads --------------------------------------------------------------------------------------------------


def test_an_encoder_that_ends_with_dropout_drops_no_predictions() -> None:
    surveyed = look(
        lambda m, x: m.drop(torch.relu(m.fc(x))), torch.randn(4, 8), fc=nn.Linear(8, 8), drop=nn.Dropout(0.5)
    )
    assert not only(surveyed).facts.on_logits and codes(surveyed) == []


def test_a_transformers_last_projection_is_no_prediction() -> None:
    surveyed = look(
        lambda m, x: m.drop(m.fc2(F.gelu(m.fc1(x)))),
        torch.randn(2, 5, 8),
        fc1=nn.Linear(8, 16),
        fc2=nn.Linear(16, 8),
        drop=nn.Dropout(0.5),
    )
    assert codes(surveyed) == []


@pytest.mark.parametrize("several", [False, True])
def test_logits_are_predictions_beside_other_outputs_too(several: bool) -> None:
    def forward(m: nn.Module, x: Tensor) -> Any:
        features = torch.relu(m.fc1(x))
        logits = m.drop(m.fc2(features))
        return {"logits": logits, "features": features} if several else logits

    surveyed = look(
        forward, torch.randn(4, 8), fc1=nn.Linear(8, 8), fc2=nn.Linear(8, 3), drop=nn.Dropout(0.5)
    )
    assert codes(surveyed) == ["DL302"]


def test_tokens_that_are_averaged_are_pooled() -> None:
    facts = facts_of(
        lambda m, x: m.fc(m.drop(m.proj(x).mean(1))),
        torch.randn(2, 5, 8),
        proj=nn.Linear(8, 16),
        drop=nn.Dropout(0.1),
        fc=nn.Linear(16, 3),
    )
    assert facts.position == "H5" and facts.pooled_before


def test_a_hidden_layer_after_pooling_is_no_h5() -> None:
    """MobileNetV3: what lies between the pooling and the dropout cannot be moved before the pooling."""
    surveyed = look(
        lambda m, x: m.fc2(m.drop(torch.relu(m.fc1(x.mean((2, 3)))))),
        fc1=nn.Linear(8, 8),
        drop=nn.Dropout(0.5),
        fc2=nn.Linear(8, 3),
    )
    facts = only(surveyed).facts
    assert facts.position is None and facts.at_guideline and facts.pooled_before
    assert codes(surveyed) == []


# the dropout itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drop", "shape", "wrong"),
    [
        (nn.Dropout1d(0.5), (4, 8), True),
        (nn.Dropout1d(0.5), (4, 8, 5), False),
        (nn.Dropout2d(0.5), (4, 8), True),
        (nn.Dropout2d(0.5), (4, 8, 5), True),
        (nn.Dropout2d(0.5), (4, 8, 5, 5), False),
        (nn.Dropout3d(0.5), (4, 8, 5, 5), True),
        (nn.Dropout3d(0.5), (4, 8, 2, 5, 5), False),
        (nn.Dropout(0.5), (4, 8), False),
    ],
)
@pytest.mark.filterwarnings("ignore:dropout[123]d.*:UserWarning")
def test_rank(drop: nn.Module, shape: tuple[int, ...], wrong: bool) -> None:
    surveyed = look(lambda m, x: m.drop(x) * 2, torch.randn(shape), drop=drop)
    assert only(surveyed).facts.wrong_rank is wrong
    assert ("DL405" in codes(surveyed)) is wrong


@pytest.mark.parametrize(("p", "degenerate"), [(0.0, False), (0.5, False), (1.0, True), (math.nan, True)])
def test_degenerate_ratios(p: float, degenerate: bool) -> None:
    surveyed = look(lambda m, x: m.drop(x) * 2, drop=nn.Dropout(p))
    assert [f.rule.code for f in RULES.match(surveyed)] == (["DL403"] if degenerate else [])


def test_in_place_with_nobody_else_reading_is_fine() -> None:
    facts = facts_of(
        lambda m, x: m.bn(m.conv(m.drop(m.stem(x)))),
        stem=conv(),
        drop=nn.Dropout(0.5, inplace=True),
        conv=conv(),
        bn=nn.BatchNorm2d(8),
    )
    assert facts.inplace and not facts.skip_shares_inplace


def test_dropout_inside_attention_and_recurrent_layers_is_judged_by_delta_alone() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return m.bn(m.rnn(x)[0].transpose(1, 2))

    surveyed = look(
        forward,
        torch.randn(4, 6, 8),
        rnn=nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True),
        bn=nn.BatchNorm1d(8),
    )
    facts = only(surveyed).facts
    assert (facts.inside, facts.noise, facts.position) == (True, "recurrent", None)
    assert facts.weights_between == 1  # the second layer
    assert set(codes(surveyed)) <= {"DL102"}


def test_a_dropout_whose_ratio_attention_takes_is_not_unused() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=m.drop.p if m.training else 0.0)

    surveyed = look(forward, torch.randn(2, 5, 8), drop=nn.Dropout(0.1), forgotten=nn.Dropout(0.3))
    assert [unused.name for unused in surveyed.unused] == ["forgotten"]
    assert codes(surveyed) == ["DL406"]


# odd graphs ---------------------------------------------------------------------------------------------


def test_long_loops_stay_within_bounds() -> None:
    """Two hundred rounds of one block: every round a call, each with a bounded number of norms."""
    surveyed = look(
        lambda m, x: m.rounds(x),
        torch.randn(4, 8),
        rounds=Model(
            lambda m, x: [x := x + m.fc(m.drop(torch.relu(m.norm(x)))) for _ in range(200)][-1],
            norm=nn.BatchNorm1d(8),
            fc=nn.Linear(8, 8),
            drop=nn.Dropout(0.1),
        ),
    )
    calls = {placement.dropout.node.name for placement in surveyed.placements}
    assert len(calls) == 200
    assert len(surveyed.placements) <= 16 * 200
    assert {placement.facts.position for placement in surveyed.placements} == {"P6"}


def test_dropout_of_what_no_input_reaches() -> None:
    model = Model(lambda m, x: x + m.drop(torch.ones(8, 8)), drop=nn.Dropout(0.5))
    surveyed = survey(trace(model, Inputs(args=(IMAGE,))))
    assert only(surveyed).norm is None
    assert codes(surveyed) == []


def test_tuples_views_and_indices_are_followed() -> None:
    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        one, other = m.drop(x).chunk(2, 1)
        picked = other.flatten(2)[..., 0]
        return m.bn(one), [m.flat(picked), x]

    surveyed = look(forward, drop=nn.Dropout(0.5), bn=nn.BatchNorm2d(4), flat=nn.BatchNorm1d(4))
    assert {placement.norm.name for placement in surveyed.placements if placement.norm} == {"bn", "flat"}


def test_masks_and_shapes_carry_no_noise() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        noisy = m.drop(x)
        return m.bn(torch.zeros_like(noisy) + x * (noisy > 0))

    assert only(look(forward, drop=nn.Dropout(0.5), bn=nn.BatchNorm2d(8))).norm is None


@pytest.mark.parametrize(
    ("options", "plain"), [(None, True), ({"weights": "sphere"}, False), ({"weights": "orthogonal"}, False)]
)
def test_corrected_weights_are_told_from_plain_ones(options: dict[str, Any] | None, plain: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 64))
    example = torch.randn(4, 8)
    if options is not None:
        correct_init_(model, example, **options)
    surveyed = survey(trace(model, Inputs(args=(example,))))
    assert only(surveyed).facts.plain_weights is plain
    found = RULES.match(surveyed, select=["DL502"])
    assert [finding.rule.code for finding in found] == (["DL502"] if plain else [])


def in_place(skip_first: bool) -> Callable[..., Any]:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        out = m.conv2(torch.relu(m.norm2(m.conv1(torch.relu(m.norm1(m.drop(x)))))))
        return m.fc((x + out if skip_first else out + x).mean((2, 3)))

    return forward


@pytest.mark.parametrize("skip_first", [True, False])
@pytest.mark.parametrize(("inplace", "position"), [(False, "P1"), (True, "P0")])
def test_in_place_dropout_reaches_the_skip(skip_first: bool, inplace: bool, position: str) -> None:
    surveyed = look(
        in_place(skip_first),
        stem=conv(),
        drop=nn.Dropout(0.5, inplace=inplace),
        norm1=nn.BatchNorm2d(8),
        conv1=conv(),
        norm2=nn.BatchNorm2d(8),
        conv2=conv(),
        fc=nn.Linear(8, 3),
    )
    facts = only(surveyed).facts
    assert (facts.skip_shares_inplace, facts.position) == (inplace, position)
    assert codes(surveyed) == (["DL201", "DL404"] if inplace else ["DL101"])


def test_in_place_dropout_as_a_statement_of_its_own_shares_nothing() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = torch.relu(m.fc1(x))
        F.dropout(x, 0.5, m.training, inplace=True)
        return m.fc2(torch.relu(m.norm(m.fc(x))))

    surveyed = look(
        forward,
        torch.randn(4, 8),
        fc1=nn.Linear(8, 8),
        fc=nn.Linear(8, 8),
        norm=nn.BatchNorm1d(8),
        fc2=nn.Linear(8, 3),
    )
    facts = only(surveyed).facts
    assert facts.inplace and not facts.skip_shares_inplace
    assert (facts.position, facts.weights_between) == ("H1", 1)
