"""Attention as one operation, `jax.nn.dot_product_attention`, in place of the layer's own.

It is not part of the library: the benchmark compares the two, to say where it is faster.
"""

import jax
import jax.numpy as jnp

import keras_fusion as kf
from keras_fusion import _keras


def fused(query, key, value, bias=None, scale=1.0, implementation=None):
    """Attention of projected queries to projected keys and values.

    Args:
        query, key, value: arrays (batch, heads, length, size).
        bias: added to the scores; broadcasts to (batch, heads, target, source).
        scale: factor of the scores.
        implementation: `"cudnn"` or `"xla"`; by default cuDNN's on a GPU. That takes 16-bit floats,
            and with a bias even lengths.

    Returns:
        Array (batch, target, heads, size).
    """
    if implementation is None:
        implementation = "cudnn" if jax.default_backend() == "gpu" else "xla"
    query, key, value = (jnp.swapaxes(array, 1, 2) for array in (query, key, value))
    return jax.nn.dot_product_attention(
        query, key, value, bias, scale=scale, implementation=implementation
    )


def use_fused(model):
    """Has all attention layers of a model take `fused`; returns how many they are.

    It knows no dropout on the attention weights, and gives no weights out.
    """
    layers = [
        layer
        for layer in _keras.layers_in(model)
        if isinstance(layer, kf.layers.FusableMultiHeadAttention)
    ]
    for layer in layers:
        if layer.dropout:
            raise ValueError(
                "fused attention takes layers without dropout. "
                f"Received: dropout={layer.dropout} of {layer.path}. Set it to 0"
            )
        layer.attend = _attend(layer)
    return len(layers)


def _attend(layer):
    scale = layer.key_dim**-0.5 if layer.use_scale else 1.0

    def attend(query, key, value, bias=None, training=None):
        del training
        attended = fused(query, key, value, bias, scale)
        joined = attended.reshape(*attended.shape[:2], -1)
        return layer.attention_output(joined), None

    return attend
