"""Safetensors files: arrays to a file with its hash, and a file as memory-mapped arrays.

The package `safetensors` checks a file that is read. It is not used to write: it needs every array
in memory at once, and fused weights are computed piece by piece; it would also read the whole file
again for its hash. Nor is its reader used for the contents: it copies them.

A file can come from anybody: its header is bounded, nothing in it can run code, and no array is
larger than the file.
"""

import collections
import concurrent.futures
import contextlib
import errno
import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from keras_fusion.optional import optional
from keras_fusion.regions import pieces, region_of

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
# Values that are computed, hashed and written at once.
_PIECE = 1 << 22
# Pieces that wait to be hashed and written.
_AHEAD = 3
# 524 is ENOTSUPP, which Linux keeps to itself, and some network file systems let through.
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, 524)


class Digest(NamedTuple):
    """Hash and size that a file must have."""

    sha256: str
    bytes: int


def write(path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None):
    """Writes arrays to a new safetensors file, on the disk when this returns.

    Args:
        path: File to write; it must not be there yet.
        tensors: Name to array; any dtype of the format, bfloat16 as `ml_dtypes.bfloat16`. One that
            is computed when it is read is read in pieces, when its turn comes.
        metadata: Texts that the header is to hold.

    Returns:
        `Digest` of what was written.

    Raises:
        OSError: No room, for instance.
        ValueError: A dtype that the format does not have, or a name that cannot be printed.
    """
    # As the package orders them: wide dtypes first, so that each is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header = _header({name: tensors[name] for name in order}, metadata)
    sha256 = hashlib.sha256(header)
    with open(path, "xb") as file:
        file.write(header)
        contents = (content for name in order for content in _contents(tensors[name]))
        _use_in_turn(contents, (sha256.update, file.write))
        file.flush()
        os.fsync(file.fileno())
        return Digest(sha256.hexdigest(), file.tell())


def _use_in_turn(contents, uses):
    """Calls functions with pieces, each in a thread, while the next pieces are computed.

    Each gets all of them in order. At most `_AHEAD` pieces wait: a slow moment of the disk does
    not stop the others.
    """
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(concurrent.futures.ThreadPoolExecutor(1)) for _ in uses]
        waiting = collections.deque()
        for content in contents:
            if len(waiting) == _AHEAD:
                _finish(waiting.popleft())
            pairs = zip(workers, uses, strict=True)
            waiting.append([worker.submit(use, content) for worker, use in pairs])
        for jobs in waiting:
            _finish(jobs)


def _finish(jobs):
    """Waits for jobs, and raises what one of them raised."""
    for job in jobs:
        job.result()


def _contents(array):
    """The bytes of an array, in pieces."""
    for piece in pieces(region_of(..., array.shape), _PIECE):
        # Flat first: a scalar has no bytes to view, and bfloat16 no buffer.
        yield np.ascontiguousarray(array[piece]).reshape(-1).view(np.uint8)


def _header(tensors, metadata):
    """Length and JSON of what describes `tensors`, which follow in this order."""
    entries, begin = {_METADATA: dict(metadata)} if metadata else {}, 0
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


def sync(path):
    """Makes a folder's entries outlive a loss of power.

    Where the file system cannot do that for folders, one warning says so.

    Args:
        path: The folder.

    Raises:
        OSError: Any other fault: no room, or a disk that does not answer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *UNSUPPORTED):
            raise
        # The same text for all folders: it is shown once.
        warnings.warn(
            "The file system does not sync folders: what was written last may be gone after a "
            "loss of power.",
            RuntimeWarning,
            stacklevel=1,
        )
    finally:
        os.close(descriptor)


def views(file: BinaryIO):
    """Arrays of an open safetensors file.

    Args:
        file: The file, at its beginning.

    Returns:
        Name to array: a read-only view of the memory-mapped file, of which indexing reads only the
        pages that it covers. It stays valid when the file is closed or removed.

    Raises:
        FusionError: safetensors is not installed.
        ValueError: Header and bytes do not fit together. The message continues "a file …".
    """
    safetensors = optional("safetensors")
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER):
        raise ValueError(f"with a header of {length} bytes in a file of {size}")
    header = _parse(file.read(length))
    try:
        # By its descriptor: the path may lead to another file by now.
        safetensors.safe_open(f"/dev/fd/{file.fileno()}", "np")
    except safetensors.SafetensorError as error:
        raise ValueError(f"with a header that does not fit ({error!r:.200})") from None
    header.pop(_METADATA, None)
    content = np.memmap(file, np.uint8, mode="r", shape=(size,)).view(np.ndarray)[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if not name.isprintable():
            raise ValueError("with names that cannot be printed")
        try:
            begin, end = entry["data_offsets"]
            data = content[begin:end].view(_DTYPES[entry["dtype"]])
            arrays[name] = data.reshape(entry["shape"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"with tensor {name!r:.80} of no array ({error!r:.200})") from None
    return arrays


def _parse(text):
    """A header's JSON, in which a name stands once: the package does not refuse others."""

    def unique(pairs):
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a name twice")
        return values

    def refuse(constant):
        raise ValueError(f"{constant} for a number")

    try:
        return json.loads(text.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"with JSON that cannot be read ({error!s:.80})") from None
