"""Plans: what the registry holds, one graph of several plans, and what is refused."""

import pytest

from trainers import plans
from trainers.errors import UserError
from trainers.graphs import Stage
from trainers.plans import Plan


def names(stages):
    return [stage.name for stage in stages]


def test_registry_holds_the_experiments_of_section_5_1():
    assert list(plans.PLANS) == ["baseline", "self_fusion", "fusion_property", "fusion_rule"]
    for name, plan in plans.PLANS.items():
        assert plan.name == name
        assert plan.final == name
        assert plan.stages[-1].size == "M"
        assert plan.description


def test_plan_stages_name_their_sources():
    by_name = {stage.name: stage for stage in plans.stages_of(list(plans.PLANS))}
    assert by_name["self_fusion"].parents == ("small_0", "small_0")
    assert by_name["fusion_property"].parents == ("small_0", "small_1")
    assert by_name["fusion_property"].norm == "property"
    assert by_name["fusion_rule"].norm == "rule"
    assert by_name["baseline"].norm is None
    assert [by_name[name].seed for name in ("small_0", "small_1")] == [0, 1]


def test_big_models_see_the_same_batches_and_none_of_the_small_ones():
    stages = plans.stages_of(list(plans.PLANS))
    small = {stage.seed for stage in stages if stage.size == "S"}
    big = {stage.seed for stage in stages if stage.size == "M"}
    assert len(big) == 1
    assert not small & big


def test_stages_that_plans_share_stand_once_and_after_their_sources():
    stages = plans.stages_of(["fusion_rule", "baseline", "fusion_property", "self_fusion"])
    assert names(stages) == [
        "small_0",
        "small_1",
        "fusion_rule",
        "baseline",
        "fusion_property",
        "self_fusion",
    ]


def test_a_plan_named_twice_is_one_plan():
    assert plans.stages_of(["baseline", "baseline"]) == plans.stages_of(["baseline"])


def test_unknown_plan_lists_the_known_ones():
    with pytest.raises(UserError, match="baseline, self_fusion.*plan='bert'"):
        plans.stages_of(["baseline", "bert"])


def test_no_plan_is_refused():
    with pytest.raises(UserError, match="plan=''"):
        plans.stages_of([])


def test_plans_may_not_mean_two_things_by_one_stage(monkeypatch):
    other = Plan("other", "…", (Stage("small_0", "S", seed=9),))
    monkeypatch.setitem(plans.PLANS, "other", other)
    with pytest.raises(UserError, match="'small_0'.*plan='other'"):
        plans.stages_of(["self_fusion", "other"])
