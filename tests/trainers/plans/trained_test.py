"""Plans as they are trained: checkpoints on the way are kept and fused, repeats differ by seed."""

import json
import shutil

import pytest

from tests.trainers import nano
from trainers import checkpoints, pretrain
from trainers.errors import UserError
from trainers.runs.state import RunState

PLAN = {
    "name": "mine",
    "stages": [
        {"name": "a", "size": "S", "settings": {"steps": 6, "checkpoint_every": 1}},
        {
            "name": "b",
            "size": "M",
            "init": "self_fusion",
            "sources": ["a@2"],
            "copies": 2,
            "seed": 1,
            "settings": {"noise": 0, "dropout": 0.1},
        },
    ],
}


@pytest.fixture(scope="module")
def patch(sharing_patch):
    nano.define_with_large(sharing_patch)
    return sharing_patch


@pytest.fixture(scope="module")
def world(tmp_path_factory, patch):
    """A run of the plan with two repeats."""
    folder = tmp_path_factory.mktemp("trained")
    nano.write_tokens(folder)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    pretrain.pretrain(asked(folder, "--repeats=2"))
    return folder


def asked(folder, *arguments, workdir="w"):
    (data_dir,) = (folder / "data").glob("text-*")
    where = (f"--data_dir={data_dir}", f"--workdir={folder}/{workdir}")
    if not any(argument.startswith("--plan") for argument in arguments):
        arguments += (f"--plan_file={folder}/plan.json",)
    return nano.config_of(pretrain, "--size=nano", "--noprogress", *where, *arguments)


@pytest.mark.slow  # stage_test.py fuses stages, graph_test.py repeats them
def test_a_fusion_starts_where_its_source_was_at_that_step(world):
    workdir = RunState(world / "w")
    source, fused = workdir.record("a"), workdir.record("b")
    assert fused["source_steps"] == {"a": 2}
    (at_2,) = [point for point in source["curve"] if point["step"] == 2]
    assert fused["curve"][0]["loss"] == pytest.approx(at_2["loss"], rel=1e-5)
    assert fused["curve"][0]["loss"] != pytest.approx(source["loss"], rel=1e-5)


@pytest.mark.slow  # stage_test.py fuses stages, graph_test.py repeats them
def test_the_checkpoints_that_are_fused_stay(world):
    assert 2 in checkpoints.steps(world / "w" / "a" / "checkpoints")


@pytest.mark.slow  # stage_test.py fuses stages, graph_test.py repeats them
def test_repeats_are_runs_with_the_next_seeds(world):
    workdir = RunState(world / "w")
    records = nano.records(workdir.path)
    assert set(records) == {"a", "b", "a_r2", "b_r2"}
    repeats = {name: (r["repeat"], r["repeat_of"], r["seed"]) for name, r in records.items()}
    assert repeats == {
        "a": (1, "a", 0),
        "b": (1, "b", 1),
        "a_r2": (2, "a", 1000),
        "b_r2": (2, "b", 1001),
    }
    assert records["b_r2"]["source_steps"] == {"a_r2": 2}
    assert records["a"]["loss"] != records["a_r2"]["loss"]
    assert nano.plans(workdir.path) == ["mine"]


@pytest.mark.slow  # stage_test.py fuses stages, graph_test.py repeats them
def test_the_first_repeat_is_the_run_without_repeats(world):
    before = nano.content(world / "w")
    config = asked(world)
    assert [stage.name for stage in config.stages] == ["a", "b"]
    pretrain.pretrain(config)
    after = nano.content(world / "w")
    assert {k: v for k, v in after.items() if "record" in k or "checkpoints" in k} == {
        k: v for k, v in before.items() if "record" in k or "checkpoints" in k
    }


@pytest.mark.slow  # sources_test.py has the refusal
def test_a_source_that_did_not_keep_its_checkpoint_is_named_before_anything_is_trained(world):
    shutil.copytree(world / "w", world / "copy")
    shutil.rmtree(world / "copy" / "b")
    shutil.rmtree(world / "copy" / "a" / "checkpoints" / "step_00000002")
    before = nano.content(world / "copy")
    with pytest.raises(UserError, match="step 2 of 'a', which 'b' is fused from"):
        pretrain.pretrain(asked(world, workdir="copy"))
    assert nano.content(world / "copy") == before


@pytest.mark.slow
def test_fusing_once_more_keeps_what_the_model_computes(world):
    how = ("--plan=figure2_6,pair_then_self", "--noise=0", "--dropout=0.1", "--steps=2")
    pretrain.pretrain(asked(world, *how, workdir="twice"))
    workdir = RunState(world / "twice")
    for name, source in (("figure2_6", "self_fusion"), ("pair_then_self", "fusion_property")):
        start, end = workdir.record(name)["curve"][0], workdir.record(source)["curve"][-1]
        assert start["loss"] == pytest.approx(end["loss"], rel=1e-5)


@pytest.mark.slow
def test_generated_plans_resume_from_what_is_there(world):
    how = ("--steps=S:6,M:2", "--checkpoint_every=1", "--noise=0.1", "--dropout=0.1")
    pretrain.pretrain(asked(world, "--plan=self_fusion", *how, workdir="one_by_one"))
    before = nano.content(world / "one_by_one" / "small_0" / "checkpoints")
    lists = ("--offsets=-2,2", "--fuse_at=2", "--budgets=3e6,4e6")
    pretrain.pretrain(
        asked(world, "--plan=offsets,when_to_fuse", *lists, *how, workdir="one_by_one")
    )
    assert nano.content(world / "one_by_one" / "small_0" / "checkpoints") == before
    workdir = RunState(world / "one_by_one")
    records = nano.records(workdir.path)
    low, high = records["offset_2"], records["offset_-2"]
    assert low["curve"][0]["loss"] == high["curve"][0]["loss"] == _start(records["self_fusion"])
    assert low["loss"] != high["loss"]
    assert records["fuse_at_2"]["source_steps"] == {"small_0": 2}
    experiments = json.loads((workdir.path / "run.json").read_text())["experiments"]
    assert list(experiments) == ["self_fusion", "offsets", "when_to_fuse"]
    points = {"offset_-2": {"offset": -2}, "offset_2": {"offset": 2}}
    assert experiments["offsets"]["points"] == points
    budgets = experiments["when_to_fuse"]["facts"]["budgets"]
    costs = experiments["when_to_fuse"]["facts"]["step_cost"]
    assert budgets == [3e6, 4e6]
    for name, point in experiments["when_to_fuse"]["points"].items():
        record = records[name]
        assert record["steps"] >= point["steps"][-1]
        assert record["flops"] == record["steps"] * costs["M"]
        spent = point["fusion_step"] * costs["S"] + point["steps"][-1] * costs["M"]
        assert 0 <= budgets[-1] - spent < costs["M"]


def _start(record):
    return record["curve"][0]["loss"]
