"""The loop: its schedule, its files, and runs that are stopped and resume."""

import json
import os
import pathlib
import signal
import time
import warnings

import keras
import numpy as np
import pytest

from tests import forks
from tests.trainers.shared_steps import SharedSteps
from tests.trainers.training import loop_support as support
from trainers import checkpoints, stopping
from trainers.checkpoints import Keep
from trainers.engines.tensorflow import TensorFlowEngine
from trainers.errors import Stopped, UserError
from trainers.training.config import TrainConfig
from trainers.training.logs import read_metrics

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runs on the tensorflow engine"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped: (folder, result, state)."""
    folder = tmp_path_factory.mktemp("whole")
    began = time.perf_counter()
    result, state = support.run(folder, engine=TensorFlowEngine())
    # All of it, compilation too, for the test of what device_seconds leaves out.
    (folder / "wall_seconds").write_text(str(time.perf_counter() - began))
    return folder, result, state


def assert_same_run(resumed, whole):
    """Bit for bit the same state, and the same curve but for the clock."""
    (result, state), (_, expected, expected_state) = resumed, whole
    assert list(state) == list(expected_state)
    for name, value in expected_state.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)

    def without_clock(curve):
        return [{k: v for k, v in p.items() if k != "device_seconds"} for p in curve]

    assert without_clock(result.curve) == without_clock(expected.curve)


def assert_same_metrics(folder, expected):
    """The same lines but for the clock, also where a checkpoint lay between two lines."""

    def lines(folder):
        clock = ("device_seconds", "tokens_per_second")
        records = read_metrics(folder / "metrics.jsonl")
        return [{k: v for k, v in line.items() if k not in clock} for line in records]

    assert lines(folder) == lines(expected)


def assert_one_line_a_step(folder):
    lines = [(line["kind"], line["step"]) for line in read_metrics(folder / "metrics.jsonl")]
    assert lines == [
        ("eval", 0),
        ("train", 10),
        ("train", 20),
        ("eval", 20),
        ("train", 30),
        ("train", 40),
        ("eval", 40),
    ]


def test_curve_has_the_contracts_fields(whole):
    _, result, _ = whole
    assert [point["step"] for point in result.curve] == [0, 20, 40]
    last = result.curve[-1]
    assert set(last) == {
        "step",
        "tokens",
        "flops",
        "device_seconds",
        "loss",
        "loss_per_token",
        "accuracy",
    }
    assert last["tokens"] == 40 * support.COSTS.tokens_per_step
    assert last["flops"] == 40 * support.COSTS.flops_per_step
    assert last["loss_per_token"] < result.curve[0]["loss_per_token"]
    assert 0 == result.curve[0]["device_seconds"] < last["device_seconds"] == result.device_seconds


def test_device_seconds_are_without_compilation(whole):
    # 40 steps of a fraction of a millisecond; tracing alone takes a second.
    assert whole[1].device_seconds < 0.3 * float((whole[0] / "wall_seconds").read_text())


def test_files(whole):
    folder, result, state = whole
    assert_one_line_a_step(folder)
    line = read_metrics(folder / "metrics.jsonl")[-2]
    assert line["learning_rate"] == pytest.approx(0.3 / 39**0.5)
    assert line["tokens_per_second"] > 0 and 0 <= line["accuracy"] <= 100
    assert list((folder / "tensorboard").iterdir())
    assert checkpoints.steps(folder / "checkpoints") == [30, 40]
    assert result.checkpoint == folder / "checkpoints" / "step_00000040"
    saved = checkpoints.load(result.checkpoint)
    assert saved.config["train"]["steps"] == 40
    for name, value in saved.state().items():
        np.testing.assert_array_equal(value, state[name])


def test_a_finished_run_does_nothing_more(whole):
    folder, result, _ = whole
    before = (folder / "metrics.jsonl").read_bytes()

    def fail(index):
        raise AssertionError("no batch is needed")

    again = support.run(folder, batches=support.Batches(fail))
    assert again[0].curve == result.curve
    assert again[0].device_seconds == result.device_seconds
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_interrupted_in_training(tmp_path, whole):
    def stop(index):
        if index == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        support.run(tmp_path, batches=support.Batches(stop))
    assert checkpoints.steps(tmp_path / "checkpoints") == [10, 20]
    spent = json.loads((tmp_path / "checkpoints/step_00000020/manifest.json").read_text())
    resumed = support.run(tmp_path)
    assert_same_run(resumed, whole)
    assert_one_line_a_step(tmp_path)
    assert resumed[0].device_seconds > spent["config"]["progress"]["device_seconds"] > 0


