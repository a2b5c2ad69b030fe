"""T5's loss as a mean over many tokens, in wide and narrow floats."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.losses import mean_cross_entropy

KINDS = {"float16": "float32", "bfloat16": "float32", "float32": "float32"}


@pytest.mark.parametrize("dtype", KINDS)
def test_a_mean_over_more_than_narrow_floats_can_add_up_or_count(dtype):
    targets = np.ones((1, 50_001), np.int32)
    targets[0, 0] = 0
    loss = mean_cross_entropy(targets, ops.zeros((1, 50_001, 4), dtype))
    assert keras.backend.standardize_dtype(loss.dtype) == KINDS[dtype]
    np.testing.assert_allclose(float(loss), np.log(4), rtol=1e-5)
