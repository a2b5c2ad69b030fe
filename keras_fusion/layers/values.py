"""Weights made from arrays that are at hand, and layers whose weights hold no values at all.

A layer that is built inside `born_as` takes its weights from arrays, which may be computed or read
from a file only then: none is initialised first and then overwritten. A layer that is built inside
`deferred` knows its weights' names, shapes and axes, and holds no memory for them.
"""

import contextlib
import functools
import math

import keras
import numpy as np

from keras_fusion import _keras
from keras_fusion._keras import deferred as deferred
from keras_fusion.errors import FusionError
from keras_fusion.layers.tree import join, leaves, own_weights

# Weights of this size become tensors in parts: below it memory matters less than time.
_LARGE_BYTES, _PART_BYTES = 2**26, 2**23


class ArrayInitializer(keras.initializers.Initializer):
    """An initializer that returns an array.

    Inside a `keras.StatelessScope` the variable keeps it, so whoever places the variable on devices
    can read just the slices of `array` that each of them holds.

    Args:
        array: Anything with `shape`, `dtype` and slicing: a numpy array, a memory-mapped file, a
            `keras_fusion.operator.FusedArray`.

    Examples:
        >>> layer.add_weight(shape=(2,), initializer=ArrayInitializer(np.array([1.0, 2.0])))
    """

    def __init__(self, array):
        self.array = array

    def __call__(self, shape, dtype=None):
        """The whole array, copied, so that no variable shares memory with a file.

        Raises:
            FusionError: The variable has another shape.
        """
        if tuple(shape) != tuple(self.array.shape):
            raise FusionError(
                f"an array of shape {tuple(self.array.shape)} cannot be a weight of shape "
                f"{tuple(shape)}; the layer's `sizes` do not fit its `weight_axes`"
            )
        dtype = np.dtype(keras.backend.standardize_dtype(dtype))
        is_large = math.prod(shape) * dtype.itemsize >= _LARGE_BYTES
        if is_large and keras.backend.backend() == "tensorflow":
            return _in_parts(self.array, dtype)
        return np.array(self.array, dtype)


def _in_parts(array, dtype):
    """The array as TensorFlow's tensor, of which two copies exist at the same time.

    TensorFlow holds three while it makes a tensor of an array at once.
    """
    import tensorflow as tf

    if tf.distribute.has_strategy() or not tf.executing_eagerly():
        return np.array(array, dtype)
    filled = tf.Variable(tf.zeros(array.shape, dtype.name), trainable=False)
    count = array.shape[0]
    rows = max(1, count * _PART_BYTES // (math.prod(array.shape) * dtype.itemsize))
    for start in range(0, count, rows):
        end = min(start + rows, count)
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=filled.handle,
            begin=[start],
            end=[end],
            strides=[1],
            value=np.asarray(array[start:end]).astype(dtype, copy=False),
        )
    # A copy: a variable that was written to in parts would be copied at every later read.
    return filled.read_value()


def array_of(variable):
    """A variable's value as an array; of a deferred one, the array that it is to be made from.

    Not to be written to.
    """
    initializer = _keras.initializer_of(variable)
    if _keras.value_of(variable) is None and isinstance(initializer, ArrayInitializer):
        return initializer.array
    return keras.ops.convert_to_numpy(variable.value)


@contextlib.contextmanager
def born_as(target, arrays):
    """While it is open, the weights that an unbuilt layer creates are these arrays.

    Args:
        target: A layer whose sublayers exist, and which has no weights yet.
        arrays: `{path: array-like}`; a weight that is not there is initialised as usual.

    Yields:
        The set of the paths that were made from arrays so far.
    """
    made = set()
    parts = leaves(target)
    for path, leaf in parts.items():
        leaf._birth = functools.partial(_initializer, arrays, made, path)
    try:
        yield made
    finally:
        for leaf in parts.values():
            del leaf._birth


def _initializer(arrays, made, path, name):
    """The initializer of a leaf's weight, or None where no array is given for it."""
    where = join(path, name)
    if where not in arrays:
        return None
    made.add(where)
    return ArrayInitializer(arrays[where])


def misfits(layer, weights):
    """Returns messages on arrays that cannot be the weights of a built layer, each named.

    Args:
        layer: A built layer; it may be one that was built inside `deferred`.
        weights: `{path: array-like}`.
    """
    shapes = {
        join(path, name): tuple(variable.shape)
        for path, leaf in leaves(layer).items()
        for name, variable in own_weights(leaf).items()
    }
    messages = [f"missing `{path}` {shapes[path]}" for path in shapes if path not in weights]
    messages += [
        f"unknown `{path}` {tuple(weights[path].shape)}" for path in weights if path not in shapes
    ]
    return messages + [
        f"`{path}` expected {shape}, got {tuple(weights[path].shape)}"
        for path, shape in shapes.items()
        if path in weights and tuple(weights[path].shape) != shape
    ]