def test_stopped_by_a_signal(tmp_path, whole):
    def stop(index):
        if index == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="stopped at step .* by SIGTERM, saved") as caught:
        with stopping.handled():
            support.run(tmp_path, batches=support.Batches(stop))
    step = checkpoints.steps(tmp_path / "checkpoints")[-1]
    assert f"step {step} " in str(caught.value) and 0 < step <= 20
    with stopping.handled():
        resumed = support.run(tmp_path)
    assert_same_run(resumed, whole)
    assert_one_line_a_step(tmp_path)
    assert_same_metrics(tmp_path, whole[0])


class Hosts(SharedSteps):
    """One of several hosts; another one has a signal at the k-th question."""

    def __init__(self, is_chief, stop_at=10**6):
        super().__init__()
        self._chief, self._stop_at = is_chief, stop_at
        self.asked, self.calls = 0, 0

    is_chief = property(lambda self: self._chief)
    num_devices = property(lambda self: 8)

    def agree(self, flag):
        self.asked += 1
        return flag or self.asked == self._stop_at

    def train(self, batches, num_steps):
        self.calls += 1
        return super().train(batches, num_steps)


def test_a_signal_to_another_host_stops_this_one_between_two_lines(tmp_path, whole):
    # Asked once when it starts, then before each call: boundaries are 7, 10, 14.
    with pytest.raises(Stopped, match="stopped at step 14 by a signal to another host, saved"):
        support.run(tmp_path, engine=Hosts(True, stop_at=6))
    assert checkpoints.steps(tmp_path / "checkpoints") == [10, 14]
    resumed = support.run(tmp_path)
    assert_same_run(resumed, whole)
    assert_same_metrics(tmp_path, whole[0])


def test_only_the_chief_writes_and_all_ask_alike(tmp_path, whole):
    chief, other = Hosts(True), Hosts(False)
    result, _ = support.run(tmp_path / "chief", engine=chief)
    resumed = support.run(tmp_path / "other", engine=other)
    assert_same_run(resumed, whole)
    assert not (tmp_path / "other").exists()
    assert chief.asked == other.asked <= chief.calls + len((10, 20, 30, 40)) + len(("start", "end"))
    wall = [line for line in read_metrics(tmp_path / "chief/metrics.jsonl") if "tokens" in line]
    assert wall[-1]["device_seconds"] == result.device_seconds > 0


def test_device_seconds_count_every_device(tmp_path):
    result, _ = support.run(tmp_path / "one", steps=10, engine=Hosts(True))
    lines = read_metrics(tmp_path / "one" / "metrics.jsonl")
    line = next(line for line in lines if line["kind"] == "train")
    seconds = 10 * support.COSTS.tokens_per_step / line["tokens_per_second"]
    assert result.device_seconds == pytest.approx(8 * seconds)


def test_which_checkpoints_stay(tmp_path):
    result, _ = support.run(tmp_path, eval_every=10, keep=Keep(1, every=20))
    best = min(result.curve[1:], key=lambda point: point["loss_per_token"])["step"]
    assert checkpoints.steps(tmp_path / "checkpoints") == sorted({0, 20, 40, best})
    with pytest.raises(UserError, match="Received: on_nan='ignore'"):
        TrainConfig(10, on_nan="ignore")


def test_interrupted_in_evaluation_and_while_saving(tmp_path, whole, monkeypatch):
    calls = []

    def stop(model):
        calls.append(model)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.5

    # At the evaluation of step 20, before its checkpoint.
    with pytest.raises(KeyboardInterrupt):
        support.run(tmp_path, monitors={"symmetry": stop})
    assert checkpoints.steps(tmp_path / "checkpoints") == [10]

    rename = os.rename

    def stop_at_30(source, target):
        if pathlib.Path(target).name == "step_00000030":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stop_at_30)
    with pytest.raises(KeyboardInterrupt):
        support.run(tmp_path)
    monkeypatch.undo()
    assert checkpoints.steps(tmp_path / "checkpoints") == [10, 20]
    assert_same_run(support.run(tmp_path), whole)
    assert_one_line_a_step(tmp_path)


