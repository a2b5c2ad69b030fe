"""Tiny T5s and batches that the tests of models share."""

import numpy as np
from keras import ops

from keras_fusion.models import T5, T5Config

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


def model(seed=0, dtype=None, **overrides):
    """A T5 whose norms' scales are not all one."""
    made = T5(config(**overrides), seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for weight in made.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.normal(1.0, 0.3, weight.shape))
    return made


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
    return ops.convert_to_numpy(made(inputs, training=training))


def relative_gap(a, b):
    """Largest difference over the largest value."""
    return np.abs(a - b).max() / np.abs(b).max()
