"""Walking a layer or model: its leaves, their own weights, and the axes these declare."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_fusion._keras import children


def is_fusable(layer):
    """Returns whether a layer declares its axes, and so can be fused."""
    return hasattr(layer, "weight_axes")


def own_weights(layer):
    """`{name: variable}` of the weights that a layer holds itself, not through a sublayer."""
    inner = {id(weight) for child in children(layer) for weight in child.weights}
    return {weight.name: weight for weight in layer.weights if id(weight) not in inner}


def own_weights_inside(layer):
    """`{path: variable}` of all weights inside a layer, those of its sublayers included."""
    return {
        join(path, name): variable
        for path, leaf in leaves(layer).items()
        for name, variable in own_weights(leaf).items()
    }


def leaves(layer, path=""):
    """`{path: layer}` of every layer that declares or owns weights, the layer itself at ""."""
    layers = {}
    if declared_axes(layer) or own_weights(layer):
        layers[path] = layer
    for child in children(layer):
        layers |= leaves(child, f"{path}/{child.name}".lstrip("/"))
    return layers


def join(path, name):
    """The path of a weight from those of its layer and its own."""
    return f"{path}/{name}".lstrip("/")


def to_numpy(value):
    """The value of a variable or tensor as a numpy array, which is not to be written to.

    On the CPU it shares the memory under TensorFlow and JAX: Keras' own `convert_to_numpy` would
    copy, and a fusion would need the sources' memory twice.
    """
    if keras.backend.backend() == "torch":
        return ops.convert_to_numpy(value)
    if isinstance(value, keras.Variable):
        value = value.value
    if callable(getattr(value, "read_value", None)):
        # A variable of TensorFlow copies when numpy asks; the tensor that it reads as does not.
        value = value.value()
    return np.asarray(value)


class Values(Mapping):
    """The values of variables as numpy arrays, each taken when it is asked for.

    Args:
        variables: `{path: variable}`.
    """

    def __init__(self, variables):
        self._variables = dict(variables)

    def __getitem__(self, path):
        return to_numpy(self._variables[path])

    def __contains__(self, path):
        return path in self._variables

    def __iter__(self):
        return iter(self._variables)

    def __len__(self):
        return len(self._variables)


def values_of(layers):
    """`{path: array}` for each layer; one and the same for a layer that stands there twice."""
    values = {
        id(layer): Values(own_weights_inside(layer))
        for layer in {id(layer): layer for layer in layers}.values()
    }
    return [values[id(layer)] for layer in layers]


def weight_axes(layer):
    """`{path: Axes}` of every weight inside a layer or model."""
    return {
        join(path, name): axes
        for path, leaf in leaves(layer).items()
        for name, axes in declared_axes(leaf).items()
    }


def declared_axes(leaf):
    """`{weight name: Axes}` that a layer declares of its own weights; none if not fusable."""
    return leaf.weight_axes() if is_fusable(leaf) else {}
