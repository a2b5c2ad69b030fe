"""`kf.fuse` hands models of the library to their own `fuse`, and graphs to `graph.fusing`."""

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.errors import FusionError
from tests.keras_fusion.models import tiny


def test_fuse_takes_models_of_the_library():
    a, b = tiny.model(0, num_layers=1), tiny.model(1, num_layers=1)
    inputs = tiny.batch()
    fused = kf.fuse([a, b], norm="rule", noise=0.1, seed=3)
    same = a.fuse(b, norm="rule", noise=0.1, seed=3)
    np.testing.assert_array_equal(tiny.logits(fused, inputs), tiny.logits(same, inputs))
    with pytest.raises(FusionError, match="received 1"):
        kf.fuse([a])
    for option in ({"weights": [0.3, 0.7]}, {"outputs": "concat"}, {"fill": "copies"}):
        (name,) = option
        with pytest.raises(FusionError, match=f"{name}: a T5 is fused without this option"):
            kf.fuse([a, b], **option)
