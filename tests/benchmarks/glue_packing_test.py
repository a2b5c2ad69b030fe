"""The benchmark runs, and counts the same examples packed and padded."""

import pytest
import tensorflow as tf

import keras_fusion as kf
from benchmarks import glue_packing
from glue.data import packing
from glue.tasks import TASKS


@pytest.fixture(scope="module")
def examples():
    task = next(name for name, task in TASKS.items() if task.synthetic)
    return glue_packing.read(task, None, pieces=64, input_length=64)


@pytest.fixture
def eager():
    """Steps run one operation after the other: tracing takes longer than these few."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_both_train_on_about_as_many_examples(examples, eager):
    config = kf.models.T5Config.from_size("tiny_s", num_layers=1, vocabulary_size=256)
    packed, padded, rows = glue_packing.compare(config, examples, 8, steps=1, rounds=1)
    assert len(packed) == len(padded) == 1 and min(*packed, *padded) > 0
    assert rows.batch_size(8) * rows.examples_per_row == pytest.approx(8, abs=2)


def test_every_example_is_counted_once(examples):
    for source in (examples, packing.pack(examples)):
        assert glue_packing.count(source.batch(range(len(source)))) == len(examples)
