"""Double precision on the backends where Keras narrows float64 to float32."""

import contextlib

import keras


@contextlib.contextmanager
def double_precision():
    """While it is open, operations on float64 compute in float64 on every backend.

    Keras has no public switch: its table of types to narrow is changed. On JAX, XLA's optimizations
    are off as well, since compiling takes longer than running here.
    """
    from keras.src.backend.common import dtypes

    narrowed = dtypes.BIT64_TO_BIT32_DTYPE["float64"]
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    with _jax_settings() if keras.backend.backend() == "jax" else contextlib.nullcontext():
        yield
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = narrowed


@contextlib.contextmanager
def _jax_settings():
    import jax

    settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
