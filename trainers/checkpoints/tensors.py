"""Safetensors files: arrays to a file with its hash, and a file as memory-mapped arrays.

The package `safetensors` checks a file that is read. It is not used to write: it needs every array
in memory at once, and the fused weights and those of a mesh are computed one by one; it would also
read the whole file again for its hash. Nor is its reader used for the contents: it copies them.

A file can come from anybody: its header is bounded, nothing in it can run code, and no array is
larger than the file.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from trainers import files
from trainers.errors import UserError

_DTYPES = {
    "BOOL": np.dtype(bool),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
# Enough for 25,000 tensors, and less than the format allows: parsed JSON takes twenty times the
# memory of its text.
_MAX_HEADER = 4_000_000


class Digest(NamedTuple):
    """Hash and size that a file must have."""

    sha256: str
    bytes: int


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> Digest:
    """Writes arrays to a new safetensors file, on the disk when this returns.

    Args:
        path: file to write; it must not be there yet.
        tensors: name to array; any dtype of the format, bfloat16 as `ml_dtypes.bfloat16`. One that
            is not contiguous, or is computed when it is read, is copied when its turn comes.

    Returns:
        Hash and size of what was written.
    """
    # As the package orders them: wide dtypes first, so that each is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header = _header({name: tensors[name] for name in order})
    sha256 = hashlib.sha256(header)
    with open(path, "xb") as file:
        file.write(header)
        for name in order:
            # Flat first: a scalar has no bytes to view, and bfloat16 no buffer.
            content = np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8)
            sha256.update(content)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return Digest(sha256.hexdigest(), file.tell())


def _header(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Length and JSON of what describes `tensors`, which follow in this order."""
    entries, begin = {}, 0
    for name, value in tensors.items():
        if value.dtype not in _CODES or not name.isprintable() or name == _METADATA:
            raise ValueError(
                f"Expected a printable name and one of the dtypes {', '.join(_DTYPES)}. "
                f"Received: {name!r} of {value.dtype}. Rename or convert it."
            )
        end = begin + math.prod(value.shape) * value.dtype.itemsize
        shape, dtype = list(value.shape), _CODES[value.dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER:
        raise ValueError(
            f"Expected names that fit into {_MAX_HEADER} bytes. Received: {len(tensors)} tensors "
            f"with {len(text)} bytes of names and shapes. Write them to several files."
        )
    return len(text).to_bytes(8, "little") + text


def read(path: str | os.PathLike, digest: Digest | None = None) -> dict[str, np.ndarray]:
    """Opens a safetensors file.

    Args:
        path: a safetensors file.
        digest: what the file must be; None takes it as it is.

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
            if digest and hashlib.file_digest(file, "sha256").hexdigest() != digest.sha256:
                raise ValueError("with changed bytes")
            file.seek(0)
            return _views(file, size)
    except OSError as error:
        fault = f"that cannot be read ({error.strerror or error})"
    except ValueError as error:
        fault = str(error)
    do = "It is damaged: use another file"
    raise UserError("a safetensors file", f"{os.fspath(path)} {fault}", do)


def _views(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Views of the tensors in a file; raises a ValueError that says what it came with."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER):
        raise ValueError(f"with a header of {length} bytes in a file of {size}")
    # Refuses a name that stands twice, which the package does not.
    header = files.parse_json(file.read(length))
    try:
        # By its descriptor: the path may lead to another file by now.
        safetensors.safe_open(f"/dev/fd/{file.fileno()}", "np")
    except safetensors.SafetensorError as error:
        raise ValueError(f"with a header that does not fit ({error!r:.200})") from None
    header.pop(_METADATA, None)
    content = np.memmap(file, np.uint8, mode="r", shape=(size,)).view(np.ndarray)[8 + length :]
    views = {}
    for name, entry in header.items():
        if not name.isprintable():
            raise ValueError("with names that cannot be printed")
        try:
            begin, end = entry["data_offsets"]
            data = content[begin:end].view(_DTYPES[entry["dtype"]])
            views[name] = data.reshape(entry["shape"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"with tensor {name!r:.80} of no array ({error!r:.200})") from None
    return views
