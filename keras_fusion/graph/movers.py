"""Rules of the operations that move entries about: concatenations and reshapes."""

import functools
import math

import keras

from keras_fusion.graph.steps import Step, copied
from keras_fusion.graph.values import grown
from keras_fusion.layouts import Layout


def concatenation(calls, inputs, settings):
    """The `Step` of a concatenation; None where other dimensions than its own keep it from one.

    Args:
        calls: The call in each source.
        inputs: `{leaf: Value}` of the tensors.
        settings: Messages on settings that differ.
    """
    axis = getattr(calls[0].operation, "axis", None)
    if settings or not isinstance(axis, int):
        return None
    leaves = [call.leaves for call in calls]
    rank = len(calls[0].outputs[0].spec.shape)
    axis %= rank
    dims, parts, changes = {}, [], {}
    for number, value in inputs.items():
        shapes = [leaf[number].spec.shape for leaf in leaves]
        if value.dims.keys() - {axis}:
            dims |= {dim: layout for dim, layout in value.dims.items() if dim != axis}
        if any(shape[axis] is None for shape in shapes):
            return None
        parts.append(value.dims.get(axis) or Layout.whole(shapes[0][axis], len(calls)))
    for number, value in inputs.items():
        for dim, layout in dims.items():
            present = value.dims.get(dim)
            if present == layout:
                continue
            sizes = tuple(leaf[number].spec.shape[dim] for leaf in leaves)
            if sizes != layout.sizes:
                return None
            before = present or Layout.whole(sizes[0], len(calls))
            changes.setdefault(number, {})[dim] = (before, layout)
    value = grown(dims | {axis: Layout.stacked(parts)})
    return Step([value], lambda: copied(calls[0].operation), changes)


def reshape(calls, inputs):
    """The `Step` of a flatten or reshape; None where it splits what grew.

    In row-major order a dimension of the result is `before · grown · after`, with factors of
    dimensions that did not grow.
    """
    ((number, value),) = inputs.items()
    if len(value.dims) != 1:
        return None
    ((dim, layout),) = value.dims.items()
    before = [call.leaves[number].spec.shape for call in calls]
    if getattr(calls[0].operation, "data_format", None) == "channels_first":
        # Keras moves the channels to the end first.
        order = [0, *range(2, len(before[0])), 1]
        before = [tuple(shape[dim] for dim in order) for shape in before]
        dim = order.index(dim)
    after = [call.outputs[0].spec.shape for call in calls]
    if len({len(shape) for shape in after}) > 1:
        return None
    start = 0
    while (
        start < min(dim, len(after[0]))
        and len(
            {(shape[start], result[start]) for shape, result in zip(before, after, strict=True)}
        )
        == 1
        and before[0][start] == after[0][start]
    ):
        start += 1
    if any(None in shape[start:] for shape in (*before, *after)):
        return None
    lead, trail = math.prod(before[0][start:dim]), math.prod(before[0][dim + 1 :])
    for target, split in _targets(after[0], start, lead, trail):
        outer, inner = math.prod(after[0][start:target]), math.prod(after[0][target + 1 :])
        made = layout.divided(inner // trail) if split else layout
        made = made and Layout.joined(made, lead // outer, 1 if split else trail // inner)
        sizes = tuple(shape[target] for shape in after)
        same = len({(*shape[:target], *shape[target + 1 :]) for shape in after}) == 1
        if made is not None and same and made.sizes == sizes:
            shape = [-1 if size is None else size for size in after[0]]
            shape[target] = made.size
            operation = functools.partial(_reshaping, calls[0].operation, tuple(shape))
            return Step([grown({target: made})], operation)
    return None


def _targets(shape, start, lead, trail):
    """Dimensions of the result that may hold what grew, and whether it is split between two.

    One that holds all of it comes first.
    """
    candidates = []
    for target in range(start, len(shape)):
        outer, inner = math.prod(shape[start:target]), math.prod(shape[target + 1 :])
        if lead % outer == 0 and trail % inner == 0:
            candidates.append((False, target))
        elif lead % outer == 0 and inner % trail == 0:
            candidates.append((True, target))
    return [(target, split) for split, target in sorted(candidates)]


def _reshaping(operation, shape):
    """The operation, with the fused shape where it names one."""
    if isinstance(operation, keras.layers.Flatten):
        return copied(operation)
    if isinstance(operation, keras.layers.Reshape):
        return copied(operation, target_shape=shape[1:])
    # `keras.ops.reshape`, whatever it was called with.
    return keras.layers.Reshape(shape[1:])
