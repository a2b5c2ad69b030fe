"""Packages of the extra `interop`, imported where a function needs them."""

import importlib

from keras_fusion.errors import FusionError


def optional(package):
    """Imports a package that is not among the library's requirements.

    Args:
        package: Name of a package of the extra `interop`.

    Returns:
        The module.

    Raises:
        FusionError: It cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise FusionError(
            f"Expected the package {package}. Received: {error}. "
            "Install it: pip install 'keras-fusion[interop]'"
        ) from error
