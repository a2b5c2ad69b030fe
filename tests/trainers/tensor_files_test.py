"""Memory-mapped safetensors: contents, laziness, and files that lie about themselves."""

import json

import ml_dtypes
import numpy as np
import pytest

from trainers.tensor_files import TensorFile, write


def write_raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        "float32",
        "float16",
        ml_dtypes.bfloat16,
        "int64",
        "int32",
        "int8",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    ],
)
def test_comes_back(tmp_path, dtype):
    tensors = {
        "a": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(1).astype(dtype),
        "empty": np.zeros((0, 4), dtype),
        "transposed": np.arange(6).reshape(2, 3).astype(dtype).T,
    }
    write(tmp_path / "x", tensors)
    found = TensorFile(tmp_path / "x")
    assert set(found) == set(tensors) and len(found) == 4
    for name, value in tensors.items():
        assert found.shape(name) == value.shape and found.dtype(name) == value.dtype
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_tensors_are_views_of_the_file(tmp_path):
    write(tmp_path / "x", {"a": np.ones(1000, np.float32)})
    found = TensorFile(tmp_path / "x")
    assert not found["a"].flags.owndata and not found["a"].flags.writeable


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[1]",
        b'"text"',
        b"[" * 100_000,
        {"a": 3},
        {"a": {}},
        {"a": ENTRY | {"dtype": "object"}},
        {"a": ENTRY | {"shape": [3]}},
        {"a": ENTRY | {"shape": [10**12]}},
        {"a": ENTRY | {"shape": [-1, -2]}},
        {"a": ENTRY | {"shape": [2.0]}},
        {"a": ENTRY | {"shape": [True, 2]}},
        {"a": ENTRY | {"data_offsets": [4, 12]}},
        {"a": ENTRY | {"data_offsets": [-8, 0]}},
        {"a": ENTRY | {"data_offsets": [8, 0]}},
        {"a": ENTRY | {"shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, header):
    path = write_raw(tmp_path / "x", header, b"\0" * 8)
    with pytest.raises(ValueError, match="Expected a safetensors file. Received: .*x with "):
        TensorFile(path)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 8, b"\xff" * 20])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="Expected a safetensors file"):
        TensorFile(tmp_path / "x")
