"""The sweep: its candidates, its costs, what it trains, and that other plans take its result."""

import dataclasses

import pytest

from tests.trainers import nano
from trainers import plans, pretrain
from trainers.errors import UserError
from trainers.files import read_json
from trainers.plans import Basis, tuning
from trainers.plans.options import PlanOptions
from trainers.runs import sweep
from trainers.runs.state import RunState

COSTS = {"S": 1.0, "M": 4.0}


def basis(**options):
    return Basis(nano.NANO, COSTS.__getitem__, {}, PlanOptions(**options))


def points_of(plan, arm):
    return {name: point for name, point in plan.points.items() if point["arm"] == arm}


def test_arms_are_given_the_same_compute():
    plan = plans.get_plan("tune", basis(tune_steps=5))
    stages = {stage.name: stage for stage in plan.stages}
    spent = {}
    for arm in tuning.ARMS:
        rungs = {}
        for name, point in points_of(plan, arm).items():
            stage = stages[name]
            rungs.setdefault(point["rung"], []).append(stage.settings["steps"] * COSTS[stage.size])
        # Six candidates, of which two continue for twice as many steps.
        assert {rung: len(costs) for rung, costs in rungs.items()} == {1: 6, 2: 6}
        spent[arm] = 6 * rungs[1][0] + 2 * rungs[2][0]
    assert len(set(spent.values())) == 1
    assert stages["tune_baseline_k1000_s1_r1"].settings["steps"] == 5
    assert stages["tune_small_0_k600_s1_r1"].settings["steps"] == 20


def test_candidates_are_multiples_of_the_arms_own():
    plan = plans.get_plan("tune", basis(tune_warmups=(1.0, 3.0), tune_scales=(2.0,)))
    points = points_of(plan, "small_0").values()
    pairs = [(point["warmup_steps"], point["learning_rate_scale"]) for point in points]
    assert pairs == [(600, 2.0), (1800, 2.0)]


def test_the_best_third_continues():
    plan = plans.get_plan(
        "tune", basis(tune_arms=("small_0",), tune_warmups=tuple(range(1, 11)), tune_steps=1)
    )
    by_rung = {}
    for stage in plan.stages:
        by_rung.setdefault(plan.points[stage.name]["rung"], []).append(stage)
    assert [by_rung[rung][0].keep for rung in (2, 3)] == [7, 3]
    assert [by_rung[rung][0].settings["steps"] for rung in (1, 2, 3)] == [4, 8, 24]
    for rung in (2, 3):
        before = tuple(stage.name for stage in by_rung[rung - 1])
        assert all(stage.rivals == before for stage in by_rung[rung])
        assert [stage.sources for stage in by_rung[rung]] == [(name,) for name in before]


def test_an_unknown_arm_is_refused():
    with pytest.raises(UserError, match=r"--tune_arms among .*baseline.*tune_arms=figure2_1"):
        plans.get_plan("tune", basis(tune_arms=("figure2_1",)))


def test_fusions_of_two_take_what_was_found_for_self_fusion():
    best = {"warmup_steps": 5, "learning_rate_scale": 0.5}
    tuned = tuning.settings_of({"self_fusion": best})
    assert tuned["warmup_steps"] == {"self_fusion": 5, "fusion_property": 5, "fusion_rule": 5}
    both = tuning.settings_of({"self_fusion": best, "fusion_rule": best | {"warmup_steps": 9}})
    assert both["warmup_steps"]["fusion_rule"] == 9


@pytest.fixture(scope="module")
def world(tmp_path_factory, sharing_patch):
    """A sweep over two arms, and plans that take its result, trained by one command."""
    folder = tmp_path_factory.mktemp("tuning")
    nano.write_tokens(folder)
    pretrain.pretrain(asked(folder, "--plan=tune,self_fusion"))
    return folder


def asked(folder, *arguments):
    (data_dir,) = (folder / "data").glob("text-*")
    return nano.config_of(
        pretrain,
        "--size=nano",
        "--noprogress",
        "--eval_batches=1",
        "--eval_every=9",
        f"--data_dir={data_dir}",
        f"--workdir={folder}/w",
        *arguments,
        *(
            ("--tune_arms=small_0,self_fusion", "--tune_warmups=0.01,1", "--tune_scales=1,2")
            if any("tune" in argument for argument in arguments)
            else ()
        ),
    )


@pytest.mark.slow  # a whole sweep; its parts are above
def test_the_best_of_the_last_rung_wins(world):
    workdir = RunState(world / "w")
    arms = read_json(world / "w" / sweep.TUNING_FILE)["arms"]
    points = read_json(world / "w" / "run.json")["experiments"]["tune"]["points"]
    assert list(arms) == ["small_0", "self_fusion"]
    for arm, best in arms.items():
        first, last = (
            {
                name: workdir.record(name)["loss_per_token"]
                for name, point in points.items()
                if (point["arm"], point["rung"]) == (arm, rung) and workdir.record(name)
            }
            for rung in (1, 2)
        )
        assert len(first) == 4
        better = {f"{name[:-1]}2" for name in sorted(first, key=first.get)[:2]}
        assert set(last) == better
        assert best["stage"] == min(last, key=last.get)
        assert best["loss_per_token"] == min(last.values())


@pytest.mark.slow  # a whole sweep; its parts are above
def test_other_plans_take_its_result(world):
    arms = read_json(world / "w" / sweep.TUNING_FILE)["arms"]
    workdir = RunState(world / "w")
    for arm, best in arms.items():
        rate = workdir.record(arm)["learning_rate"]
        expected = (best["warmup_steps"], best["learning_rate_scale"])
        assert (rate["warmup_steps"], rate["scale"]) == expected
    fused = read_json(
        world / "w" / arms["self_fusion"]["stage"].replace("_r2", "_r1") / "stage.json"
    )
    assert fused["sources"] == ["small_0"]
    assert "plan tune" in read_json(world / "w" / "run.json")["tuning"]


@pytest.mark.slow  # a whole sweep; its parts are above
def test_later_commands_take_its_result(world):
    """Else the stages would be refused, as of another run."""
    before = RunState(world / "w").record("self_fusion")
    pretrain.pretrain(asked(world, "--plan=self_fusion"))
    assert RunState(world / "w").record("self_fusion") == before


@pytest.mark.slow  # a whole sweep; its parts are above
def test_a_sweep_is_not_repeated(world):
    config = asked(world, "--plan=tune,self_fusion", "--repeats=2")
    assert not [
        stage.name for stage in config.stages if "tune" in stage.name and "_r2_" in stage.name
    ]
    assert {stage.repeat for stage in config.stages if stage.name.startswith("tune")} == {1}
    assert "self_fusion_r2" in {stage.name for stage in config.stages}


@pytest.mark.slow  # a whole sweep; its parts are above
def test_a_stage_waits_for_the_sweep(world):
    config = asked(world, "--plan=tune,self_fusion", "--stage=small_0")
    with pytest.raises(
        UserError, match=r"sweep of 'small_0' to be finished before stage 'small_0'"
    ):
        pretrain.pretrain(dataclasses.replace(config, workdir=str(world / "other")))
