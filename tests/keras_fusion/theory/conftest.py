"""Double precision for the tests of the theory, which measure small differences."""

import keras
import pytest


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    """Float64 on JAX, where JAX and Keras round it to float32 unless told otherwise.

    Keras has no public switch: its table of types to narrow is changed for the module. XLA's
    optimizations are off, since compiling takes longer than running here.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax
    from keras.src.backend.common import dtypes

    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}
    before = {name: jax.config.values[name] for name in settings}
    narrowed = dtypes.BIT64_TO_BIT32_DTYPE["float64"]
    for name, value in settings.items():
        jax.config.update(name, value)
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = narrowed
