"""Tiny fused networks in float64 that the tests of the theory share; nothing writes to them."""

import dataclasses
import functools
import warnings

import keras
import numpy as np
from keras import ops

import keras_fusion as kf
from keras_fusion.layers import FusableDense, FusableLayerNorm
from keras_fusion.losses import mean_cross_entropy
from keras_fusion.models import T5, T5Config
from keras_fusion.theory import Fields
from keras_fusion.theory.derivatives import Derivatives

V1_1 = {}
V1_0 = {"tie_embedding_weights": True, "use_gated_activation": False, "activation": "relu"}
VERSIONS = {"v1.1": V1_1, "v1.0": V1_0}
VOCABULARY = 16


@dataclasses.dataclass(frozen=True)
class Case:
    """A fused network, what it was fused from, and the fields on it."""

    fused: keras.Model
    sources: list
    batch: object
    loss: object
    fields: Fields

    @property
    def arguments(self):
        """The first arguments of the package's functions."""
        return self.fused, self.sources, self.batch


def make_case(sources, batch, loss=mean_cross_entropy, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kf.SymmetryWarning)
        fused = kf.fuse(sources, **options)
    return Case(fused, sources, batch, loss, Fields(fused, sources, batch, loss))


def with_weights(model, seed, scale):
    """The same weights on every backend; norms' scales around one."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        mean = 1.0 if weight.name in ("scale", "gamma") else 0.0
        weight.assign(rng.normal(mean, scale, weight.shape))
    return model


def t5(seed=0, version="v1.1", **overrides):
    fields = {
        "vocabulary_size": VOCABULARY,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 4,
        "intermediate_dim": 6,
        "key_value_dim": 2,
    }
    config = T5Config(**fields | VERSIONS[version] | overrides)
    return with_weights(T5(config, seed=seed, dtype="float64"), seed, 0.4)


def t5_batch(seed=0, size=3, lengths=(5, 4)):
    """Token ids with padding in one sequence, and targets."""
    rng = np.random.default_rng(seed)
    batch = {}
    for side, length in zip(("encoder", "decoder"), lengths, strict=True):
        batch[f"{side}_token_ids"] = rng.integers(2, VOCABULARY, (size, length)).astype("int32")
        mask = np.ones((size, length), "int32")
        mask[1, -2:] = 0
        batch[f"{side}_padding_mask"] = mask
    batch["targets"] = rng.integers(2, VOCABULARY, (size, lengths[1])).astype("int32")
    batch["targets"][1, -2:] = 0
    return batch


def dense(seed=0, width=3, norm=False):
    """Three inputs, two hidden layers of tanh, two outputs; optionally a norm between."""
    double = {"dtype": "float64"}
    # Named, as the noise of a fusion depends on the names.
    layers = [
        keras.Input((3,), **double),
        FusableDense(width, activation="tanh", name="first", **double),
        *([FusableLayerNorm(name="norm", **double)] if norm else []),
        FusableDense(width + 1, activation="tanh", name="second", **double),
        FusableDense(2, name="last", **double),
    ]
    return with_weights(keras.Sequential(layers), seed, 0.6)


def dense_batch(seed=0, size=5):
    """A pair (inputs, targets)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 3)), rng.normal(size=(size, 2))


def mean_square(targets, outputs):
    return ops.mean(ops.square(outputs - ops.cast(targets, outputs.dtype)))


@functools.cache
def small(kind):
    """The network that self-fusions are made of, and its derivatives: "v1.1", "v1.0" or "dense"."""
    if kind == "dense":
        made = dense(norm=True)
        return made, Derivatives(made, dense_batch(), mean_square)
    made = t5(0, kind)
    return made, Derivatives(made, t5_batch(), mean_cross_entropy)


@functools.cache
def self_fused(kind, n, norm):
    made, _ = small(kind)
    if kind == "dense":
        return make_case([made] * n, dense_batch(), mean_square, norm=norm)
    return make_case([made] * n, t5_batch(), norm=norm)


@functools.cache
def fused_dense():
    """Of two different networks of different widths, with η = 0."""
    return make_case([dense(0, 3), dense(1, 2)], dense_batch(), mean_square)


@functools.cache
def noisy_dense():
    """As `fused_dense`, with η ≠ 0."""
    return make_case([dense(0, 3), dense(1, 2)], dense_batch(), mean_square, noise=0.5)


def arrays(vector):
    return [ops.convert_to_numpy(array) for array in vector]


def flat(vector):
    """A list of tensors as one numpy vector."""
    return np.concatenate([array.ravel() for array in arrays(vector)])


def random_like(weights, seed=0):
    rng = np.random.default_rng(seed)
    return [ops.convert_to_tensor(rng.normal(size=array.shape), array.dtype) for array in weights]
