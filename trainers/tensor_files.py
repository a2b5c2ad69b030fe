"""Safetensors files as memory-mapped dictionaries of numpy arrays, bfloat16 included.

Writing goes through the safetensors package. Reading is done here, because its numpy side knows no
bfloat16: a header of JSON, then the bytes of each tensor, so nothing in a file can run code, and
every offset is checked against the size of the file before anything is mapped.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

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
# The format's own limit on its header.
_MAX_HEADER = 100_000_000


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a safetensors file.

    Args:
        path: file to write.
        tensors: name to array; any dtype of the format, bfloat16 as `ml_dtypes.bfloat16`.
    """
    save_file(
        {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()},
        path,
    )


class TensorFile(Mapping):
    """A safetensors file as a read-only mapping; a tensor is read when it is asked for.

    Values are views of the memory-mapped file: indexing one reads only the pages it covers.

    Args:
        path: a safetensors file.

    Raises:
        ValueError: where header and file do not fit together.

    Example:
        weights = TensorFile("checkpoints/step_00001000/model.safetensors")
        weights["encoder/block_0/self_attention/query/kernel"][:, :64]
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self._entries, self._start = _read_header(self.path)
        # No bytes to map where all tensors are empty.
        size = os.path.getsize(self.path)
        self._bytes = np.memmap(self.path, np.uint8, mode="r", shape=(size,))

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name][1]

    def dtype(self, name: str) -> np.dtype:
        return self._entries[name][0]

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


def _read_header(path: str) -> tuple[dict[str, tuple], int]:
    """Returns name → (dtype, shape, begin, end) and where the tensors' bytes begin."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise ValueError(_fault(path, f"header of {length} bytes in a file of {size}"))
        try:
            header = json.loads(file.read(length))
            entries = {
                name: _entry(value) for name, value in header.items() if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(_fault(path, f"header that cannot be read ({error!r})")) from None
    start = 8 + length
    for name, (dtype, shape, begin, end) in entries.items():
        fits = 0 <= begin <= end <= size - start
        if not fits or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(_fault(path, f"tensor {name} {shape} at bytes {begin} to {end}"))
    return entries, start


def _entry(value: Mapping) -> tuple:
    shape = tuple(value["shape"])
    begin, end = value["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("negative or fractional sizes")
    return _DTYPES[value["dtype"]], shape, begin, end


def _fault(path: str, received: str) -> str:
    return (
        f"Expected a safetensors file. Received: {path} with a {received}. "
        "It is damaged: use another checkpoint."
    )
