"""Safetensors: contents, laziness, digests, and files that lie about themselves."""

import hashlib
import json
import os
import resource

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.checkpoints.tensors import read, write


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
    expected = {
        "a": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(1).astype(dtype),
        "empty": np.zeros((0, 4), dtype),
        "transposed": np.arange(6).reshape(2, 3).astype(dtype).T,
    }
    write(tmp_path / "x", expected)
    arrays = read(tmp_path / "x")
    assert set(arrays) == set(expected) and len(arrays) == 4
    for name, value in expected.items():
        assert arrays[name].shape == value.shape and arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)


def test_the_safetensors_package_reads_it(tmp_path):
    rng = np.random.default_rng(0)
    expected = {
        "b": rng.normal(size=(3, 5)).astype(np.float32),
        "a/ü": np.arange(7, dtype=np.int8),
        "half": rng.normal(size=(4, 2)).astype(np.float16),
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 4), np.int16),
        "turned": rng.normal(size=(2, 3, 4)).T,
    }
    write(tmp_path / "x", expected)
    arrays = safetensors.numpy.load_file(tmp_path / "x")
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)


def test_reads_what_the_safetensors_package_wrote(tmp_path):
    expected = {"b": np.arange(3, dtype=np.int8), "a": np.arange(6.0).reshape(2, 3)}
    safetensors.numpy.save_file(expected, tmp_path / "x", metadata={"format": "np"})
    arrays = read(tmp_path / "x")
    assert set(arrays) == {"a", "b"}
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value)


def test_nothing_to_write_is_a_file_too(tmp_path):
    write(tmp_path / "x", {})
    assert read(tmp_path / "x") == {}


def test_the_digest_is_that_of_the_file(tmp_path):
    digest = write(tmp_path / "x", {"a": np.arange(100.0), "b": np.arange(3)})
    content = (tmp_path / "x").read_bytes()
    assert digest == (hashlib.sha256(content).hexdigest(), len(content))
    np.testing.assert_array_equal(read(tmp_path / "x", digest)["a"], np.arange(100.0))


def test_pieces_are_written_and_hashed_in_their_order(tmp_path):
    """Files of many pieces, which two threads use while the next ones are computed."""
    array = np.arange(6 << 22, dtype="uint32").view("uint8").reshape(-1, 1 << 20)[:24]
    digest = write(tmp_path / "x", {"a": array, "b": array[::-1]})
    content = (tmp_path / "x").read_bytes()
    assert digest.sha256 == hashlib.sha256(content).hexdigest()
    assert content.endswith(array.tobytes() + array[::-1].tobytes())


def test_what_an_array_raises_comes_through(tmp_path):
    class Broken:
        shape, dtype = (2, 1 << 22), np.dtype("uint8")

        def __getitem__(self, region):
            if region[0].start:
                raise ValueError("no second row")
            return np.zeros((1, 1 << 22), "uint8")

    with pytest.raises(ValueError, match="no second row"):
        write(tmp_path / "x", {"a": Broken()})


@pytest.mark.parametrize(
    ("wrong", "received"),
    [({"sha256": "0" * 64}, "with changed bytes"), ({"bytes": 8}, "of 88 bytes, not 8")],
)
def test_another_digest_is_refused(tmp_path, wrong, received):
    digest = write(tmp_path / "x", {"a": np.arange(3.0)})
    with pytest.raises(ValueError, match=f"Received: .*x {received}. It is damaged"):
        read(tmp_path / "x", digest._replace(**wrong))


def test_a_dtype_that_the_format_lacks_is_refused(tmp_path):
    for value in (np.array(["a"]), np.array([1], ">i4"), np.array([1j]), np.array([None])):
        with pytest.raises(ValueError, match="Received: 'a' of"):
            write(tmp_path / str(value.dtype.char), {"a": value})


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "__metadata__"])
def test_a_name_that_could_not_be_read_back_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="Expected a printable name"):
        write(tmp_path / "x", {name: np.ones(1)})


def test_tensors_are_views_of_the_file(tmp_path):
    write(tmp_path / "x", {"a": np.ones(1000, np.float32)})
    arrays = read(tmp_path / "x")
    assert not arrays["a"].flags.owndata and not arrays["a"].flags.writeable