KILLED = """
import os, signal, sys
from tests.trainers.shared_steps import SharedSteps
from tests.trainers.training import loop_support as support
def kill(index):
    if index == 33:
        os.kill(os.getpid(), signal.SIGKILL)
support.run(sys.argv[1], batches=support.Batches(kill))
"""


@pytest.mark.slow  # tests/faults kills runs of the whole program
def test_killed(tmp_path, whole):
    ran = forks.run(**support.python(KILLED, tmp_path))
    assert ran.returncode == -signal.SIGKILL, ran.stderr[-4000:]
    assert 0 < checkpoints.steps(tmp_path / "checkpoints")[-1] < 40
    assert_same_run(support.run(tmp_path), whole)
    assert_one_line_a_step(tmp_path)


def test_damaged_newest_checkpoint(tmp_path, whole):
    result, _ = support.run(tmp_path)
    path = result.checkpoint / "training.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(checkpoints.CheckpointWarning, match="step_00000040"):
        resumed = support.run(tmp_path)
    assert_same_run(resumed, whole)
    assert_one_line_a_step(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.latest(tmp_path / "checkpoints").step == 40


def test_a_longer_run_resumes(tmp_path):
    support.run(tmp_path, steps=10)
    result, _ = support.run(tmp_path, steps=20)
    assert [point["step"] for point in result.curve] == [0, 10, 20]


def test_a_shorter_run_is_refused(whole):
    with pytest.raises(UserError, match="40 steps that were taken. Received: steps=10"):
        support.run(whole[0], steps=10)


def test_a_checkpoint_of_another_model_is_refused(whole):
    before = checkpoints.steps(whole[0] / "checkpoints")
    with pytest.raises(UserError, match="unknown optimizer/dense/kernel/r"):
        support.run(whole[0], optimizer=keras.optimizers.SGD(0.1))
    assert checkpoints.steps(whole[0] / "checkpoints") == before


def test_no_steps_is_one_evaluation_and_a_checkpoint(tmp_path):
    result, _ = support.run(tmp_path, steps=0)
    assert [point["step"] for point in result.curve] == [0]
    assert checkpoints.steps(tmp_path / "checkpoints") == [0]


def test_monitors_are_logged(tmp_path):
    support.run(tmp_path, steps=10, monitors={"symmetry": lambda model: len(model.weights)})
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "eval"]
    assert [line["symmetry"] for line in lines] == [6.0, 6.0]


@pytest.mark.parametrize(
    "field",
    ["steps", "eval_every", "eval_batches", "checkpoint_every", "log_every", "steps_per_call"],
)
@pytest.mark.parametrize("value", [-1, 2.0, True, "3"])
def test_config_refuses(field, value):
    with pytest.raises(UserError, match=f"Received: {field}="):
        TrainConfig(**{"steps": 10, field: value})


def test_boundaries_are_those_of_the_run_that_was_not_stopped():
    config = TrainConfig(
        steps=50, eval_every=20, checkpoint_every=15, log_every=100, steps_per_call=8
    )
    bounds, step = [], 0
    while step < 50:
        step = config.boundary_after(step)
        bounds.append(step)
    assert bounds == [8, 15, 16, 20, 24, 30, 32, 40, 45, 48, 50]
    assert config.boundary_after(15) == 16


@pytest.mark.parametrize(("minutes", "steps"), [(1e-9, [30, 40]), (1000.0, [40])])
def test_checkpoints_by_the_clock(minutes, steps, whole, tmp_path):
    """Every call of ten steps is longer than nothing, and shorter than an hour."""
    config = {"checkpoint_every": 1000, "steps_per_call": 10, "keep": Keep(2, best=False)}
    resumed = support.run(tmp_path, checkpoint_minutes=minutes, **config)
    assert_same_run(resumed, whole)
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [checkpoints.step_folder(step) for step in steps]
