"""A loss, a weight or a validation loss that is not finite: the run stops, or skips the batch."""

import functools

import keras
import numpy as np
import pytest

from tests.trainers.training import loop_support as support
from tests.trainers.training.logs_test import read_events
from trainers import checkpoints, errors
from trainers.training.logs import read_metrics

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runs on the tensorflow engine"
)


def run(folder, poison, quantity="loss", **options):
    return support.run(
        folder, support.Batches(poison=poison), make=support.poisoned(quantity), **options
    )


@pytest.fixture(scope="module")
def state_without(tmp_path_factory):
    """Returns the state that a run ends with whose data never had some batches."""

    @functools.cache
    def state(batches):
        folder = tmp_path_factory.mktemp("without")
        return support.run(folder, support.Batches(without=batches), make=support.poisoned())[1]

    return state


def assert_as_without(state_without, skipping, skipped):
    """As a run whose data never had these batches, bit for bit."""
    result, state = skipping
    assert result.skipped_batches == skipped
    for name, value in state_without(skipped).items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def test_stops_at_the_step_with_what_there_is_to_say(tmp_path):
    with pytest.raises(errors.NotFinite) as caught:
        run(tmp_path, [23])
    message = str(caught.value)
    for part in (
        "loss=nan at step=24,",
        "learning_rate=0.0577",
        "largest_gradient=",
        "--on_nan=skip",
    ):
        assert part in message
    assert "the folder has the checkpoint of step 20." in message
    assert (caught.value.step, caught.value.exit_code) == (23, 3)
    assert checkpoints.steps(tmp_path / "checkpoints") == [10, 20]
    checkpoints.load(tmp_path / "checkpoints" / "step_00000020")
    # The same command again comes to the same end.
    with pytest.raises(errors.NotFinite, match="step=24"):
        run(tmp_path, [23])


def test_a_learning_rate_that_is_too_high_is_named(tmp_path):
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([22], [0.01, 1e38])
    with pytest.raises(errors.NotFinite, match=r"step=2[45], learning_rate=1e\+38"):
        support.run(tmp_path, optimizer=keras.optimizers.SGD(rate))


def test_skips_the_batch_and_is_the_run_without_it(tmp_path, capsys, state_without):
    skipping = run(tmp_path / "skip", [13, 23], on_nan="skip")
    assert_as_without(state_without, skipping, (13, 23))
    said = capsys.readouterr().out
    assert "skip: not finite at step 14; went back to step 10, skipping batches 13." in said
    assert "not finite at step 23; went back to step 20, skipping batches 23." in said
    steps = [(line["kind"], line["step"]) for line in read_metrics(tmp_path / "skip/metrics.jsonl")]
    assert len(steps) == len(set(steps)) == 4 + 3
    for values in read_events(tmp_path / "skip" / "tensorboard").values():
        assert [step for step, _ in values] == sorted({step for step, _ in values})


def test_a_resume_behind_skipped_batches_is_exact(tmp_path, state_without):
    def stop(index):
        if index == 29:
            raise KeyboardInterrupt

    batches = support.Batches(stop, poison=[13, 23])
    with pytest.raises(KeyboardInterrupt):
        support.run(
            tmp_path / "skip", batches, make=support.poisoned(), on_nan="skip", checkpoint_every=5
        )
    saved = checkpoints.latest(tmp_path / "skip" / "checkpoints")
    assert saved.config["progress"]["skipped"] == [13, 23]
    skipping = run(tmp_path / "skip", [13, 23], on_nan="stop", checkpoint_every=5)
    assert_as_without(state_without, skipping, (13, 23))


def test_before_the_first_checkpoint_it_goes_back_to_the_start(tmp_path, state_without):
    skipping = run(tmp_path / "skip", [3], on_nan="skip")
    assert_as_without(state_without, skipping, (3,))
    lines = read_metrics(tmp_path / "skip" / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [0, 20, 40]


def test_an_update_that_makes_weights_infinite_is_found_one_step_later(tmp_path):
    result, state = run(tmp_path / "skip", [22], "update", on_nan="skip")
    # The loss shows it with batch 23, again with 24, and then 22 is out as well.
    assert result.skipped_batches == (22, 23, 24)
    assert all(np.isfinite(value).all() for value in state.values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    with pytest.raises(errors.NotFinite, match="weights that are not finite at step=30"):
        run(tmp_path / "stop", [29], "update")
    assert checkpoints.steps(tmp_path / "stop" / "checkpoints") == [10, 20]
    with pytest.raises(errors.NotFinite, match="validation loss=nan at step=20"):
        run(tmp_path / "eval", [19], "update")
    result, _ = run(tmp_path / "skip", [29], "update", on_nan="skip")
    assert result.skipped_batches == (29,)


def test_there_is_an_end_to_skipping(tmp_path):
    with pytest.raises(errors.NotFinite, match="batches were skipped since") as caught:
        run(tmp_path, range(23, 100), on_nan="skip")
    assert caught.value.exit_code == 3
    assert checkpoints.steps(tmp_path / "checkpoints") == [10, 20]
