"""The benchmark runs, and both sides generate the same tokens."""

import numpy as np
import pytest

import keras_fusion as kf


@pytest.fixture(scope="module")
def glue_decoding():
    """The benchmark; imported here, as KerasHub takes seconds."""
    return pytest.importorskip("benchmarks.glue_decoding")


@pytest.mark.slow  # t5_keras_hub_test.py compares the models
@pytest.mark.filterwarnings("ignore:Layer .*_attention.*does not support masking")
def test_both_do_the_same_task(glue_decoding):
    config = kf.models.T5Config.from_size("tiny_s", num_layers=1, vocabulary_size=64)
    ours, peers, agreement = glue_decoding.compare(
        config, batch_size=2, input_length=12, max_length=4, calls=1, rounds=2
    )
    assert len(ours) == len(peers) == 2 and min(*ours, *peers) > 0
    assert agreement == 1.0


def test_inputs_are_of_many_lengths(glue_decoding):
    token_ids, mask = glue_decoding.random_inputs(64, 50, 16)
    assert token_ids.shape == mask.shape == (50, 16)
    np.testing.assert_array_equal(token_ids > 0, mask == 1)
    lengths = mask.sum(1)
    assert lengths.min() >= 4 and lengths.max() <= 16 and len(set(lengths)) > 5
