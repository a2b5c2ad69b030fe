"""The graph of a plan: order, ancestors, and what is refused."""

import dataclasses

import pytest

from trainers import plans
from trainers.errors import UserError
from trainers.plans import graph
from trainers.plans.graph import Stage

SMALL = Stage("a", "S")


def names(stages):
    return [stage.name for stage in stages]


def test_in_order_sorts_sources_first():
    top = Stage("top", "M", "fusion_rule", ("b", "a"))
    assert names(graph.in_order([top, SMALL, Stage("b", "S")])) == ["b", "a", "top"]


def test_ancestors_are_what_a_stage_needs():
    stages = plans.stages_of(list(plans.PLANS))
    assert names(graph.ancestors(stages, "self_fusion")) == ["small_0", "self_fusion"]
    assert names(graph.ancestors(stages, "fusion_rule")) == ["small_0", "small_1", "fusion_rule"]
    assert names(graph.ancestors(stages, "small_1")) == ["small_1"]


def test_ancestors_through_two_fusions():
    stages = [
        SMALL,
        Stage("m", "M", "self_fusion", ("a",), copies=2),
        Stage("x", "M"),
        Stage("l", "L", "self_fusion", ("m",), copies=2),
    ]
    assert names(graph.ancestors(stages, "l")) == ["a", "m", "l"]


def test_stage_is_frozen_and_writes_itself():
    stage = Stage("b", "M", "self_fusion", ("a",), copies=2, settings={"noise": 0.2})
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage.name = "c"
    assert stage.to_dict() == {
        "name": "b",
        "size": "M",
        "init": "self_fusion",
        "sources": ["a"],
        "copies": 2,
        "norm": "rule",
        "seed": 0,
        "settings": {"noise": 0.2},
        "like": None,
        "source_steps": {},
        "repeat": 1,
        "until": None,
        "rivals": [],
        "keep": 1,
        "stands_for": None,
        "validations": {},
    }


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"name": "a b"}, "name='a b'"),
        ({"name": ""}, "name=''"),
        ({"name": "M"}, "name='M'"),
        ({"size": "XL"}, "size='XL'"),
        ({"init": "magic"}, "init='magic'"),
        ({"sources": ("b",)}, r"sources=\['b'\]"),
        ({"init": "fusion_rule", "sources": ("b",)}, r"sources=\['b'\]"),
        ({"init": "self_fusion", "sources": ("b",)}, "copies=1"),
        ({"init": "stacked", "sources": ("b",)}, "copies=1"),
        ({"init": "stacked", "sources": ("b",), "copies": 10**9}, "copies=1000000000"),
        ({"init": "stacked", "sources": ("b",), "copies": 2, "norm": "rule"}, "norm='rule'"),
        ({"init": "self_fusion", "sources": ("b", "c"), "copies": 2}, r"sources=\['b', 'c'\]"),
        ({"copies": 2}, "copies=2"),
        ({"init": "restarted", "sources": ("b",), "copies": 2}, "copies=2"),
        ({"init": "restarted", "sources": ("b", "c")}, r"sources=\['b', 'c'\]"),
        ({"init": "fusion_rule", "sources": ("b", "c"), "norm": "property"}, "norm='property'"),
        ({"norm": "rule"}, "norm='rule'"),
    ],
)
def test_stages_that_make_no_sense_are_refused(arguments, received):
    with pytest.raises(UserError, match=f"Received: {received}"):
        Stage(**({"name": "a", "size": "S"} | arguments))


def test_cycle_is_named():
    loop = [
        Stage("a", "M", "self_fusion", ("b",), copies=2),
        Stage("b", "M", "self_fusion", ("a",), copies=2),
    ]
    with pytest.raises(UserError, match="cycle=a <- b <- a"):
        graph.in_order(loop)


def test_unknown_source_is_named():
    with pytest.raises(UserError, match="stage 'b'.*stage='ghost'"):
        graph.in_order([SMALL, Stage("b", "M", "self_fusion", ("ghost",), copies=2)])


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(UserError, match="name='a' twice"):
        graph.in_order([SMALL, Stage("a", "M")])


def test_repeats_have_names_and_sources_of_their_own():
    big = Stage("b", "M", "self_fusion", ("a",), copies=2, source_steps={"a": 500})
    first, second = graph.repeated([SMALL, big], 2)[:2], graph.repeated([SMALL, big], 2)[2:]
    assert first == (SMALL, big)
    assert names(second) == ["a_r2", "b_r2"]
    assert second[1].sources == ("a_r2",)
    assert second[1].source_steps == {"a_r2": 500}
    assert [stage.base for stage in second] == ["a", "b"]
    assert [stage.repeat for stage in second] == [2, 2]
    assert graph.in_order(second) == second


def test_steps_that_are_fused():
    fused = [
        Stage(f"b{step}", "M", "self_fusion", ("a",), copies=2, source_steps={"a": step})
        for step in (500, 200, 500 + 1)
    ]
    assert graph.fused_steps([SMALL, *fused]) == {"a": [200, 500, 501]}
    assert fused[0].written("a") == "a@500"


@pytest.mark.parametrize("steps", [{"b": 5}, {"a": 0}, {"a": "5"}, {"a": True}])
def test_steps_of_no_source_are_refused(steps):
    with pytest.raises(UserError, match="source="):
        Stage("x", "M", "self_fusion", ("a",), copies=2, source_steps=steps)


@pytest.mark.parametrize("name", ["data", "report"])
def test_names_of_other_folders_of_a_run_are_refused(name):
    with pytest.raises(UserError, match=f"name='{name}'"):
        Stage(name, "S")