def resident():
    """Bytes of files that this process holds in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[2]) * resource.getpagesize()


def test_a_slice_reads_only_what_it_covers(tmp_path):
    write(tmp_path / "x", {"a": np.ones((64, 1 << 18), np.float32)})
    rows = read(tmp_path / "x")["a"]
    before = resident()
    assert rows[5:7].sum() == 2 << 18
    # Two rows of a megabyte, and what the kernel reads ahead; never all 64.
    assert resident() - before < 16 << 20


def test_a_removed_file_stays_readable(tmp_path):
    write(tmp_path / "x", {"a": np.ones(1000)})
    arrays = read(tmp_path / "x")
    os.unlink(tmp_path / "x")
    assert arrays["a"].sum() == 1000


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BYTE = {"dtype": "U8", "shape": [1]}
HUGE = 10**4000


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
        # Products that overflow 64 bits, to 8 bytes or to none.
        {"a": ENTRY | {"shape": [2**32, 2**32, 2]}},
        {"a": ENTRY | {"shape": [2**62 + 2]}},
        {"a": ENTRY, "b": ENTRY | {"shape": [0, 2**62, 2**62], "data_offsets": [8, 8]}},
        {"a": ENTRY | {"shape": [HUGE]}},
        {"a": ENTRY | {"shape": [HUGE] * 900}},
        {"a": ENTRY | {"data_offsets": [0, HUGE]}},
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 10_000 + b'], "data_offsets": [0, 8]}}',
        {"a": ENTRY | {"shape": [1] * 100 + [2]}},
        # Overlaps, holes, and bytes that are nobody's.
        {"a": ENTRY, "b": ENTRY},
        {"a": ENTRY, "b": BYTE | {"data_offsets": [7, 8]}},
        {"a": BYTE | {"shape": [5], "data_offsets": [0, 5]}, "b": BYTE | {"data_offsets": [7, 8]}},
        {"a": BYTE | {"data_offsets": [7, 8]}},
        {"a": BYTE | {"data_offsets": [0, 1]}},
        {"a": ENTRY, "b": BYTE | {"shape": [0], "data_offsets": [4, 4]}},
        {"a": ENTRY, "b": BYTE | {"shape": [0], "data_offsets": [9, 9]}},
        {},
        # What JSON readers take differently.
        b'{"a": %s, "a": %s}' % ((json.dumps(ENTRY).encode(),) * 2),
        b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2e0], "data_offsets": [0, 8]}}',
        b'\xff\xfe{"a": 1}',
        b'{"__metadata__": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        {"a": ENTRY | {"data_offsets": [0, 4, 8]}},
        {"a": ENTRY | {"data_offsets": {"0": 0, "8": 8}}},
        {"a": ENTRY | {"shape": "2"}},
        {"a": ENTRY | {"dtype": ["F32"]}},
        {"a": [ENTRY]},
        # Names that would change what a terminal shows, or break a line.
        {"a\nb": ENTRY},
        {"\x1b[2J": ENTRY},
        {"\ud800": ENTRY},
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, header):
    path = write_raw(tmp_path / "x", header, b"\0" * 8)
    with pytest.raises(ValueError, match="Expected a safetensors file. Received: .*x with ") as e:
        read(path)
    assert str(e.value).isprintable() and len(str(e.value)) < 1000


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a b", "ü", "", "__proto__"])
def test_names_are_only_names(tmp_path, name):
    path = write_raw(tmp_path / "x", {name: ENTRY}, np.ones(2, np.float32).tobytes())
    np.testing.assert_array_equal(read(path)[name], np.ones(2))
    assert os.listdir(tmp_path) == ["x"]


def test_tensors_that_are_not_aligned_come_back(tmp_path):
    header = {
        "a": BYTE | {"data_offsets": [0, 1]},
        "b": ENTRY | {"data_offsets": [1, 9]},
    }
    path = write_raw(tmp_path / "x", header, b"\7" + np.array([1, 2], np.float32).tobytes())
    np.testing.assert_array_equal(read(path)["b"], [1, 2])


def test_a_header_of_many_megabytes_is_not_even_read(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        file.write((50_000_000).to_bytes(8, "little"))
        file.truncate(60_000_000)
    with pytest.raises(ValueError, match="header of 50000000 bytes"):
        read(tmp_path / "x")


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "device", "absent"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        write(tmp_path / "real", {})
        path.symlink_to(tmp_path / "real")
    elif kind == "device":
        path = "/dev/zero"
    with pytest.raises(ValueError, match="that cannot be read"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 8, b"\xff" * 20])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="Expected a safetensors file"):
        read(tmp_path / "x")


DTYPES = {"F64": "f8", "F32": "f4", "BF16": "u2", "I16": "i2", "U64": "u8", "BOOL": "?"}
NUMBERS = st.one_of(
    st.integers(-2, 20), st.sampled_from([2**31, 2**63 - 1, 2**64, HUGE, 1.0, True, None, "3"])
)
VALUES = st.one_of(
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from([*DTYPES, "F4", "F8_E4M3", "C64", 3]),
            "shape": st.lists(NUMBERS, max_size=4),
            "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
        }
    ),
    st.recursive(NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
)


@st.composite
def headers(draw):
    """Headers that are right, right but for one value, or all wrong."""
    entries, begin = {}, 0
    for name in draw(st.lists(st.text(max_size=3), unique=True, max_size=4)):
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        end = begin + int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    if draw(st.booleans()) and entries:
        entries[draw(st.sampled_from(sorted(entries)))] = draw(VALUES)
    wrong = draw(st.just(entries) | st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
    return json.dumps(wrong).encode(), begin + draw(st.sampled_from([0, 0, 0, -1, 1]))


@settings(max_examples=100, deadline=None)
@given(header=headers() | st.tuples(st.binary(max_size=60), st.integers(0, 9)), shift=NUMBERS)
def test_any_header_is_refused_or_gives_arrays_inside_the_file(tmp_path_factory, header, shift):
    text, size = header
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    length = len(text) + (shift if type(shift) is int and abs(shift) < 3 else 0)
    path.write_bytes(max(length, 0).to_bytes(8, "little") + text + bytes(max(size, 0)))
    try:
        arrays = read(path)
    except ValueError as error:
        assert "Expected a safetensors file" in str(error) and "\n" not in str(error)
        return
    # The package's own reader takes it to be the same.
    peers = safetensors.deserialize(path.read_bytes())
    assert {name: value["shape"] for name, value in peers} == {
        name: list(value.shape) for name, value in arrays.items()
    }
    assert sum(value.nbytes for value in arrays.values()) <= max(size, 0)
    for name, value in peers:
        assert not arrays[name].flags.owndata and arrays[name].tobytes() == bytes(value["data"])
