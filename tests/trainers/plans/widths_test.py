"""Widths of a plan's models: they add up, or what does not is named."""

import pytest

from trainers import plans
from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.plans.settings import DEPTHS, SHAPES
from trainers.plans.widths import check_widths, model_fields

S = {"num_layers": 2, "hidden_dim": 8, "num_heads": 2, "intermediate_dim": 16, "dropout": 0.0}
M = S | {"hidden_dim": 16, "num_heads": 4, "intermediate_dim": 32, "dropout": 0.1}


def test_widths_that_add_up_pass():
    check_widths(plans.stages_of(["table1"]), {"S": S, "M": M})


def test_every_width_that_does_not_add_up_is_named():
    stages = plans.stages_of(["self_fusion"])
    big = M | {"hidden_dim": 12, "num_heads": 5}
    with pytest.raises(UserError, match=r"hidden_dim=8\+8, not 12; num_heads=2\+2, not 5"):
        check_widths(stages, {"S": S, "M": big})


def test_a_depth_that_differs_is_named():
    stages = plans.stages_of(["self_fusion"])
    with pytest.raises(UserError, match="num_layers=2, not 3"):
        check_widths(stages, {"S": S, "M": M | {"num_layers": 3}})


def test_a_size_that_is_not_defined_is_named():
    with pytest.raises(UserError, match="size='M' of stage 'baseline'"):
        check_widths(plans.stages_of(["baseline"]), {"S": S})


MLP, REST = ("mlp",), ("hidden", "heads")
BETWEEN = Stage("between", "S", "self_fusion", ("small_0",), copies=2)
LAST = Stage("last", "M", "self_fusion", ("between",), copies=2)
STACKED = Stage("stacked", "M", "stacked", ("small_0",), copies=3)


def test_a_model_between_the_sizes_is_the_source_of_one_that_has_a_size():
    stages = (*plans.stages_of(["self_fusion"]), BETWEEN, LAST)
    growths = {"between": MLP, "last": REST}
    check_widths(stages, {"S": S, "M": M}, growths)
    by_name = {stage.name: stage for stage in stages}
    fields = model_fields(BETWEEN, by_name, {"S": S, "M": M}, growths)
    assert fields == S | {"intermediate_dim": 32}
    with pytest.raises(UserError, match=r"'last'.*: intermediate_dim=32\+32, not 32"):
        check_widths(stages, {"S": S, "M": M}, {"between": MLP})
    with pytest.raises(UserError, match=r"'last'.*: hidden_dim=8, not 16"):
        check_widths(stages, {"S": S, "M": M}, {"between": MLP, "last": ("heads",)})


def test_a_stack_has_the_widths_of_its_source():
    stages = {stage.name: stage for stage in (*plans.stages_of(["self_fusion"]), STACKED)}
    check_widths(tuple(stages.values()), {"S": S, "M": M})
    assert model_fields(STACKED, stages, {"S": S, "M": M}) == S | {"num_layers": 6}


def test_a_restarted_model_is_that_of_its_source():
    again = Stage("again", "S", "restarted", ("small_0",))
    stages = {stage.name: stage for stage in (*plans.stages_of(["self_fusion"]), again)}
    check_widths(tuple(stages.values()), {"S": S, "M": M})
    assert model_fields(again, stages, {"S": S, "M": M}) == S
    wrong = Stage("again", "M", "restarted", ("small_0",))
    with pytest.raises(UserError, match="what stage 'again' comes from"):
        check_widths((*plans.stages_of(["self_fusion"]), wrong), {"S": S, "M": M})


def test_half_a_model_is_what_is_stacked_to_the_whole():
    half = Stage("half", "M")
    stacked = Stage("stacked", "M", "stacked", ("half",), copies=2)
    stages = {stage.name: stage for stage in (half, stacked)}
    resized = {"half": DEPTHS["half"]}
    check_widths((half, stacked), {"M": M}, resized=resized)
    assert model_fields(half, stages, {"M": M}, resized=resized) == M | {"num_layers": 1}
    assert model_fields(stacked, stages, {"M": M}, resized=resized) == M
    with pytest.raises(UserError, match="0.5 times the num_layers .* Received: num_layers=3"):
        model_fields(half, stages, {"M": M | {"num_layers": 3}}, resized=resized)


def test_sources_of_two_shapes_have_the_widths_of_two_even_ones():
    names = ("attention", "mlp")
    sources = tuple(Stage(name, "S") for name in names)
    fused = Stage("fused", "M", "fusion_property", names)
    resized = {name: SHAPES[name] for name in names}
    check_widths((*sources, fused), {"S": S, "M": M}, resized=resized)
    fields = model_fields(sources[0], {}, {"S": S}, resized=resized)
    assert fields == S | {"num_heads": 3, "intermediate_dim": 8}
    with pytest.raises(
        UserError, match=r"'fused'.*: num_heads=3\+2, not 4; intermediate_dim=8\+16"
    ):
        check_widths(
            (*sources, fused), {"S": S, "M": M}, resized={"attention": SHAPES["attention"]}
        )
