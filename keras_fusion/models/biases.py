"""Biases of T5's attention scores: positions, and masks that hide padding and other segments."""

import keras
from keras import ops

from keras_fusion.layers.attention import mask_bias


def wide_bias(bias):
    """Returns a position bias in the dtype of the scores, which can hold a mask's value."""
    return ops.cast(bias, keras.backend.result_type(bias.dtype, "float32"))


def with_padding(bias, padding_mask):
    """Returns the attention bias with padded sources hidden; None where there is nothing to add."""
    if padding_mask is None:
        return bias
    return _added(bias, mask_bias(ops.expand_dims(ops.expand_dims(padding_mask, 1), 1)))


def with_segments(bias, target_ids, source_ids):
    """Returns the attention bias with sources of other segments than the target's hidden.

    Padding is a segment like the others, number 0: a padded target has sources to attend to, and
    nothing else attends to padding. The position bias needs no correction: it depends on the
    distance of two tokens, which is the same wherever in a row their segment lies.

    Args:
        bias: As in `with_padding`.
        target_ids: Segment ids (batch, target length).
        source_ids: Segment ids (batch, source length); None hides nothing.
    """
    if source_ids is None:
        return bias
    same = ops.equal(ops.expand_dims(target_ids, 2), ops.expand_dims(source_ids, 1))
    return _added(bias, mask_bias(ops.expand_dims(same, 1)))


def _added(bias, hidden):
    return hidden if bias is None else bias + ops.cast(hidden, bias.dtype)
