"""Stages that continue another one: as if it had been longer, to a goal, or not at all."""

import json

import numpy as np
import pytest

from tests.trainers import killing, nano
from trainers import checkpoints, pretrain
from trainers.errors import UserError
from trainers.files import read_json
from trainers.runs.state import RunState

FIXED = {"dropout": 0.1, "learning_rate_scale": 0.5}
LATE = {"init": "continued", "settings": {"steps": 3}}
PLAN = {
    "name": "mine",
    "stages": [
        {"name": "whole", "size": "S", "settings": {"steps": 9, **FIXED}},
        {"name": "first", "size": "S", "settings": {"steps": 4, **FIXED}},
        {"name": "then", "size": "S", "sources": ["first"], "init": "continued"},
        {"name": "last", "size": "S", "sources": ["then"], **LATE},
        {"name": "other", "size": "S", "settings": {"steps": 1, **FIXED}},
        {
            "name": "met",
            "size": "S",
            "sources": ["first"],
            "init": "continued",
            "until": "other",
            "settings": {"eval_every": 1},
        },
        *(
            {
                "name": f"{source}_on",
                "size": "S",
                "sources": [source],
                "rivals": ["other", "whole"],
                **LATE,
            }
            for source in ("other", "whole")
        ),
    ],
}
ARGUMENTS = ("--size=nano", "--noprogress", "--steps=then:2")


@pytest.fixture(scope="module")
def world(tmp_path_factory, sharing_patch):
    folder = tmp_path_factory.mktemp("continued")
    nano.write_tokens(folder)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    # The parts alone: first, then, last.
    (folder / "parts.json").write_text(json.dumps(PLAN | {"stages": PLAN["stages"][1:4]}))
    pretrain.pretrain(asked(folder))
    return folder


def asked(folder, *arguments, workdir="w", plan="plan"):
    (data_dir,) = (folder / "data").glob("text-*")
    where = (f"--data_dir={data_dir}", f"--workdir={folder}/{workdir}")
    plan_file = f"--plan_file={folder}/{plan}.json"
    return nano.config_of(pretrain, plan_file, *ARGUMENTS, *where, *arguments)


def state_of(folder):
    return checkpoints.latest(folder / "checkpoints").state()


def assert_same_state(left, right):
    left, right = state_of(left), state_of(right)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_parts_that_continue_end_where_one_run_ends(world):
    assert_same_state(world / "w" / "whole", world / "w" / "last")


def test_a_part_counts_its_own_steps_and_costs(world):
    records = nano.records(world / "w")
    parts = [records[name] for name in ("first", "then", "last")]
    assert [part["steps"] for part in parts] == [4, 2, 3]
    assert sum(part["flops"] for part in parts) == pytest.approx(records["whole"]["flops"])
    read = [part["text_passes"]["first"] for part in parts]
    assert sum(read) == pytest.approx(records["whole"]["text_passes"]["first"])
    start = parts[1]["curve"][0]
    assert (start["step"], start["flops"]) == (0, 0)
    assert start["loss"] == pytest.approx(parts[0]["loss"], rel=1e-6)
    assert parts[2]["source_steps"] == {"then": 2}


@pytest.mark.slow  # loop_test.py interrupts runs
def test_a_part_that_was_interrupted_resumes_exactly(world, sharing_patch):
    config = asked(world, workdir="w2", plan="parts")
    assert killing.train_through_kills(sharing_patch, config, "last") > 3
    assert_same_state(world / "w" / "last", world / "w2" / "last")


def test_it_ends_at_the_goal(world):
    workdir = RunState(world / "w")
    other, met = workdir.record("other"), workdir.record("met")
    goal = other["accuracy"]
    reached = [point["accuracy"] >= goal for point in met["curve"]]
    assert met["steps"] == met["curve"][-1]["step"]
    assert reached[-1] or met["steps"] == 3
    assert not any(reached[:-1])
    of_a_step = other["text_passes"]["first"] / other["steps"]
    assert met["text_passes"] == {"first": pytest.approx(met["steps"] * of_a_step)}


def test_only_the_best_rival_continues(world):
    workdir = RunState(world / "w")
    losses = {name: workdir.record(name)["loss_per_token"] for name in ("other", "whole")}
    best, worst = sorted(losses, key=losses.get)
    assert workdir.record(f"{best}_on")["steps"] == 3
    assert not (world / "w" / f"{worst}_on").exists()


def test_settings_are_those_of_the_source(world):
    stage = read_json(world / "w" / "last" / "stage.json")
    assert stage["settings"]["learning_rate_scale"] == 0.5
    with pytest.raises(
        UserError, match=r"only steps.*continues 'then' as that ended\. Received: dropout"
    ):
        asked(world, "--dropout=last:0.2")
    with pytest.raises(UserError, match="'first' without a decay.*Received: decay_steps=1"):
        asked(world, "--decay_steps=1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": ["first@2"]}, "resume at the end"),
        ({"until": "nobody"}, "needs among .* stage='nobody'"),
        ({"rivals": ["whole"]}, "with its source among them"),
        ({"settings": {"dropout": 0.2}}, "Received: dropout"),
        ({"size": "M"}, "comes from"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(world, tmp_path, fields, message):
    entry = {"name": "then", "size": "S", "sources": ["first"], "init": "continued"} | fields
    stages = [stage for stage in PLAN["stages"][:2]] + [entry]
    (tmp_path / "plan.json").write_text(json.dumps({"name": "bad", "stages": stages}))
    (data_dir,) = (world / "data").glob("text-*")
    with pytest.raises(UserError, match=message):
        pretrain.pretrain(
            nano.config_of(
                pretrain,
                f"--plan_file={tmp_path}/plan.json",
                *ARGUMENTS,
                f"--data_dir={data_dir}",
                f"--workdir={tmp_path}/w",
            )
        )
