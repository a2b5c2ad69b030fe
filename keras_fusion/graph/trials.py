"""Trying an operation on numbers: does it treat the sources' units apart, is it linear?

A rule that is found by trying needs no list of layers, and no name: f(concat) is compared with
concat(f). Where the operation's result depends on how its input is cut into sources, it fails.
"""

import keras
import numpy as np
from keras import ops

from keras_fusion.graph.tracing import Tensor, run
from keras_fusion.graph.values import AFTER, MEAN, Value, grown, places

_BATCH, _UNKNOWN, _SMALL = 2, 3, 16


class Trial:
    """Random inputs of one call of each source, and what the call makes of them.

    Args:
        calls: The call in each source.
        values: `Value` of each tensor leaf of the call, by the leaf's number.
        small: Whether dimensions that did not grow are cut down.
    """

    def __init__(self, calls, values, small):
        self.calls, self.values, self.small = calls, values, small
        rng = np.random.default_rng(0)
        # What one tensor does not know of its shape, another one that is read beside it may.
        self._known = {
            dim - len(call.leaves[leaf].spec.shape): size
            for call in calls
            for leaf in values
            for dim, size in enumerate(call.leaves[leaf].spec.shape)
            if dim and size not in (None, 1)
        }
        self.arrays = {}
        for leaf, value in values.items():
            tensors = [call.leaves[leaf] for call in calls]
            drawn = [self._draw(rng, tensor.spec, value) for tensor in tensors]
            # What all sources share is one and the same.
            self.arrays[leaf] = drawn if value.kind != "shared" else [drawn[0]] * len(drawn)
        self.outputs = [
            self.run(source, {leaf: arrays[source] for leaf, arrays in self.arrays.items()})
            for source in range(len(calls))
        ]

    def _draw(self, rng, spec, value):
        shape = []
        for dim, size in enumerate(spec.shape):
            if size is None:
                place = dim - len(spec.shape)
                size = self._known.get(place, _UNKNOWN) if dim else _BATCH
            cut = self.small and dim not in value.dims and size > _SMALL
            shape.append(_SMALL if cut else size)
        dtype = keras.backend.standardize_dtype(spec.dtype)
        if dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if "int" in dtype:
            return rng.integers(0, 3, shape).astype(dtype)
        return rng.normal(size=shape).astype("float32")

    def run(self, source, arrays):
        """Outputs of a source's operation on arrays, as arrays."""
        call = self.calls[source]
        leaves = list(call.leaves)
        for leaf, array in arrays.items():
            dtype = keras.backend.standardize_dtype(leaves[leaf].spec.dtype)
            leaves[leaf] = ops.convert_to_tensor(array, dtype)
        args, kwargs = call.with_leaves(leaves)
        outputs = run(call.operation, args, kwargs)
        return [ops.convert_to_numpy(ops.cast(out, "float32")) for out in outputs]

    def joint(self, changes):
        """Values of the outputs where the operation is applied to the fused tensors.

        Args:
            changes: `{leaf: {dimension: (layout before, layout after)}}`, how inputs are
                rearranged first.

        Returns:
            A `Value` for each output, or None where the sources' units do not stay apart.
        """
        fused, layouts = {}, {}
        for leaf, arrays in self.arrays.items():
            array = self.values[leaf].assemble(arrays)
            after = dict(self.values[leaf].dims)
            for dim, (before, layout) in changes.get(leaf, {}).items():
                array = np.take(array, places(before, layout), axis=dim)
                after[dim] = layout
            fused[leaf] = array
            layouts |= {(dim - array.ndim, layout): dim for dim, layout in after.items()}
        try:
            results = self.run(0, fused)
        except Exception:  # noqa: BLE001 - whatever the operation raises, it cannot take them
            return None
        values = []
        for index, result in enumerate(results):
            outputs = [output[index] for output in self.outputs]
            value = self._value(result, outputs, layouts)
            if value is None:
                return None
            values.append(value)
        return values

    def _value(self, result, outputs, layouts):
        """The `Value` of one output: the dimension in which the sources are found again."""
        for layout in dict.fromkeys(layout for _, layout in layouts):
            for dim in range(result.ndim)[::-1]:
                sizes = tuple(out.shape[dim] for out in outputs if out.ndim == result.ndim)
                if sizes != layout.sizes or result.shape[dim] != layout.size:
                    continue
                value = grown({dim: layout})
                parts = [value.extract(result, source) for source in range(len(outputs))]
                if all(map(close, parts, outputs)):
                    return value
        if all(out.shape == result.shape and close(out, result) for out in outputs):
            return Value()
        return None

    def linear(self, weights):
        """Returns whether the operation maps the mean of its inputs to that of its outputs."""
        try:
            means = self._means(weights)
            results = self.run(0, means)
        except Exception:  # noqa: BLE001 - units of several widths have no mean
            return False
        return all(
            close(result, sum(w * out[index] for w, out in zip(weights, self.outputs, strict=True)))
            for index, result in enumerate(results)
        )

    def _means(self, weights):
        return {
            leaf: sum(weight * array for weight, array in zip(weights, arrays, strict=True))
            if self.values[leaf].kind in (MEAN, AFTER)
            else arrays[0]
            for leaf, arrays in self.arrays.items()
        }


def close(first, second):
    """Returns whether arrays are equal but for rounding."""
    return first.shape == second.shape and np.allclose(
        first, second, rtol=1e-4, atol=1e-5, equal_nan=True
    )


def tried(calls, values):
    """A `Trial` on cut-down tensors, or on whole ones where the operation needs them."""
    try:
        return Trial(calls, values, small=True)
    except Exception:  # noqa: BLE001 - an operation may need the sizes that it was made for
        return Trial(calls, values, small=False)


def acts_on_units_apart(activation, rank=2):
    """Returns whether an activation acts on each unit apart, by trying it on numbers."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(*(3,) * (rank - 1), width)).astype("float32") for width in (4, 3)]
    try:
        together, *apart = [
            ops.convert_to_numpy(activation(ops.convert_to_tensor(array)))
            for array in (np.concatenate(parts, -1), *parts)
        ]
    except Exception:  # noqa: BLE001 - one that needs the units it was made for
        return False
    return close(together, np.concatenate(apart, -1))


def activations_of(layer):
    """Activations of a layer, and of the layers and cells inside it."""
    names = ("activation", "recurrent_activation")
    functions = [getattr(layer, name, None) for name in names]
    inside = [getattr(layer, name, None) for name in ("layer", "cell", "backward_layer")]
    inside += getattr(layer, "cells", ())
    return [function for function in functions if function is not None] + [
        function for inner in inside if inner is not None for function in activations_of(inner)
    ]


def tensor_leaves(call, values):
    """`{number of a leaf: Value}` of the tensors among a call's arguments."""
    return {
        number: values[id(leaf)]
        for number, leaf in enumerate(call.leaves)
        if isinstance(leaf, Tensor)
    }
