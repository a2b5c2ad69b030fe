"""Stages that commands asked for: which of them are still to be trained."""

import json

import pytest

from trainers import plans
from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.runs import planned
from trainers.runs.state import RunState

CANDIDATES = [Stage(name, "S") for name in ("x", "y", "z")]
NAMES = tuple(stage.name for stage in CANDIDATES)


def rung(name, *sources):
    return Stage(name, "S", "continued", sources, rivals=NAMES, keep=1)


def open_run(folder, *commands):
    """A folder for which each command has asked for stages."""
    for stages in commands:
        content = {"planned": planned.with_stages(RunState(folder), stages)}
        (folder / "run.json").write_text(json.dumps(content))
    return folder


def finish(folder, name, loss=1.0):
    RunState(folder).write_record(name, {"loss_per_token": loss})


def test_all_that_has_no_record_also_of_earlier_commands(tmp_path):
    first, second = (plans.stages_of([name]) for name in ("baseline", "self_fusion"))
    open_run(tmp_path, first, second)
    finish(tmp_path, "small_0")
    assert planned.unfinished(RunState(tmp_path)) == ["baseline", "self_fusion"]
    for name in ("baseline", "self_fusion"):
        finish(tmp_path, name)
    assert planned.unfinished(RunState(tmp_path)) == []


def test_what_others_beat_is_not_waited_for(tmp_path):
    again = Stage("x3", "S", "continued", ("x2",), rivals=("x2", "y2", "z2"))
    stages = [*CANDIDATES, *(rung(f"{name}2", name) for name in NAMES), again]
    open_run(tmp_path, stages)
    for name, loss in (("x", 3.0), ("y", 1.0)):
        finish(tmp_path, name, loss)
    state = RunState(tmp_path)
    assert planned.unfinished(state) == ["z", "x2", "y2", "z2", "x3"]
    finish(tmp_path, "z", 2.0)
    # Of the next rung y2 alone is trained, so that nothing continues x2.
    assert planned.unfinished(state) == ["y2", "x3"]
    finish(tmp_path, "y2")
    assert planned.unfinished(state) == []


def test_only_what_is_not_the_default_is_written(tmp_path):
    content = planned.with_stages(RunState(tmp_path), [*CANDIDATES, rung("x2", "x")])
    assert content["x"] == {"name": "x", "size": "S"}
    assert content["x2"] == {
        "name": "x2",
        "size": "S",
        "init": "continued",
        "sources": ["x"],
        "rivals": ["x", "y", "z"],
    }


@pytest.mark.parametrize("content", [7, {"x": 7}, {"x": {}}, {"x": {"name": "x", "newer": 1}}])
def test_damaged_stages_are_named(tmp_path, content):
    (tmp_path / "run.json").write_text(json.dumps({"planned": content}))
    with pytest.raises(UserError, match="run.json"):
        planned.unfinished(RunState(tmp_path))
