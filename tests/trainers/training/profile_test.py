"""A profiled window of steps: exactly these steps, whatever calls they are in."""

import keras
import numpy as np
import pytest

from tests.trainers.shared_steps import SharedSteps
from tests.trainers.training import loop_support as support
from trainers.errors import UserError
from trainers.training.profile import ProfileWindow

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runs on the tensorflow engine"
)


class Noted(SharedSteps):
    """Notes the steps that are taken while the profiler is on, in place of recording them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.step, self.profiled, self.folders, self.is_on = 0, [], [], False

    def train(self, batches, num_steps):
        if self.is_on:
            self.profiled += range(self.step, self.step + num_steps)
        self.step += num_steps
        return super().train(batches, num_steps)

    def start_profile(self, folder):
        assert not self.is_on
        self.is_on = True
        self.folders.append(folder)

    def stop_profile(self):
        assert self.is_on
        self.is_on = False


def profiled(folder, window, **options):
    """The steps that are profiled, counted from 0 before each."""
    engine = Noted()
    _, state = support.run(folder, engine=engine, profile=ProfileWindow(*window), **options)
    assert not engine.is_on
    return engine, state


# In the middle of calls of up to 7, across an evaluation and a checkpoint, from the start, to the
# end.
@pytest.mark.parametrize("window", [(11, 3), (17, 15), (0, 2), (33, 7)])
def test_exactly_these_steps(tmp_path, window, capsys):
    engine, state = profiled(tmp_path, window)
    assert engine.profiled == list(range(window[0], sum(window)))
    assert engine.folders == [tmp_path / "tensorboard"]
    line = f"Profiled from step {window[0]} to step {sum(window)}: tensorboard --logdir="
    assert line in capsys.readouterr().out


def test_training_is_the_same_without(tmp_path):
    _, state = profiled(tmp_path / "with", (17, 15))
    _, expected = support.run(tmp_path / "without")
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def test_a_run_that_fails_in_the_window_resumes_with_the_rest(tmp_path, capsys):
    def die(index):
        if index == 25:
            raise ConnectionError

    engine = Noted()
    options = {"profile": ProfileWindow(17, 15), "engine": engine}
    with pytest.raises(ConnectionError):
        support.run(tmp_path, batches=support.Batches(die), **options)
    assert not engine.is_on and engine.profiled[0] == 17
    again, _ = profiled(tmp_path, (17, 15))
    # It resumes from step 20; its own count begins there.
    assert [20 + step for step in again.profiled] == list(range(20, 32))
    assert "Profiled from step 20 to step 32: " in capsys.readouterr().out
    after, _ = profiled(tmp_path, (17, 15))
    assert after.profiled == []


@pytest.mark.parametrize("text", ["", "10", "10:", ":5", "10:0", "-1:5", "1.5:2", "a:b", "1:2:3"])
def test_a_text_that_is_no_window_is_refused(text):
    with pytest.raises(UserError, match="--profile=STEP:COUNT.*Received: profile=.*100:10"):
        ProfileWindow.parse("profile", text)


def test_a_window_is_read():
    assert ProfileWindow.parse("profile", " 100:10 ") == ProfileWindow(100, 10)


@pytest.mark.slow  # the profiler itself takes seconds
def test_tensorflow_writes_what_tensorboard_reads(tmp_path):
    support.run(tmp_path, profile=ProfileWindow(12, 4))
    (trace,) = (tmp_path / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000
