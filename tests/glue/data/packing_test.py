"""Packed rows: what is in them, and that they train what the same examples train padded."""

import keras
import numpy as np
import pytest

from glue.data import packing
from glue.data.batches import EvaluationBatches, Examples, TrainingBatches
from tests.keras_fusion.models import tiny
from trainers.engines.tensorflow import TensorFlowEngine
from trainers.errors import UserError


def tokens(*lengths):
    """Sequences of these lengths: 2, 3, …, and 1 at the end."""
    return [np.append(np.arange(2, length + 1), 1).astype(np.int32) for length in lengths]


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    inputs = [rng.integers(2, 23, size).astype(np.int32) for size in rng.integers(2, 13, 60)]
    targets = [rng.integers(2, 23, size).astype(np.int32) for size in rng.integers(1, 5, 60)]
    return Examples(inputs, targets, input_length=16, target_length=6)


def test_a_batch_written_out():
    examples = Examples(tokens(3, 4, 2), tokens(2, 1, 3), input_length=8, target_length=4)
    rows = packing.PackedRows(examples, [[0, 1], [2]], input_length=8, target_length=4)
    batch = rows.batch([0, 1], size=3)
    assert {name: array.tolist() for name, array in batch.items()} == {
        "encoder_token_ids": [[2, 3, 1, 2, 3, 4, 1, 0], [2, 1] + [0] * 6, [0] * 8],
        "encoder_segment_ids": [[1, 1, 1, 2, 2, 2, 2, 0], [1, 1] + [0] * 6, [0] * 8],
        "decoder_token_ids": [[0, 2, 0, 0], [0, 2, 3, 0], [0] * 4],
        "decoder_segment_ids": [[1, 1, 2, 0], [1, 1, 1, 0], [0] * 4],
        "targets": [[2, 1, 1, 0], [2, 3, 1, 0], [0] * 4],
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
    assert rows.fill == (9 / 16, 6 / 8)


@pytest.mark.parametrize(
    ("window", "expected"),
    # Items 3 and 4 would fit beside 0 and 1, item 5 beside 2: if their rows are still open.
    [
        (3, [[0, 3], [1, 4], [2, 5]]),
        (2, [[0], [1], [2, 5], [3, 4]]),
        (1, [[0], [1], [2], [3, 4], [5]]),
    ],
)
def test_first_fit_by_hand(window, expected):
    sizes = np.array([[5, 1], [6, 1], [7, 1], [5, 1], [4, 1], [3, 1]])
    assert packing.first_fit(sizes, range(6), (10, 3), window) == expected


def test_either_length_closes_a_row():
    sizes = np.array([[1, 2], [1, 2], [1, 1]])
    assert packing.first_fit(sizes, range(3), (10, 3), 4) == [[0, 2], [1]]


def test_every_example_is_in_one_row_that_holds_it(examples):
    rows = packing.pack(examples, seed=3)
    assert sorted(item for row in rows.rows for item in row) == list(range(60))
    assert (rows.input_length, rows.target_length) == (16, 8)
    for row in rows.rows:
        assert sum(len(examples.inputs[item]) for item in row) <= rows.input_length
        assert sum(len(examples.targets[item]) for item in row) <= rows.target_length
    assert rows.examples_per_row > 1.5
    assert len(rows) == len(rows.rows) == round(60 / rows.examples_per_row)


def test_seed_and_step_decide_the_batches(examples):
    def batches(pack_seed, seed=1):
        rows = packing.pack(examples, seed=pack_seed)
        return TrainingBatches(rows, rows.batch_size(12), seed)

    def same(left, right):
        return all(np.array_equal(left[name], right[name]) for name in left)

    first, again = batches(0), batches(0)
    assert not same(first.batch(0), batches(7).batch(0))
    assert not same(first.batch(0), batches(0, seed=2).batch(0))
    ahead = again.from_step(5)
    for step in range(5, 8):
        assert same(next(ahead), first.batch(step))
    assert first.tokens_per_batch == first.batch_size * (16 + 8)


def test_an_epoch_has_every_example_once(examples):
    rows = packing.pack(examples)
    source = TrainingBatches(rows, 1)
    targets = [source.batch(step)["targets"] for step in range(len(rows))]
    ids = np.sort(np.concatenate(targets).ravel())
    assert ids[ids > 0].tolist() == sorted(np.concatenate(examples.targets).tolist())


@pytest.mark.parametrize(("wanted", "multiple", "rows"), [(8, 1, 4), (8, 3, 3), (1, 4, 4)])
def test_a_batch_holds_about_as_many_examples_as_asked_for(wanted, multiple, rows):
    examples = Examples(tokens(*[4] * 10), tokens(*[2] * 10), input_length=8, target_length=8)
    packed = packing.pack(examples)
    assert packed.examples_per_row == 2
    assert packed.batch_size(wanted, multiple_of=multiple) == rows


@pytest.fixture(scope="module")
def engine():
    engine = TensorFlowEngine()
    engine.compile(tiny.model(0, num_layers=1), keras.optimizers.SGD(1.0))
    return engine


class TestAgainstPadded:
    """The same 60 examples as one batch, padded and packed."""

    @pytest.mark.slow  # segments_test.py compares them without an engine
    def test_loss_and_gradient_are_the_same(self, engine, examples):
        states, sums = [], []
        before = {name: np.array(value) for name, value in engine.state().items()}
        for rows in (packing.pack(examples), examples):
            engine.load_state(before)
            sums.append(engine.train(iter([rows.batch(range(len(rows)))]), 1))
            states.append({name: before[name] - value for name, value in engine.state().items()})
        packed, padded = sums
        assert packed.tokens == padded.tokens == sum(map(len, examples.targets))
        assert packed.correct == padded.correct
        assert packed.loss_sum == pytest.approx(padded.loss_sum, rel=1e-5)
        gradient, expected = (
            np.concatenate([v.ravel() for n, v in state.items() if n.startswith("model/")])
            for state in states
        )
        assert np.linalg.norm(gradient - expected) < 1e-5 * np.linalg.norm(expected)

    def test_evaluation_batches_add_up_to_the_same(self, engine, examples):
        sums = []
        for rows in (packing.pack(examples), examples):
            batches = EvaluationBatches(rows, 8, most=100)
            sums.append(engine.evaluate([batches.batch(i) for i in range(len(batches))]))
        packed, padded = sums
        assert packed.tokens == padded.tokens and packed.steps < padded.steps
        assert packed.loss_sum == pytest.approx(padded.loss_sum, rel=1e-5)


def test_nothing_to_pack_is_refused():
    with pytest.raises(UserError, match="examples to pack. Received: none"):
        packing.pack(Examples([], [], 8, 8))
