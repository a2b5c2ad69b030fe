"""Measurements of the loop: when they are taken, what their lines hold, whose time it is."""

import types

import keras
import numpy as np
import pytest

from tests.trainers.training import loop_support as support
from trainers.training import loop
from trainers.training.config import Measurement
from trainers.training.logs import read_metrics

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runs on the tensorflow engine"
)


def measurement(**options):
    """Numbers that tell the weights of one step from those of another."""

    def of_weights(model):
        return {"bias": float(np.square(model.trainable_variables[-1]).sum())}

    return Measurement(**{"kind": "weights", "every": 15, "measure": of_weights} | options)


def lines_of(folder, kind="weights"):
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == kind]


def without_clock(lines):
    clock = ("seconds", "total_seconds", "device_seconds", "tokens_per_second")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result, state = support.run(folder, measurements=[measurement()])
    return folder, result, state


def test_at_the_start_every_so_often_and_at_the_end(whole):
    lines = lines_of(whole[0])
    assert [line["step"] for line in lines] == [0, 15, 30, 40]
    assert len({line["bias"] for line in lines}) == 4
    totals = [line["total_seconds"] for line in lines]
    assert totals[-1] == pytest.approx(sum(line["seconds"] for line in lines))
    assert totals == sorted(totals) and totals[0] > 0


def test_training_is_the_same_without(whole, tmp_path):
    _, state = support.run(tmp_path)
    for name, value in whole[2].items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


# Between two checkpoints, on one, and where a measurement lies on a checkpoint.
@pytest.mark.parametrize("kills", [(17,), (20, 37), (30, 31)])
def test_a_run_that_was_killed_has_the_same_lines(whole, tmp_path, kills):
    for kill in kills:

        def die(index, kill=kill):
            if index == kill:
                raise ConnectionError

        with pytest.raises(ConnectionError):
            support.run(tmp_path, batches=support.Batches(die), measurements=[measurement()])
    support.run(tmp_path, measurements=[measurement()])
    assert without_clock(read_metrics(tmp_path / "metrics.jsonl")) == without_clock(
        read_metrics(whole[0] / "metrics.jsonl")
    )
    lines = lines_of(tmp_path)
    assert lines[-1]["total_seconds"] == pytest.approx(sum(line["seconds"] for line in lines))


def test_their_time_is_not_the_trainings(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))

    def slow(model):
        clock.now += 100.0
        return {}

    result, _ = support.run(tmp_path, measurements=[measurement(every=20, measure=slow)])
    assert result.device_seconds == 0
    clocks = [(line["step"], line["seconds"], line["total_seconds"]) for line in lines_of(tmp_path)]
    assert clocks == [(0, 100, 100), (20, 100, 200), (40, 100, 300)]


def test_a_run_that_meets_its_goal_ends_with_one(whole, tmp_path):
    goal = max(point["accuracy"] for point in whole[1].curve[:2])
    result, _ = support.run(tmp_path, goal=goal, measurements=[measurement(every=1000)])
    assert result.steps in (0, 20)
    assert [line["step"] for line in lines_of(tmp_path)] == sorted({0, result.steps})
