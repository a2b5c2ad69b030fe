"""A fused array read in parts: the same values however it is cut, from no more than it covers."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_fusion import noise as noise_module
from keras_fusion import operator
from keras_fusion.axes import Axes
from keras_fusion.errors import FusionError
from keras_fusion.noise import Noise
from keras_fusion.operator import FusedArray, fuse_arrays

KERNEL = Axes(("in", "out"), sums=("in",))
SPLIT = Axes(("in", "heads", "size"), sums=("in",))
BIAS = Axes(("out",))
# Axes, what grows, and a source's shape from its widths (n, m).
CASES = {
    "kernel": (KERNEL, {"in", "out"}, lambda n, m: (n, m)),
    "head": (KERNEL, {"in"}, lambda n, m: (n, 3)),
    "first layer": (KERNEL, {"out"}, lambda n, m: (3, m)),
    "bias": (BIAS, {"out"}, lambda n, m: (m,)),
    "bias of the head": (BIAS, {"in"}, lambda n, m: (3,)),
    "heads": (SPLIT, {"in", "heads"}, lambda n, m: (n, m, 2)),
}
NOISES = (None, Noise(0.3, "gaussian", 1), Noise(0.3, "balanced", 1))

properties = settings(max_examples=60, deadline=None, derandomize=True)


class Recorded:
    """A source that notes which of its entries were read, and how many at a time."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.read = np.zeros(array.shape, bool)
        self.largest = 0

    def __getitem__(self, index):
        self.read[index] = True
        self.largest = max(self.largest, self._array[index].size)
        return self._array[index]


@st.composite
def fusions(draw, noises=NOISES):
    """Sources, and the arguments of a fusion of them."""
    axes, grow, shape = CASES[draw(st.sampled_from(sorted(CASES)))]
    noise = draw(st.sampled_from(noises))
    widths = st.tuples(st.integers(1, 4), st.integers(1, 4))
    widths = draw(st.lists(widths, min_size=2, max_size=3))
    if noise is not None and noise.kind == "balanced":
        widths = [(widths[0][0], m) for _, m in widths]
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    dtype = draw(st.sampled_from(["float32", "float64", ml_dtypes.bfloat16]))
    sources = [rng.normal(size=shape(n, m)).astype(dtype) for n, m in widths]
    factors = draw(st.sampled_from([None, [2.0, 0.5, 1.5][: len(widths)]]))
    return sources, {"axes": axes, "grow": grow, "noise": noise, "path": "w", "factors": factors}


