"""Pretraining tasks against hand-written cases and the module that makes spans."""

import numpy as np
import pytest

from trainers.data import manifest, spans
from trainers.data.batches import PretrainingBatches
from trainers.data.objectives import Objective
from trainers.errors import UserError

PREFIX = Objective("prefix_lm")


def test_the_second_half_follows_the_first():
    tokens = np.arange(10, 22, dtype=np.uint16).reshape(2, 6)
    inputs, targets = PREFIX.pairs(tokens, np.random.default_rng(0), 511)
    assert inputs.tolist() == [[10, 11, 12], [16, 17, 18]]
    assert targets.tolist() == [[13, 14, 15, 1], [19, 20, 21, 1]]
    assert inputs.dtype == targets.dtype == np.int32


def test_lengths_of_prefix_lm():
    assert PREFIX.raw_length(64) == 128
    assert PREFIX.lengths(128) == (64, 65)
    assert PREFIX.sentinels(128) == 0


def test_span_corruption_is_that_of_its_module():
    task = Objective()
    tokens = np.random.default_rng(0).integers(3, 400, (4, 141))
    expected = spans.corrupt_batch(tokens, np.random.default_rng(1), 511)
    made = task.pairs(tokens, np.random.default_rng(1), 511)
    np.testing.assert_array_equal(made[0], expected[0])
    np.testing.assert_array_equal(made[1], expected[1])
    assert task.raw_length(512) == 568 and task.lengths(568) == (512, 114)
    assert task.sentinels(568) == 28


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mean", [1.0, 3.0, 10.0])
def test_other_spans_have_the_lengths_that_were_said(density, mean):
    task = Objective(noise_density=density, mean_span_length=mean)
    length = task.raw_length(100)
    inputs, targets = task.pairs(
        np.random.default_rng(0).integers(3, 400, (3, length)), np.random.default_rng(1), 1000
    )
    assert (inputs.shape[1], targets.shape[1]) == task.lengths(length)
    assert inputs.shape[1] <= 100 < task.lengths(length + 1)[0]
    noise = targets.shape[1] - 1 - task.sentinels(length)
    assert noise == round(density * length)


@pytest.mark.parametrize(
    ("settings", "received"),
    [
        ({"objective": "copy"}, "objective='copy'"),
        ({"noise_density": 1.0}, "noise_density=1.0"),
        ({"mean_span_length": 0.5}, "mean_span_length=0.5"),
        ({"objective": "prefix_lm", "noise_density": 0.5}, "objective='prefix_lm'"),
    ],
)
def test_bad_settings(settings, received):
    with pytest.raises(UserError, match=f"Received: {received}"):
        Objective(**settings)


def test_batches_of_prefix_lm_are_the_text_itself(prepared_dir):
    batches = PretrainingBatches(prepared_dir, "train", 4, 16, seed=3, objective=PREFIX)
    batch, again = batches.batch(5), batches.batch(5)
    assert batch["encoder_token_ids"].shape == (4, 16) and batch["targets"].shape == (4, 17)
    np.testing.assert_array_equal(batch["decoder_token_ids"][:, 1:], batch["targets"][:, :-1])
    np.testing.assert_array_equal(batch["targets"], again["targets"])
    text = np.memmap(prepared_dir / manifest.token_file("train"), np.uint16, mode="r")
    halves = np.concatenate([batch["encoder_token_ids"], batch["targets"][:, :-1]], axis=1)
    windows = {tuple(row) for row in text[: len(text) // 32 * 32].reshape(-1, 32).tolist()}
    assert {tuple(row) for row in halves.tolist()} <= windows
