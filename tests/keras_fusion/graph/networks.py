"""Small networks for the tests of graphs, and the comparison of a fusion with the mean."""

import keras
import numpy as np
from keras import layers

import keras_fusion as kf
from keras_fusion.layers import FusableDense, FusableDropout, FusableLayerNorm
from tests.keras_fusion.fusion_contract import numpy, random_inputs

RNG = np.random.default_rng(0)
# Two rows, as in the check of a fusion: JAX then compiles every operation once.
FEATURES = random_inputs([(2, 5)])[0]


def randomised(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = rng.normal(0.2, 0.5, variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.path else value)
    return model


def stacked(*stack, inputs=(6,), seed=0):
    return randomised(keras.Sequential([keras.Input(inputs), *stack]), seed)


def graph(function, *shapes, seed=0, dtype=None):
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    return randomised(keras.Model(inputs, function(*inputs)), seed)


def pair(function, *shapes, widths=(4, 3), dtype=None):
    """Two sources of unequal widths: `function` takes a width, and returns one of tensors."""
    return [
        graph(function(width), *shapes, seed=seed, dtype=dtype) for seed, width in enumerate(widths)
    ]


def perceptron(seed=0, width=4, activation=None, classes=3):
    return randomised(
        keras.Sequential(
            [
                keras.Input((5,)),
                FusableDense(width, activation="relu"),
                FusableDense(width + 1, activation="relu"),
                FusableDense(classes, activation=activation),
            ]
        ),
        seed,
    )


def residual(seed=0, width=4, norm=FusableLayerNorm):
    inputs = keras.Input((5,))
    x = FusableDense(width)(inputs)
    y = norm()(x)
    y = FusableDense(2 * width, activation="gelu")(y)
    y = FusableDropout(0.1)(y)
    y = FusableDense(width)(y)
    x = norm()(layers.Add()([x, y]))
    return randomised(keras.Model(inputs, FusableDense(3)(layers.Activation("relu")(x))), seed)


def drawn(tensor):
    """Random numbers for an input."""
    shape = (2, *(size or 4 for size in tensor.shape[1:]))
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    values = RNG.integers(0, 4, shape) if "int" in dtype else RNG.normal(size=shape)
    return values.astype(dtype)


def check_mean(sources, atol=1e-5, **options):
    """Fuses, and compares the outputs with the sources' mean on random inputs."""
    fused = kf.fuse(sources, **options)
    batch = list(map(drawn, sources[0].inputs))
    batch = batch if len(batch) > 1 else batch[0]
    outputs = [keras.tree.flatten(model(batch, training=False)) for model in (fused, *sources)]
    for result, *expected in zip(*outputs, strict=True):
        mean = np.mean([numpy(output) for output in expected], 0)
        np.testing.assert_allclose(numpy(result), mean, atol=atol)
    return fused
