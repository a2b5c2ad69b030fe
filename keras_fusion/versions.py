"""Versions and devices that a bug report needs: `python -m keras_fusion.versions`."""

import contextlib
import importlib.metadata
import platform

import keras

from keras_fusion import __version__

_PACKAGES = (
    "keras",
    "keras-hub",
    "tensorflow",
    "jax",
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "ml_dtypes",
)


def versions():
    """`{name: version}` of Python, of the backend in use, and of the installed packages.

    Examples:
        >>> versions()["backend"]
        'tensorflow'
    """
    named = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": keras.backend.backend(),
        "dtype policy": keras.config.dtype_policy().name,
        "devices": ", ".join(_devices()),
        "keras-fusion": __version__,
    }
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            named[name] = importlib.metadata.version(name)
    return named


def _devices():
    """Names of the devices; Keras lists them on TensorFlow and JAX alone."""
    if keras.backend.backend() in ("tensorflow", "jax"):
        return keras.distribution.list_devices()
    if keras.backend.backend() == "torch":
        import torch

        return ["cpu:0", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return ["cpu:0"]


def main():
    """Prints one line for each."""
    for name, version in versions().items():
        print(f"{name}: {version}")


if __name__ == "__main__":
    main()
