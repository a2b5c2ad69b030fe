"""Plans: what the registry holds, one graph of several plans, and what is refused."""

import pytest

from trainers import plans
from trainers.errors import UserError
from trainers.plans import Plan
from trainers.plans.graph import Stage, in_order, repeated


def names(stages):
    return [stage.name for stage in stages]


SECTION_5_1 = ["baseline", "self_fusion", "fusion_property", "fusion_rule"]


def by_name(*plan_names):
    return {stage.name: stage for stage in plans.stages_of(plan_names)}


def tree(stages, name):
    """Returns the origin of a stage, nested: size, how, and the trees of what it was made of."""
    stage = stages[name]
    return (stage.size, stage.init, *(tree(stages, parent) for parent in stage.parents))


def test_registry_holds_the_experiments_of_section_5_1():
    assert list(plans.PLANS)[:6] == [*SECTION_5_1, "baseline_longer", "table1"]
    for name in SECTION_5_1:
        assert plans.PLANS[name].final == name
        assert plans.PLANS[name].stages[-1].size == "M"


def test_every_plan_knows_its_name_and_says_what_it_is():
    for name, plan in plans.PLANS.items():
        assert plan.name == name
        assert plan.description
        assert plan.stages == in_order(plan.stages)


def test_all_known_plans_are_one_graph():
    assert len(plans.stages_of(list(plans.PLANS))) == 18


def test_table1_is_four_plans_and_the_baseline_past_its_end():
    table1 = plans.PLANS["table1"]
    rows = [*SECTION_5_1, "baseline_longer"]
    assert table1.stages == plans.stages_of(rows)
    assert table1.points == {name: {"row": name} for name in rows}


def test_the_baseline_continues_until_it_meets_self_fusion():
    stage = by_name("baseline_longer")["baseline_longer"]
    assert (stage.init, stage.sources, stage.until) == ("continued", ("baseline",), "self_fusion")
    again = {s.name: s for s in repeated(plans.stages_of(["baseline_longer"]), 2)}
    assert again["baseline_longer_r2"].needs == ("baseline_r2", "self_fusion_r2")


def test_plan_stages_name_their_sources():
    stages = by_name(*SECTION_5_1)
    assert stages["self_fusion"].parents == ("small_0", "small_0")
    assert stages["fusion_property"].parents == ("small_0", "small_1")
    assert stages["fusion_property"].norm == "property"
    assert stages["fusion_rule"].norm == "rule"
    assert stages["baseline"].norm is None
    assert [stages[name].seed for name in ("small_0", "small_1")] == [0, 1]


def test_big_models_see_the_same_batches_and_none_of_the_small_ones():
    stages = plans.stages_of(SECTION_5_1)
    small = {stage.seed for stage in stages if stage.size == "S"}
    big = {stage.seed for stage in stages if stage.size == "M"}
    assert len(big) == 1
    assert not small & big


S, M = ("S", "scratch"), ("M", "scratch")
PAIR = ("M", "fusion_property", S, S)
SELF = ("M", "self_fusion", S, S)
L_TREES = {
    "figure2_1": ("L", "scratch"),
    "figure2_3": ("L", "fusion_property", M, M),
    "figure2_4": ("L", "fusion_property", PAIR, PAIR),
    "figure2_5": ("L", "self_fusion", M, M),
    "figure2_6": ("L", "self_fusion", SELF, SELF),
    "four_at_once": ("L", "fusion_property", S, S, S, S),
    "pair_then_self": ("L", "self_fusion", PAIR, PAIR),
}


@pytest.mark.parametrize(("name", "expected"), L_TREES.items())
def test_graphs_of_figure_2(name, expected):
    assert plans.PLANS[name].final == name
    assert tree(by_name(name), name) == expected


def test_setting_4_trains_seven_models():
    """The paper's caption: "algorithm 4 is trained a total of 7M steps", a million a node."""
    assert len(plans.PLANS["figure2_4"].stages) == 7


def test_figure2_is_the_settings_that_the_text_tells():
    rows = ["figure2_1", "figure2_3", "figure2_4", "figure2_5", "figure2_6"]
    assert list(plans.PLANS["figure2"].points) == rows
    assert not {"four_at_once", "pair_then_self", "figure2_2"} & set(by_name("figure2"))


def test_what_is_fused_differs_and_sees_other_batches_than_its_sources():
    stages = by_name(*plans.PLANS)
    for stage in stages.values():
        seeds = [stages[source].seed for source in stage.sources]
        assert len(set(seeds)) == len(seeds)
        assert stage.seed not in seeds


def test_figure2_shares_the_stages_of_table1():
    assert set(by_name("figure2")) - set(by_name("table1")) == {
        "baseline_1",
        "small_2",
        "small_3",
        "fusion_property_1",
        *plans.PLANS["figure2"].points,
    }


def test_fusions_of_models_with_norms_of_parts_keep_them():
    """One norm over parts that had their own would change the function; see also `trained_test`."""
    stages = by_name(*plans.PLANS)
    for stage in stages.values():
        if any(stages[source].norm == "property" for source in stage.sources):
            assert stage.norm == "property"


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