@st.composite
def cuts(draw, size):
    """An axis of `size` entries cut into slices."""
    ends = sorted(draw(st.sets(st.integers(1, max(1, size - 1)), max_size=3)) | {0, size})
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Tiles and pieces that the small arrays of these tests have several of."""
    monkeypatch.setattr(noise_module, "_TILE", 2)
    monkeypatch.setattr(operator, "_CHUNK", 3)


class TestRegions:
    @properties
    @given(st.data())
    def test_every_tiling_equals_the_whole(self, data):
        sources, how = data.draw(fusions())
        fused = FusedArray(sources, **how)
        whole = fuse_arrays(sources, **{k: how[k] for k in how if k != "axes"}, axes=how["axes"])
        grid = [data.draw(cuts(size)) for size in fused.shape]
        tiled = np.full(fused.shape, 77, fused.dtype)
        for index in np.ndindex(*(len(axis) for axis in grid)):
            region = tuple(axis[k] for axis, k in zip(grid, index, strict=True))
            # A region of its own each time: nothing is remembered from another one.
            tiled[region] = FusedArray(sources, **how)[region]
        np.testing.assert_array_equal(tiled, whole)
        np.testing.assert_array_equal(np.asarray(fused), whole)
        assert (fused.shape, fused.dtype) == (whole.shape, whole.dtype)
        assert (fused.ndim, fused.size, fused.nbytes) == (whole.ndim, whole.size, whole.nbytes)

    @properties
    @given(st.data())
    def test_reads_what_it_covers_and_no_more(self, data):
        """Without noise, an entry of a source is read where its place in the target is asked for.

        Where that is, is found by fusing markers: a one in a single entry of a single source.
        """
        sources, how = data.draw(fusions(noises=(None,)))
        how["factors"] = None
        region = tuple(
            data.draw(st.sampled_from(data.draw(cuts(n)))) for n in FusedArray(sources, **how).shape
        )
        recorded = [Recorded(source) for source in sources]
        FusedArray(recorded, **how)[region]
        for number, source in enumerate(sources):
            for entry in np.ndindex(*source.shape):
                markers = [np.zeros_like(source) for source in sources]
                markers[number][entry] = 1
                wanted = fuse_arrays(markers, **how)[region].astype("float64").any()
                assert recorded[number].read[entry] == wanted

    @pytest.mark.parametrize(
        "index", [..., (), slice(None), (slice(None), ...), (slice(None, None, 1), slice(None))]
    )
    def test_ways_to_ask_for_everything(self, index):
        sources = [np.ones((2, 3)), 2 * np.ones((1, 4))]
        fused = FusedArray(sources, KERNEL, {"in", "out"})
        np.testing.assert_array_equal(fused[index], np.asarray(fused))

    def test_an_index_that_is_no_region(self):
        fused = FusedArray([np.ones((2, 3))] * 2, KERNEL, {"in", "out"})
        with pytest.raises(IndexError, match="slices of step 1"):
            fused[0]

    def test_sources_are_read_piece_by_piece(self):
        sources = [Recorded(np.ones((9, 1), "float32")) for _ in range(2)]
        FusedArray(sources, KERNEL, {"in", "out"}, noise=Noise(0.1))[...]
        assert [source.largest for source in sources] == [3, 3]

    def test_a_fused_array_is_a_source(self):
        a, b, c = (np.full((1, 2), value) for value in (1.0, 2.0, 3.0))
        how = {"axes": KERNEL, "grow": {"in", "out"}}
        inner = FusedArray([a, b], **how)
        np.testing.assert_array_equal(
            FusedArray([inner, c], **how)[1:, 1:], fuse_arrays([a, b, c], **how)[1:, 1:]
        )

    def test_a_conversion_to_another_dtype(self):
        fused = FusedArray([np.ones((1, 1))] * 2, KERNEL, {"in", "out"})
        assert np.asarray(fused, "float32").dtype == "float32"
        np.testing.assert_array_equal(np.array(fused, "float32"), np.eye(2))

    def test_a_memory_mapped_file(self, tmp_path):
        np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
        mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
        fused = FusedArray([mapped, mapped], KERNEL, {"in", "out"})
        assert type(fused[:2, :3]) is np.ndarray
        np.testing.assert_array_equal(fused[2:, 3:], mapped)


class TestNoise:
    def test_only_noise_asks_for_the_size_of_the_values(self, monkeypatch):
        """A region without η in it reads what it covers, also where there is noise elsewhere."""

        def refuse(arrays):
            raise AssertionError("All sources were read.")

        monkeypatch.setattr(operator, "root_mean_square", refuse)
        fused = FusedArray([np.ones((2, 2))] * 2, KERNEL, {"in", "out"}, noise=Noise(0.1))
        np.testing.assert_array_equal(fused[:2, :2], np.ones((2, 2)))
        with pytest.raises(AssertionError, match="All sources were read"):
            fused[:2, 2:]

    def test_the_size_of_the_values_is_computed_once(self, monkeypatch):
        calls = []
        monkeypatch.setattr(operator, "root_mean_square", lambda arrays: calls.append(1) or 1.0)
        fused = FusedArray([np.ones((2, 2))] * 2, KERNEL, {"in", "out"}, noise=Noise(0.1))
        fused[:2, 2:], fused[2:, :2]
        assert len(calls) == 1

    def test_its_deviation_does_not_depend_on_the_region(self):
        sources = [np.full((2, 2), 3.0), np.full((2, 2), 4.0)]
        fused = FusedArray(sources, KERNEL, {"in", "out"}, noise=Noise(0.1))
        alone = FusedArray(sources, KERNEL, {"in", "out"}, noise=Noise(0.1))[2:, 1:2]
        np.testing.assert_array_equal(alone, np.asarray(fused)[2:, 1:2])

    @pytest.mark.parametrize("kind", ["gaussian", "balanced"])
    def test_tiles_differ_from_one_another(self, kind):
        sources = [np.ones((6, 6), "float32")] * 2
        noise = fuse_arrays(sources, KERNEL, {"in", "out"}, noise=Noise(1.0, kind))[:6, 6:]
        tiles = noise.reshape(3, 2, 3, 2).swapaxes(1, 2).reshape(9, 4)
        assert len(np.unique(tiles, axis=0)) == 9

    def test_blocks_differ_from_one_another(self):
        sources = [np.ones((2, 2), "float32")] * 3
        whole = fuse_arrays(sources, KERNEL, {"in", "out"}, noise=Noise(1.0))
        blocks = whole.reshape(3, 2, 3, 2).swapaxes(1, 2).reshape(9, 4)
        assert len(np.unique(blocks, axis=0)) == 7  # the three on the diagonal are equal

    def test_balanced_noise_over_unequal_blocks_is_refused_before_anything_is_read(self):
        sources = [Recorded(np.ones((1, 2))), Recorded(np.ones((2, 2)))]
        with pytest.raises(FusionError, match=r"`in` with widths=\(1, 2\)"):
            FusedArray(sources, KERNEL, {"in", "out"}, noise=Noise(0.1, "balanced"))
        assert not any(source.largest for source in sources)


class TestUnusableValues:
    def sources(self, value):
        a, b = np.ones((2, 2), "float32"), np.ones((2, 2), "float32")
        b[1, 0] = value
        return [a, b]

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_named_when_they_are_read(self, value):
        fused = FusedArray(self.sources(value), KERNEL, {"in", "out"}, path="enc/w")
        np.testing.assert_array_equal(fused[:3, :2], [[1, 1], [1, 1], [0, 0]])
        np.testing.assert_array_equal(fused[2:, 3:], [[1], [1]])
        with pytest.raises(FusionError, match="`enc/w` of source 1 holds 1 NaN or infinite"):
            fused[3:, 2:]

    @pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
    @pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
    def test_counted_in_every_dtype(self, dtype, value):
        limits = ml_dtypes.finfo(dtype)
        array = np.array([[-limits.max, limits.max, -0.0], [value, value, limits.eps]], dtype)
        fused = FusedArray([array] * 2, KERNEL, {"out"})
        np.testing.assert_array_equal(fused[:1, :3], array[:1])
        with pytest.raises(FusionError, match="source 0 holds 2 NaN or infinite"):
            fused[:, :3]

    def test_named_where_only_the_noise_reads_them(self):
        fused = FusedArray(self.sources(np.nan), KERNEL, {"in", "out"}, Noise(0.1), path="enc/w")
        with pytest.raises(FusionError, match="`enc/w` of a source holds NaN"):
            fused[:2, 2:]

    def test_named_in_a_mean(self):
        with pytest.raises(FusionError, match="source 1 holds 1 NaN"):
            fuse_arrays([np.ones(2), np.array([1, np.nan])], BIAS, {"in"})

    def test_sums_that_overflow_are_no_fault(self):
        large = np.full((2, 2), 3e38, "float32")
        np.testing.assert_array_equal(
            fuse_arrays([large] * 2, KERNEL, {"in"}), large[[0, 1] * 2] / 2
        )
