"""Safetensors files of checkpoints: as `keras_fusion.interop.tensors`, checked against a digest.

A link is not followed, and what cannot be used is a `UserError`.
"""

import hashlib
import os

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.interop.tensors import Digest as Digest
from keras_fusion.interop.tensors import sync as sync
from keras_fusion.interop.tensors import views
from keras_fusion.interop.tensors import write as write
from trainers import files
from trainers.errors import UserError


def read(
    path: str | os.PathLike, digest: Digest | None = None, is_hashed: bool = True
) -> dict[str, np.ndarray]:
    """Opens a safetensors file.

    Args:
        path: a safetensors file.
        digest: what the file must be; None takes it as it is.
        is_hashed: whether its hash is compared as well as its size.

    Returns:
        Name to array: a read-only view of the memory-mapped file, of which indexing reads only the
        pages that it covers. It stays valid when the file is removed.

    Raises:
        UserError: it cannot be read, is not of this digest, or header and bytes do not fit
            together.
    """
    try:
        with files.open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if digest and size != digest.bytes:
                raise ValueError(f"of {size} bytes, not {digest.bytes}")
            if digest and is_hashed:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest.sha256:
                    raise ValueError("with changed bytes")
                file.seek(0)
            return views(file)
    except FusionError:
        raise  # It says that a package is missing, nothing of the file.
    except OSError as error:
        fault = f"that cannot be read ({error.strerror or error})"
    except ValueError as error:
        fault = str(error)
    do = "It is damaged: use another file"
    raise UserError("a safetensors file", f"{os.fspath(path)} {fault}", do)
