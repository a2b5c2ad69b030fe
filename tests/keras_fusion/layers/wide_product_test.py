"""Products of bfloat16 with sums in float32, against numpy's in float64."""

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

from keras_fusion.layers.wide_product import serves, wide_product
from tests.keras_fusion.models import tiny

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone has it")


def rounded(array):
    return array.astype(ml_dtypes.bfloat16).astype("float64")


def test_serves_bfloat16_on_jax():
    is_jax = keras.backend.backend() == "jax"
    for dtype, expected in (("bfloat16", is_jax), ("float16", False), ("float32", False)):
        assert serves(ops.zeros((1,), dtype)) == expected


@on_jax
@pytest.mark.parametrize("transposed", [False, True])
def test_product_and_gradients_are_those_of_rounded_arrays(transposed):
    import jax

    rng = np.random.default_rng(0)
    x, kernel, upstream = (rng.normal(size=shape) for shape in ((2, 3, 64), (64, 5), (2, 3, 5)))
    given = kernel.T if transposed else kernel
    values = ops.cast(x, "bfloat16"), ops.cast(given, "float32")
    result, pull = jax.vjp(lambda *arrays: wide_product(*arrays, transposed), *values)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-5)
    of_x, of_kernel = pull(ops.cast(upstream, "float32"))
    assert (of_x.dtype, of_kernel.dtype) == ("bfloat16", "float32")
    expected = rounded(upstream) @ rounded(kernel).T
    np.testing.assert_allclose(of_x.astype("float32"), expected, rtol=2**-8, atol=1e-5)
    expected = np.einsum("bti,bto->io", rounded(x), rounded(upstream))
    expected = expected.T if transposed else expected
    np.testing.assert_allclose(of_kernel, expected, rtol=1e-5, atol=1e-5)


@on_jax
@pytest.mark.parametrize("version", [tiny.V1_1, tiny.V1_0], ids=["v1.1", "v1.0"])
def test_a_bfloat16_t5_has_the_logits_of_its_rounded_head(version):
    model = tiny.model(num_layers=1, dtype="mixed_bfloat16", **version)
    hidden = np.random.default_rng(0).normal(size=(2, 3, model.config.hidden_dim))
    decoded = ops.cast(hidden, "bfloat16")
    kernel = model.head.kernel if model.head is not None else model.token_embedding.embeddings
    kernel = rounded(ops.convert_to_numpy(kernel))
    if model.head is None:
        kernel = kernel.T * model.config.hidden_dim**-0.5
    expected = rounded(hidden) @ kernel
    np.testing.assert_allclose(model.logits(decoded), expected, rtol=1e-5, atol=1e-5)
