"""Attention as one operation of the accelerator, where JAX has it: cuDNN's, on one GPU.

It writes no scores to memory. On an H200 a training step of t5_m with 512 tokens took 82 ms with it
and 98 ms without (benchmarks/RESULTS.md).
"""

import functools

import keras

_DTYPES = ("bfloat16", "float16")


def fits(query, key, value, bias=None):
    """True where `flash_attention` computes this, gradients included.

    It does on Keras' JAX backend with one GPU that has cuDNN's operation, for 16-bit floats, even
    lengths, heads of one size that is a multiple of 8 up to 128, and a bias that all sequences
    share: that of others would have no gradient. `keras.config.disable_flash_attention()` turns it
    off.

    Args:
        query, key, value, bias: As for `flash_attention`.
    """
    if keras.backend.backend() != "jax" or keras.config.is_flash_attention_enabled() is False:
        return False
    if keras.backend.standardize_dtype(query.dtype) not in _DTYPES:
        return False
    lengths, size = (query.shape[2], key.shape[2]), query.shape[3]
    if size != value.shape[3] or size % 8 or size > 128 or any(n % 2 for n in lengths):
        return False
    if bias is not None and tuple(bias.shape) != (1, query.shape[1], *lengths):
        return False
    return _is_there()


@functools.cache
def _is_there():
    """True where the only device is a GPU on which cuDNN's operation runs."""
    import jax

    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        return False
    with jax.ensure_compile_time_eval():
        tensor = jax.numpy.ones((1, 1, 2, 8), "bfloat16")
        try:
            flash_attention(tensor, tensor, tensor).block_until_ready()
        except (RuntimeError, ValueError):  # An older GPU or cuDNN.
            return False
    return True


def flash_attention(query, key, value, bias=None, scale=1.0, implementation="cudnn"):
    """Attention of projected queries to projected keys and values, without dropout.

    Args:
        query, key, value: JAX arrays (batch, heads, length, size).
        bias: Added to the scores; (1, heads, target, source).
        scale: Factor of the scores.
        implementation: `"cudnn"`, or `"xla"` for any device.

    Returns:
        Array (batch, target, heads, size).
    """
    import jax

    query, key, value = (jax.numpy.swapaxes(array, 1, 2) for array in (query, key, value))
    bias = None if bias is None else bias.astype(query.dtype)
    return jax.nn.dot_product_attention(
        query, key, value, bias, scale=scale, implementation=implementation
    )
