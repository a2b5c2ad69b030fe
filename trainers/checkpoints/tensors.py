"""Safetensors files: arrays to a file with its hash, and a file as memory-mapped arrays.

A header of JSON, then the bytes of each tensor, so that nothing in a file can run code. Both ways
are here in place of the safetensors package. Its numpy side reads no bfloat16; and writing here
makes no second copy in memory, has the hash when the last byte is out, and fails with the errors
of the operating system. A file that was read can come from anybody: its header is bounded,
every offset is checked against the file before a byte is mapped, and no array is larger than the
file.
"""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from trainers import files

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
# Enough for 25,000 tensors, and less than the format allows: parsed JSON takes twenty times the
# memory of its text.
_MAX_HEADER = 4_000_000
_MAX_DIMS = 64
# Written and hashed in pieces of this size.
_CHUNK = 1 << 24


class Digest(NamedTuple):
    """What a file must be, byte for byte."""

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

    Raises:
        OSError: no room, for instance.
        ValueError: a dtype that the format does not have.
    """
    # As the safetensors package orders them: wide dtypes first, so that each is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    with open(path, "xb", buffering=0) as file:
        put = _HashedWriter(file)
        put(_header({name: tensors[name] for name in order}))
        for name in order:
            # Flat first: a scalar has no bytes to view, and bfloat16 no buffer.
            put(memoryview(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8)))
        os.fsync(file.fileno())
    return put.digest()


def _header(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Length and JSON of what describes `tensors`, which follow in this order."""
    entries, begin = {}, 0
    for name, value in tensors.items():
        if value.dtype not in _CODES or not _is_name(name):
            raise ValueError(
                f"Expected a printable name and one of the dtypes {', '.join(_DTYPES)}. "
                f"Received: {name!r} of {value.dtype}. Rename or convert it."
            )
        end = begin + math.prod(value.shape) * value.dtype.itemsize
        entries[name] = {
            "dtype": _CODES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER:
        raise ValueError(
            f"Expected names that fit into {_MAX_HEADER} bytes. Received: {len(tensors)} tensors "
            f"with {len(text)} bytes of names and shapes. Write them to several files."
        )
    return len(text).to_bytes(8, "little") + text


class _HashedWriter:
    """Writes buffers to an unbuffered file and hashes them on the way."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def __call__(self, buffer: bytes | memoryview) -> None:
        buffer = memoryview(buffer)
        for begin in range(0, len(buffer), _CHUNK):
            chunk = buffer[begin : begin + _CHUNK]
            self._hash.update(chunk)
            self._size += len(chunk)
            while chunk:
                # Fewer bytes than asked for are no error: the disk may be full only after them.
                chunk = chunk[self._file.write(chunk) :]

    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest(), self._size)


class TensorFile(Mapping):
    """A safetensors file as a read-only mapping; a tensor is read when it is asked for.

    Values are views of the memory-mapped file: indexing one reads only the pages it covers. They
    stay valid when the file is removed.

    Args:
        path: a safetensors file.
        digest: what the file must be; None takes it as it is.

    Raises:
        ValueError: it cannot be read, is not of this digest, or header and bytes do not fit
            together.

    Example:
        weights = TensorFile("checkpoints/step_00001000/model.safetensors")
        weights["encoder/block_0/self_attention/query/kernel"][:, :64]
    """

    def __init__(self, path: str | os.PathLike, digest: Digest | None = None):
        self.path = os.fspath(path)
        try:
            with files.open_file(path) as file:
                size = os.fstat(file.fileno()).st_size
                if digest is not None:
                    _check_digest(file, size, digest)
                self._entries, self._start = _read_header(file, size)
                self._bytes = np.memmap(file, np.uint8, mode="r", shape=(size,))
        except OSError as error:
            raise _fault(self.path, f"that cannot be read ({error.strerror or error})") from None
        except ValueError as error:
            raise _fault(self.path, str(error)) from None

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self._entries[name].dtype

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, begin, end = self._entries[name]
        data = self._bytes[self._start + begin : self._start + end]
        if data.ctypes.data % dtype.alignment:
            data = data.copy()
        return data.view(dtype).reshape(shape).view(np.ndarray)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class _Entry(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def _check_digest(file: BinaryIO, size: int, digest: Digest) -> None:
    if size != digest.bytes:
        raise ValueError(f"of {size} bytes, not {digest.bytes}")
    if hashlib.file_digest(file, "sha256").hexdigest() != digest.sha256:
        raise ValueError("with changed bytes")
    file.seek(0)


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, _Entry], int]:
    """Returns the tensors by name and where their bytes begin."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER):
        raise ValueError(f"with a header of {length} bytes in a file of {size}")
    header = files.parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"with a header that is a {type(header).__name__}")
    header.pop(_METADATA, None)
    entries = {}
    for name, value in header.items():
        try:
            entries[name] = _entry(value)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"with tensor {name!r:.80} that has no place ({error!r:.200})"
            ) from None
    _check_places(entries, size - 8 - length)
    return entries, 8 + length


def _entry(value: Mapping) -> _Entry:
    shape = tuple(value["shape"])
    begin, end = value["data_offsets"]
    numbers = (*shape, begin, end)
    if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
        raise ValueError("sizes that are negative, fractional or too large")
    dtype = _DTYPES[value["dtype"]]
    # Zeros aside: numpy has no array of shape (0, 2**62) either.
    if len(shape) > _MAX_DIMS or math.prod(n for n in shape if n) * dtype.itemsize >= 2**63:
        raise ValueError("more elements than an array can have")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"shape {shape} at bytes {begin} to {end}")
    return _Entry(dtype, shape, begin, end)


def _is_name(name: str) -> bool:
    """Whether a tensor may be called so: nothing that changes what a terminal shows."""
    return name.isprintable() and name != _METADATA


def _check_places(entries: Mapping[str, _Entry], size: int) -> None:
    """The format's rule: tensors stand end to end and fill the file, without hole or overlap."""
    if not all(map(_is_name, entries)):
        raise ValueError("with names that cannot be printed")
    places = sorted((entry.begin, entry.end) for entry in entries.values())
    for (_, end), (begin, _) in itertools.pairwise([(0, 0), *places, (size, size)]):
        if begin != end:
            raise ValueError(
                f"with {size} bytes, in which a tensor ends at {end} and the next begins at {begin}"
            )


def _fault(path: str, received: str) -> ValueError:
    return ValueError(
        f"Expected a safetensors file. Received: {path} {received}. "
        "It is damaged: use another file."
    )
