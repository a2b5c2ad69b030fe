"""Dropout in fused stacks: the contract, its masks, and seeds that replicas fold."""

import keras
import numpy as np
import pytest

from keras_fusion.layers import FusableDropout, fold_seed
from tests.keras_fusion.fusion_contract import numpy, run_fusion_test

ONES = np.ones((2, 5, 40), "float32")


def test_contract(tmp_path):
    run_fusion_test(
        FusableDropout,
        {"rate": 0.5, "seed": 0},
        tmp_path=tmp_path,
        input_shapes=[(2, 5, 4)],
        other_shapes=[(2, 5, 3)],
        keras_class=keras.layers.Dropout,
        mismatch=({"rate": 0.1}, "rate: 0.5 vs 0.1"),
    )


def test_draws_the_masks_of_keras():
    ours, peer = FusableDropout(0.5, seed=3), keras.layers.Dropout(0.5, seed=3)
    for _ in range(2):
        np.testing.assert_array_equal(
            numpy(ours(ONES, training=True)), numpy(peer(ONES, training=True))
        )


def test_one_mask_serves_the_whole_length_also_when_fused():
    layer = FusableDropout(0.5, noise_shape=(None, 1, None), seed=0)
    layer.build((None, None, 20))
    masks = numpy(layer.fuse(layer)(ONES, training=True))
    assert set(np.unique(masks)) == {0.0, 2.0}
    np.testing.assert_array_equal(masks, np.broadcast_to(masks[:, :1], masks.shape))
    assert not np.array_equal(masks[0], masks[1])


def test_fold_seed_changes_the_mask_inside_its_context_only():
    layer = FusableDropout(0.5, seed=0)
    start = keras.ops.convert_to_numpy(layer.seed_generator.state).copy()

    def draw():
        layer.seed_generator.state.assign(start)
        return numpy(layer(ONES, training=True))

    plain = draw()
    with fold_seed(lambda seed: seed + 1):
        folded = draw()
    assert not np.array_equal(plain, folded)
    np.testing.assert_array_equal(plain, draw())


@pytest.mark.filterwarnings("error::keras_fusion.errors.SymmetryWarning")
def test_rate_zero_draws_nothing_and_has_no_copies_to_part():
    layer = FusableDropout(0.0)
    layer = layer.fuse(layer)
    np.testing.assert_array_equal(numpy(layer(ONES, training=True)), ONES)
    assert layer.variables == []
