"""Products of bfloat16 that are added up, and given out, in float32, where JAX computes them."""

import keras


def serves(tensor):
    """True for a bfloat16 tensor on Keras' JAX backend: `wide_product` takes it.

    TensorFlow and torch give out such a sum in bfloat16 only, and float16 could not hold the
    gradient of a loss.
    """
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.backend.backend() == "jax" and dtype == "bfloat16"


def wide_product(inputs, kernel, transposed=False):
    """Returns `inputs @ kernel` in float32, with the kernel rounded to bfloat16.

    The gradient that arrives is rounded too. An accelerator multiplies these many times as fast as
    float32; on a TPU JAX rounds the arrays of any product to them. The first derivative is by
    reverse mode: `jax.grad`, and `jax.jvp` of that, not `jax.jvp` alone.

    Args:
        inputs: Array (…, n) that it `serves`.
        kernel: Array or variable (n, m), or (m, n) if `transposed`.
        transposed: Whether the kernel's second axis is that of the inputs.

    Returns:
        Float32 array (…, m).
    """
    import jax

    def summed(a, b, axes):
        a, b = (array.astype("bfloat16") for array in (a, b))
        return jax.numpy.tensordot(a, b, axes, preferred_element_type="float32")

    @jax.custom_gradient
    def product(inputs, kernel):
        def gradient(upstream):
            rows = [array.reshape(-1, array.shape[-1]) for array in (inputs, upstream)]
            of_kernel = summed(*(reversed(rows) if transposed else rows), (0, 0))
            of_inputs = summed(upstream, kernel, (-1, 0 if transposed else 1))
            return of_inputs.astype(inputs.dtype), of_kernel.astype(kernel.dtype)

        return summed(inputs, kernel, (-1, 1 if transposed else 0)), gradient

    return product(inputs, keras.ops.convert_to_tensor(kernel))
