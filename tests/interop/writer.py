"""Writes models, what they were fused to, and its outputs: `python -m tests.interop.writer FOLDER`.

A test reads the folder under another backend.
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers, ops

import keras_fusion as kf
from tests.keras_fusion.models import tiny

RNG = np.random.default_rng(0)
INPUTS = {
    "dense": RNG.normal(size=(3, 5)).astype("float32"),
    "convolutional": RNG.normal(size=(2, 8, 8, 3)).astype("float32"),
    "recurrent": RNG.normal(size=(2, 4, 5)).astype("float32"),
    "attention": RNG.integers(0, 11, size=(2, 6)).astype("int32"),
    "t5": tiny.batch(padding=True),
}
# What norm="property" needs beyond stock layers is in these files.
OPTIONS = {kind: {"norm": "property", "noise": 0.1, "seed": 1} for kind in INPUTS}


def _dense(width):
    return [keras.Input((5,)), layers.Dense(width, "gelu"), layers.LayerNormalization()]


def _convolutional(width):
    return [
        keras.Input((8, 8, 3)),
        layers.Conv2D(width, 3, padding="same", strides=2, activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(2),
        layers.Flatten(),
    ]


def _recurrent(width):
    return [
        keras.Input((4, 5)),
        layers.LSTM(width, return_sequences=True),
        layers.Bidirectional(layers.GRU(width)),
    ]


def _attention(width):
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, width)(tokens)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    return tokens, layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))


def source(kind, seed):
    """A model with weights by numpy, the same under every backend."""
    if kind == "t5":
        model = tiny.model(seed, num_layers=1, hidden_dim=8 + 2 * seed)
    elif kind == "attention":
        tokens, x = _attention(4 + seed)
        model = keras.Model(tokens, layers.Dense(3, name="head")(x))
    else:
        body = {"dense": _dense, "convolutional": _convolutional, "recurrent": _recurrent}
        model = keras.Sequential([*body[kind](4 + seed), layers.Dense(3, name="head")])
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        spread = rng.uniform(0.5, 1.5, weight.shape)
        weight.assign(spread if len(weight.shape) == 1 else rng.normal(size=weight.shape) * 0.5)
    return model


def outputs(model, kind):
    """Outputs of a model for `INPUTS`, as an array."""
    return ops.convert_to_numpy(model(INPUTS[kind], training=False))


def main(folder):
    """Writes `KIND_0.keras`, `KIND_1.keras`, `KIND.keras` and `KIND.npy` for each kind."""
    folder = pathlib.Path(folder)
    for kind, options in OPTIONS.items():
        sources = [source(kind, seed) for seed in range(2)]
        for seed, model in enumerate(sources):
            model.save(folder / f"{kind}_{seed}.keras")
        fused = kf.fuse(sources, **options)
        fused.save(folder / f"{kind}.keras")
        np.save(folder / f"{kind}.npy", outputs(fused, kind))


if __name__ == "__main__":
    main(sys.argv[1])
