"""Tiny T5s and batches that the tests of models share."""

import functools

import keras
import numpy as np
from keras import ops

from keras_fusion.layers.tree import own_weights_inside
from keras_fusion.layers.values import born_as
from keras_fusion.models import T5, T5Config
from keras_fusion.models.t5 import shared_skeleton

# Compiled forward passes, which JAX makes once for each configuration.
_programs = {}
V1_1 = {}
V1_0 = {"tie_embedding_weights": True, "use_gated_activation": False, "activation": "relu"}


def config(**overrides):
    fields = {
        "vocabulary_size": 23,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "key_value_dim": 4,
    }
    return T5Config(**fields | overrides)


@functools.cache
def _shapes(config):
    """`{path: shape}` of every weight."""
    variables = own_weights_inside(shared_skeleton(config))
    return {path: tuple(variable.shape) for path, variable in variables.items()}


def _values(path, shape, config, rng):
    """Numbers as large as T5's initialisers draw; norms' scales are not all one."""
    if len(shape) == 1:
        return rng.normal(1.0, 0.3, shape)
    if path.endswith("query/kernel"):
        return rng.normal(0.0, (config.hidden_dim * config.key_value_dim) ** -0.5, shape)
    deviation = {"embeddings": 1.0, "table": 0.25}.get(path.rpartition("/")[-1], shape[0] ** -0.5)
    return rng.normal(0.0, deviation, shape)


def model(seed=0, dtype=None, **overrides):
    """A T5 of numpy's numbers, alike on every backend: no initialiser is run, or compiled."""
    made = T5(config(**overrides), seed=seed, build=False, dtype=dtype)
    rng = np.random.default_rng(seed)
    weights = {
        path: _values(path, shape, made.config, rng).astype("float32")
        for path, shape in _shapes(made.config).items()
    }
    with born_as(made, weights):
        made.build()
    return made


shared = functools.cache(model)
"""The same, made once for all tests that only read its weights."""


def batch(seed=0, padding=False, targets=False, size=2, lengths=(7, 5), vocabulary=23):
    """Input dictionary; with padding the last tokens of the second sequence are masked."""
    rng = np.random.default_rng(seed)
    made = {
        f"{side}_token_ids": rng.integers(2, vocabulary, (size, length)).astype("int32")
        for side, length in zip(("encoder", "decoder"), lengths, strict=True)
    }
    if padding:
        for side, length in zip(("encoder", "decoder"), lengths, strict=True):
            mask = np.ones((size, length), "int32")
            mask[1, -2:] = 0
            made[f"{side}_padding_mask"] = mask
    if targets:
        made["targets"] = rng.integers(2, vocabulary, (size, lengths[1])).astype("int32")
        made["targets"][1, -2:] = 0
    return made


def logits(made, inputs, training=False):
    """A model's logits; on JAX in one program for all models of a configuration.

    JAX would compile every operation of every shape by itself.
    """
    if training or keras.backend.backend() != "jax":
        return ops.convert_to_numpy(made(inputs, training=training))
    key = made.config, made.dtype_policy.name
    if key not in _programs:
        import jax

        _programs[key] = jax.jit(functools.partial(made.stateless_call, training=False))
    values = [
        [variable.value for variable in variables]
        for variables in (made.trainable_variables, made.non_trainable_variables)
    ]
    return ops.convert_to_numpy(_programs[key](*values, inputs)[0])


def relative_gap(a, b):
    """Largest difference over the largest value."""
    return np.abs(a - b).max() / np.abs(b).max()
