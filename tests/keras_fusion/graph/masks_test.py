"""Masks reach the layers that read them, also where units are cut apart or moved on the way."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fusion as kf
from tests.keras_fusion.fusion_contract import numpy
from tests.keras_fusion.graph.networks import randomised

pytestmark = [
    pytest.mark.one_backend,
    # So Keras says it of the sources too.
    pytest.mark.filterwarnings("ignore:Layer '.* was passed an input with a mask"),
]
TOKENS = np.array([[1, 4, 2, 0, 0], [3, 1, 0, 2, 4], [2, 0, 0, 0, 0]], "int32")


def words(function):
    """Two sources of unequal widths: an embedding that masks zeros, a function of it, a head."""

    def source(width, seed):
        tokens = keras.Input((5,), dtype="int32")
        x = layers.Embedding(5, width, mask_zero=True)(tokens)
        return randomised(keras.Model(tokens, layers.Dense(2)(function(x, width))), seed)

    return [source(width, seed) for seed, width in enumerate((4, 3))]


def pooled(x):
    return layers.GlobalAveragePooling1D()(x)


def alone(layer, width):
    """A layer as a model of its own."""
    inputs = keras.Input((5, width))
    return keras.Model(inputs, layer(inputs))


def mean(sources):
    return np.mean([numpy(source(TOKENS)) for source in sources], 0)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, width: pooled(layers.Attention()([x, x])),
        lambda x, width: layers.LSTM(width)(layers.Attention()([x, x])),
        lambda x, width: pooled(layers.Dense(width, activation="softmax")(x)),
        lambda x, width: layers.Bidirectional(layers.GRU(width))(layers.UnitNormalization()(x)),
        lambda x, width: layers.LSTM(width)(
            layers.LayerNormalization()(layers.Concatenate()([x, layers.Dense(width)(x)]))
        ),
        lambda x, width: pooled(layers.Add()([x, layers.Activation("softmax")(x)])),
        lambda x, width: pooled(layers.Concatenate(axis=1)([layers.UnitNormalization()(x), x])),
        lambda x, width: pooled(layers.GroupQueryAttention(2, width, width)(*_twice(x))),
        lambda x, width: alone(layers.LSTM(width), width)(x),
        lambda x, width: layers.Activation("softmax")(alone(layers.LSTM(width), width)(x)),
    ],
)
def test_what_reads_a_mask_behind_units_that_were_cut_or_moved(function):
    sources = words(function)
    fused = kf.fuse(sources, check=False)
    np.testing.assert_allclose(numpy(fused(TOKENS)), mean(sources), atol=1e-6)


def _twice(x):
    x = layers.Activation("softmax")(x)
    return x, x


def test_a_fused_model_with_masks_by_hand_is_saved_and_fused_again(tmp_path):
    sources = words(lambda x, width: layers.LSTM(width)(layers.Attention()([x, x])))
    fused = kf.fuse(sources)
    fused.save(tmp_path / "fused.keras")
    loaded = keras.saving.load_model(tmp_path / "fused.keras", safe_mode=True)
    again = kf.fuse([fused, loaded], noise=0.1, noise_kind="balanced")
    for model in (loaded, again):
        np.testing.assert_allclose(numpy(model(TOKENS)), mean(sources), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x, width: layers.UnitNormalization()(x),
            "output 0: it carries a mask, by which Keras weighs the loss",
        ),
        (
            lambda x, width: pooled(layers.MultiHeadAttention(width, 2)(*_twice(x))),
            "layer `multi_head_attention.*takes the mask of its query from the tensor itself",
        ),
        (
            lambda x, width: layers.LSTM(width)(alone(layers.UnitNormalization(), width)(x)),
            "layer `unit_normalization.*in a nested model that is given a mask",
        ),
        (
            lambda x, width: alone(layers.LSTM(width), width)(layers.UnitNormalization()(x)),
            "layer `lstm.*in a nested model that is given a mask",
        ),
    ],
)
def test_masks_that_would_be_lost_are_refused(function, message):
    with pytest.raises(kf.FusionError, match=message):
        kf.fuse(words(function))


def test_operations_hand_on_no_mask():
    sources = words(lambda x, width: layers.GRU(width)(ops.softmax(x)))
    fused = kf.fuse(sources)
    np.testing.assert_allclose(numpy(fused(TOKENS)), mean(sources), atol=1e-6)
