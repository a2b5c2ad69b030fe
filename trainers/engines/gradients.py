"""Operations on gradients before the update; Keras operations, for every engine."""

import functools

from keras import ops


def clip(gradients: list, clip_norm: float | None) -> list:
    """Scales gradients down so that their global norm is at most `clip_norm`; None does nothing."""
    if clip_norm is None:
        return gradients
    # Squares of small floats are added up in float32.
    squares = [ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in gradients]
    norm = ops.sqrt(functools.reduce(ops.add, squares))
    factor = clip_norm / ops.maximum(norm, clip_norm)
    return [gradient * ops.cast(factor, gradient.dtype) for gradient in gradients]


def largest_if_not_finite(loss, gradients: list):
    """Returns the largest finite |gradient| where the loss is not finite, else nan."""
    nan = ops.convert_to_tensor(float("nan"), "float32")

    def largest():
        sizes = [ops.abs(ops.cast(gradient, "float32")) for gradient in gradients]
        tops = [ops.max(ops.where(ops.isfinite(size), size, -1.0)) for size in sizes]
        top = ops.max(ops.stack(tops))
        return ops.where(top < 0, nan, top)

    # A pass over all of them, which only a run that fails needs.
    return ops.cond(ops.isfinite(loss), lambda: nan, largest)
