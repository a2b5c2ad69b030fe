"""A stacked T5 runs the blocks of its source several times."""

import numpy as np
import pytest
from keras import ops

from keras_fusion.layers.tree import values_of
from keras_fusion.models import T5, parameter_count, stacked_weights
from tests.keras_fusion.models import tiny


def stack(model, copies):
    (values,) = values_of([model])
    config, weights = stacked_weights(model.config, dict(values), copies)
    return T5.from_weights(config, weights, seed=0)


@pytest.mark.one_backend
def test_its_function_is_that_of_blocks_run_again_and_again():
    small, batch = tiny.model(num_layers=2), tiny.batch(padding=True)
    deep = stack(small, 3)
    for side in (small.encoder, small.decoder):
        first, second = side.blocks
        side.blocks = [first, second, first, second, first, second]
    # Not by tiny.logits: on JAX it keeps a program for each configuration, and these blocks are
    # not those of the configuration.
    expected = ops.convert_to_numpy(small(batch))
    np.testing.assert_allclose(tiny.logits(deep, batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.one_backend
def test_its_parameters_are_counted_by_hand():
    small = tiny.model(num_layers=1)
    attention, mlp, norm, hidden = 4 * 8 * 8, 3 * 8 * 12, 8, 8
    block = 3 * attention + 2 * mlp + 5 * norm  # of the encoder and of the decoder together
    rest = 2 * 23 * hidden + 2 * 32 * 2 + 2 * norm
    assert stack(small, 4).count_params() == 4 * block + rest
    config, _ = stacked_weights(small.config, {}, 4)
    assert parameter_count(config) == 4 * block + rest


@pytest.mark.one_backend
def test_one_copy_is_no_stack():
    with pytest.raises(ValueError, match="Received: copies=1"):
        stacked_weights(tiny.config(), {}, 1)
