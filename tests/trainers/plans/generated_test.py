"""Plans made from lists: which stages they have, what they share, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest

from keras_fusion.schedules import InverseSquareRoot
from tests.trainers import nano
from trainers import plans, pretrain
from trainers.errors import UserError
from trainers.plans import generated, settings, sizes
from trainers.plans.options import PlanOptions

COSTS = {"S": 1.0, "M": 4.0}


def basis(size="mini", flags=(), **options):
    given = {name: settings.parse(name, text) for name, text in dict(flags).items()}
    return plans.Basis(sizes.SIZES[size], COSTS.get, given, PlanOptions(**options))


def by_name(plan):
    return {stage.name: stage for stage in plan.stages}


@pytest.mark.parametrize("name", ["offsets", "zero_blocks", "when_to_fuse"])
@pytest.mark.parametrize("size", list(sizes.SIZES))
def test_all_start_from_one_small_model_with_one_seed(name, size):
    plan = plans.get_plan(name, basis(size))
    assert plan.name == name
    small, *others = plan.stages
    assert small == plans.PLANS["self_fusion"].stages[0]
    assert list(plan.points) == [stage.name for stage in others]
    assert {stage.seed for stage in others} == {2}
    assert {stage.norm for stage in others} <= {"rule", None}
    assert {stage.parents for stage in others} <= {("small_0", "small_0"), ()}
    plans.merge([plan, *plans.PLANS.values()])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("tiny", [-20, -10, 0, 10, 20]),
        ("table8", [-50_000, -25_000, 0, 25_000, 50_000]),
        ("table9", [-50_000, -25_000, 0, 25_000, 50_000]),
    ],
)
def test_offsets_are_the_papers_scaled_to_the_run(size, expected):
    plan = generated.offsets(basis(size))
    assert [point["offset"] for point in plan.points.values()] == expected
    plan_basis = basis(size)
    stages = by_name(plan)
    offsets = [plan_basis.settings_of(stages[name]).learning_rate_offset for name in plan.points]
    assert offsets == expected


def rates(size, offset, share):
    """The learning rate of a stage of `offsets` at a share of its run."""
    plan_basis = basis(size, offsets=(offset,))
    stage = generated.offsets(plan_basis).stages[-1]
    settings = plan_basis.settings_of(stage)
    schedule = InverseSquareRoot(
        warmup_steps=settings.warmup_steps,
        offset=settings.learning_rate_offset,
        scale=settings.learning_rate_scale,
    )
    return float(schedule(round(share * settings.steps)))


def test_offsets_have_the_sign_of_section_5_4_and_the_maximum_of_self_fusion():
    peak = 1 / math.sqrt(1000)
    np.testing.assert_allclose(rates("mini", 0, 0), peak, rtol=1e-5)
    np.testing.assert_allclose(rates("mini", -100, 0.06), peak, rtol=1e-5)  # held to 6 % of the run
    assert rates("mini", -100, 0.065) < peak
    np.testing.assert_allclose(rates("mini", 100, 0), peak * math.sqrt(20 / 100), rtol=1e-5)


@pytest.mark.parametrize("offset", [-50_000, 0, 50_000])
def test_small_and_paper_schedules_have_one_shape(offset):
    for share in (0, 0.01, 0.05, 0.1, 0.5, 1):
        small = rates("mini", offset * 2000 // 1_000_000, share) / rates("mini", 0, 0)
        paper = rates("table8", offset, share) / rates("table8", 0, 0)
        assert small == pytest.approx(paper, rel=1e-5), share


def test_a_point_that_is_a_stage_of_table1_is_that_stage():
    assert "self_fusion" in generated.offsets(basis("table8")).points
    assert "offset_0" in generated.offsets(basis("mini")).points
    plan = generated.zero_blocks(basis())
    assert plan.points["self_fusion"] == {"noise": 0.1, "noise_kind": "gaussian"}
    assert "noise_gaussian_1e-1" not in plan.points
    moved = generated.zero_blocks(basis(flags={"noise": "0.5"}))
    assert moved.points["self_fusion"] == {"noise": 0.5, "noise_kind": "gaussian"}
    assert "noise_gaussian_1e-1" in moved.points


def test_zero_blocks_has_no_noise_and_each_kind_at_each_sigma():
    plan = generated.zero_blocks(basis(sigmas=(0.02, 1.0)))
    assert list(plan.points) == [
        "noise_0",
        "noise_gaussian_2e-2",
        "noise_gaussian_1",
        "noise_balanced_2e-2",
        "noise_balanced_1",
    ]
    plan_basis = basis()
    settings = [plan_basis.settings_of(stage) for stage in plan.stages[1:]]
    assert [s.noise for s in settings] == [0, 0.02, 1, 0.02, 1]
    assert [s.noise_kind for s in settings[1:]] == ["gaussian"] * 2 + ["balanced"] * 2
    rest = [dataclasses.replace(s, noise=0, noise_kind="gaussian") for s in settings]
    assert rest == [rest[0]] * 5


def spent(plan, name, step):
    """The cost of a stage's first steps, with the source's, by `COSTS`."""
    stage = by_name(plan)[name]
    if not stage.is_fused:
        return step * COSTS["M"]
    return stage.source_steps.get("small_0", 2500) * COSTS["S"] + step * COSTS["M"]


def test_every_point_of_a_budget_spends_it():
    plan = generated.when_to_fuse(basis())
    budgets = plan.facts["budgets"]
    whole = 2500 * COSTS["S"] + 2000 * COSTS["M"]
    np.testing.assert_allclose(np.divide(budgets, whole), [50 / 58.4, 60 / 58.4, 70 / 58.4])
    for name, point in plan.points.items():
        for budget, step in zip(budgets, point["steps"], strict=True):
            assert 0 <= budget - spent(plan, name, step) < COSTS["M"]
        assert basis().settings_of(by_name(plan)[name]).steps >= point["steps"][-1]
    assert plan.facts["unit"] == "flops"


def test_the_small_model_is_one_and_its_checkpoints_are_fused():
    plan = generated.when_to_fuse(basis())
    fusion_steps = {name: point["fusion_step"] for name, point in plan.points.items()}
    assert fusion_steps == {
        "fuse_never": 0,
        "fuse_at_500": 500,
        "fuse_at_1000": 1000,
        "fuse_at_2000": 2000,
        "fuse_at_2500": 2500,
    }
    assert sum(stage.size == "S" for stage in plan.stages) == 1
    stages = by_name(plan)
    assert stages["fuse_at_500"].source_steps == {"small_0": 500}
    assert stages["fuse_at_2500"].source_steps == {}
    assert generated.steps_to_keep(basis()) == {"small_0": [500, 1000, 2000]}


def test_the_papers_best_step_is_among_its_fusion_steps():
    points = generated.when_to_fuse(basis("table8")).points
    assert [p["fusion_step"] for p in points.values()] == [0, 250000, 500000, 750000, 1000000]


def test_no_fusion_at_all_is_trained_as_the_baseline_is():
    plan_basis = basis()
    stages = by_name(generated.when_to_fuse(plan_basis))
    never = plan_basis.settings_of(stages["fuse_never"])
    baseline = plan_basis.settings_of(generated.BASELINE)
    assert dataclasses.replace(never, steps=baseline.steps) == baseline


def test_with_a_decay_every_budget_is_a_run_of_its_own():
    """The decay is at the end of a run, which therefore says nothing of smaller budgets."""
    flags = {"decay_steps": "M:100"}
    plan = generated.when_to_fuse(basis(flags=flags, budgets=(10500.0, 12000.0), fuse_at=(1000,)))
    assert plan.points == {
        "fuse_never_for_2625": {"fusion_step": 0, "steps": [2625, None]},
        "baseline": {"fusion_step": 0, "steps": [None, 3000]},
        "fuse_at_1000_for_2375": {"fusion_step": 1000, "steps": [2375, None]},
        "fuse_at_1000_for_2750": {"fusion_step": 1000, "steps": [None, 2750]},
    }
    planned = basis(flags=flags)
    for stage in plan.stages[1:]:
        settings_of_stage = planned.settings_of(stage)
        assert settings_of_stage.decay_steps == 100
        assert settings_of_stage.steps in plan.points[stage.name]["steps"]
    one = generated.when_to_fuse(basis(flags=flags, budgets=(10500.0,), fuse_at=(2500,)))
    assert list(one.points) == ["fuse_never_for_2625", "self_fusion"]


def test_budgets_that_table1_covers_train_nothing_again():
    plan = generated.when_to_fuse(basis(budgets=(5000.0, 10000.0), fuse_at=(1000, 2500)))
    assert list(plan.points) == ["baseline", "fuse_at_1000", "self_fusion"]
    assert plan.points["baseline"]["steps"] == [1250, 2500]
    assert plan.points["self_fusion"]["steps"] == [625, 1875]


def test_a_budget_that_the_small_model_eats_has_no_point():
    plan = generated.when_to_fuse(basis(budgets=(2000.0, 10000.0), fuse_at=(2500,)))
    assert plan.points["self_fusion"]["steps"] == [None, 1875]
    with pytest.raises(UserError, match=r"fuse_at=2500, which takes 2.5e\+03.*budget=2e\+03"):
        generated.when_to_fuse(basis(budgets=(2000.0,), fuse_at=(2500,)))
    with pytest.raises(UserError, match=r"budgets of at most 8.59e\+09.*budgets=1e\+300. Lower"):
        generated.when_to_fuse(basis(budgets=(1e300,)))


def config(*arguments):
    return nano.config_of(pretrain, "--workdir=w", "--size=mini", *arguments)


def test_flags_reach_the_plans():
    merged = config("--plan=offsets,zero_blocks", "--offsets=-7,0", "--sigmas=0.3")
    names = [stage.name for stage in merged.stages]
    assert names == [
        "small_0",
        "offset_-7",
        "offset_0",
        "noise_0",
        "noise_gaussian_3e-1",
        "noise_balanced_3e-1",
    ]
    steps = config("--plan=offsets", "--steps=offset_-50:5,self_fusion:1000")
    assert [p["offset"] for p in steps.plans[0].points.values()] == [-50, -25, 0, 25, 50]
    assert [settings.steps for settings in steps.settings.values()] == [2500, 5] + [1000] * 4
    with pytest.raises(UserError, match="steps=offset_-7"):
        config("--plan=offsets", "--steps=offset_-7:5")


def test_budgets_in_device_seconds():
    flags = ("--plan=when_to_fuse", "--budgets=100", "--fuse_at=1000")
    plan = config(*flags, "--step_seconds=S:0.02,M:0.05").plans[0]
    assert plan.facts == {
        "unit": "device_seconds",
        "budgets": [100.0],
        "step_cost": {"S": 0.02, "M": 0.05},
    }
    assert plan.points["fuse_at_1000"] == {"fusion_step": 1000, "steps": [1600]}
    with pytest.raises(UserError, match="size M too"):
        config(*flags, "--step_seconds=S:0.02")
    # The seconds are those of whole sequences and of the sizes' own shapes.
    for plan in ("lengths", "shapes"):
        with pytest.raises(UserError, match="Received: --step_seconds"):
            config(f"--plan=when_to_fuse,{plan}", *flags[1:], "--step_seconds=S:0.02,M:0.05")


def test_flops_are_those_of_the_models():
    plan = config("--plan=when_to_fuse", "--size=tiny").plans[0]
    # 2-layer models of hidden 64 and 128, 32 x (64 + 65) tokens of 512: by `step_flops`.
    assert plan.facts["step_cost"] == {"S": 3457204224.0, "M": 11783995392.0}


def test_what_may_be_fused_later_is_kept_by_every_plan_in_every_repeat():
    kept = config("--plan=self_fusion", "--repeats=2").fused_at
    assert kept == {"small_0": [500, 1000, 2000], "small_0_r2": [500, 1000, 2000]}
    kept = config("--plan=when_to_fuse", "--fuse_at=1500").fused_at
    assert kept == {"small_0": [500, 1000, 1500, 2000]}
    assert config("--plan=baseline").fused_at == {}


@pytest.mark.parametrize(
    ("flag", "received"),
    [
        ("--offsets=1.5", "offsets='1.5'"),
        ("--offsets=", "offsets=''"),
        ("--offsets=1,1", "offsets='1,1'"),
        ("--sigmas=0", "sigmas='0'"),
        ("--sigmas=nan", "sigmas='nan'"),
        ("--fuse_at=-1", "fuse_at='-1'"),
        ("--fuse_at=750", "step=750"),
        ("--fuse_at=3000", "step=3000"),
        ("--budgets=0", "budgets='0'"),
        ("--budgets=inf", "budgets='inf'"),
        ("--step_seconds=S:1", "budgets=None"),
        ("--step_seconds=S", "step_seconds='S'"),
        ("--step_seconds=X:1", "step_seconds='X:1'"),
        ("--repeats=0", "repeats=0"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_one_line(flag, received):
    with pytest.raises(UserError) as error:
        config("--plan=offsets,zero_blocks,when_to_fuse", flag)
    assert f"Received: {received}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flag", ["--offsets=1", "--sigmas=1", "--fuse_at=500", "--budgets=1e13"])
def test_lists_of_plans_that_are_not_asked_for_are_refused(flag):
    with pytest.raises(UserError, match="Add the plan"):
        config("--plan=table1", flag)
