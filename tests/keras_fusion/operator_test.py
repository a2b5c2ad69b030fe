"""The fusion operator against answers by hand, and against what it must compute for any sources."""

import hashlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_fusion.axes import Axes
from keras_fusion.errors import FusionError
from keras_fusion.operator import (
    Noise,
    fuse_arrays,
    fused_shape,
    root_mean_square,
)

KERNEL = Axes(("in", "out"), sums=("in",))
BIAS = Axes(("out",))
TABLE = Axes(("vocab", "out"))
SCALE = Axes(("out",), averages=False)
BOTH = frozenset({"in", "out"})
HEAD = frozenset({"in"})  # the inputs grow, the outputs do not

properties = settings(max_examples=40, deadline=None, derandomize=True)
widths_of_sources = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=4
)


def random_kernels(widths, seed, outputs=None):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, outputs or m)) for n, m in widths]


class TestByHand:
    def test_two_kernels_of_unequal_widths(self):
        a = np.array([[1.0, 2.0]])
        b = np.array([[3.0], [4.0]])
        expected = [[1, 2, 0], [0, 0, 3], [0, 0, 4]]
        np.testing.assert_array_equal(fuse_arrays([a, b], KERNEL, BOTH), expected)

    def test_three_kernels(self):
        sources = [np.full((1, 1), 5.0), np.full((1, 2), 6.0), np.full((2, 1), 7.0)]
        expected = [[5, 0, 0, 0], [0, 6, 6, 0], [0, 0, 0, 7], [0, 0, 0, 7]]
        np.testing.assert_array_equal(fuse_arrays(sources, KERNEL, BOTH), expected)

    def test_biases_are_concatenated(self):
        fused = fuse_arrays([np.array([1.0, 2.0]), np.array([3.0])], BIAS, BOTH)
        np.testing.assert_array_equal(fused, [1, 2, 3])

    def test_a_norm_scale_is_concatenated(self):
        fused = fuse_arrays([np.array([1.0]), np.array([3.0])], SCALE, BOTH)
        np.testing.assert_array_equal(fused, [1, 3])

    def test_tables_are_concatenated_along_the_features(self):
        a, b = np.array([[1.0], [2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]])
        fused = fuse_arrays([a, b], TABLE, BOTH)
        np.testing.assert_array_equal(fused, [[1, 3, 4], [2, 5, 6]])

    def test_a_first_layer_shares_its_inputs(self):
        a, b = np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])
        np.testing.assert_array_equal(fuse_arrays([a, b], KERNEL, {"out"}), [[1, 3], [2, 4]])

    def test_the_head_is_stacked_and_divided_by_n(self):
        sources = [np.array([[3.0, 6.0]]), np.array([[9.0, 12.0]]), np.array([[15.0, 0.0]])]
        fused = fuse_arrays(sources, KERNEL, HEAD)
        np.testing.assert_array_equal(fused, [[1, 2], [3, 4], [5, 0]])

    def test_the_bias_of_the_head_is_the_mean(self):
        fused = fuse_arrays([np.array([1.0, 2.0]), np.array([3.0, 6.0])], BIAS, HEAD)
        np.testing.assert_array_equal(fused, [2, 4])

    def test_three_dimensions_with_one_that_stays(self):
        axes = Axes(("in", "heads", "size"), sums=("in",))
        a, b = np.full((1, 1, 2), 1.0), np.full((1, 2, 2), 2.0)
        fused = fuse_arrays([a, b], axes, {"in", "heads"})
        np.testing.assert_array_equal(fused[..., 0], [[1, 0, 0], [0, 2, 2]])
        np.testing.assert_array_equal(fused[..., 1], fused[..., 0])

    def test_factors_multiply_blocks(self):
        fused = fuse_arrays([np.ones(1), np.ones(2)], SCALE, BOTH, factors=[2.0, 0.5])
        np.testing.assert_array_equal(fused, [2, 0.5, 0.5])

    def test_sources_are_not_written_to(self):
        sources = [np.ones((2, 2)), np.ones((2, 2))]
        fuse_arrays(sources, KERNEL, BOTH, noise=Noise(1.0, "balanced"))
        for source in sources:
            np.testing.assert_array_equal(source, np.ones((2, 2)))

    def test_shape_and_widths(self):
        shapes = [(1, 2), (3, 5)]
        assert fused_shape(shapes, KERNEL, BOTH) == (4, 7)
        assert KERNEL.widths(shapes, BOTH) == {"in": (1, 3), "out": (2, 5)}
        assert fused_shape([(4, 2), (4, 5)], TABLE, BOTH) == (4, 7)
        assert TABLE.widths([(4, 2), (4, 5)], BOTH) == {"out": (2, 5)}

    def test_root_mean_square_over_all_sources(self):
        assert root_mean_square([np.array([3.0]), np.array([4.0, 0.0])]) == pytest.approx(
            (25 / 3) ** 0.5
        )


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
@pytest.mark.parametrize("grow", [BOTH, HEAD, frozenset({"out"}), frozenset()])
@pytest.mark.parametrize("kind", ["gaussian", "balanced"])
def test_dtype_is_kept(dtype, grow, kind):
    sources = [np.full((2, 2), value, dtype) for value in (1.0, 3.0)]
    fused = fuse_arrays(sources, KERNEL, grow, noise=Noise(0.1, kind))
    assert fused.dtype == np.dtype(dtype)
    assert np.isfinite(fused.astype("float64")).all()


def test_a_small_dtype_rounds_once():
    # 3 · (1/3) in float16 is 1 only if the factor is not rounded to float16 first.
    source = np.full((1, 1), 3.0, "float16")
    fused = fuse_arrays([source] * 3, KERNEL, HEAD)
    np.testing.assert_array_equal(fused, np.ones((3, 1), "float16"))


def test_the_mean_of_equal_arrays_is_exact():
    source = np.random.default_rng(0).normal(size=100).astype("float32")
    np.testing.assert_array_equal(fuse_arrays([source] * 3, BIAS, HEAD), source)


class TestProperties:
    @properties
    @given(widths_of_sources, st.integers(0, 1000))
    def test_a_body_computes_the_concatenation(self, widths, seed):
        kernels = random_kernels(widths, seed)
        rng = np.random.default_rng(seed + 1)
        inputs = [rng.normal(size=(2, n)) for n, _ in widths]
        outputs = [x @ w for x, w in zip(inputs, kernels, strict=True)]
        fused = np.concatenate(inputs, 1) @ fuse_arrays(kernels, KERNEL, BOTH)
        np.testing.assert_allclose(fused, np.concatenate(outputs, 1), atol=1e-12)

    @properties
    @given(widths_of_sources, st.integers(0, 1000))
    def test_a_head_computes_the_mean(self, widths, seed):
        kernels = random_kernels(widths, seed, outputs=3)
        rng = np.random.default_rng(seed + 1)
        inputs = [rng.normal(size=(2, n)) for n, _ in widths]
        outputs = [x @ w for x, w in zip(inputs, kernels, strict=True)]
        fused = np.concatenate(inputs, 1) @ fuse_arrays(kernels, KERNEL, HEAD)
        np.testing.assert_allclose(fused, np.mean(outputs, 0), atol=1e-12)

    @properties
    @given(widths_of_sources, st.integers(0, 1000))
    def test_fusing_in_stages_is_fusing_at_once(self, widths, seed):
        first, second, *rest = random_kernels(widths, seed)
        staged = fuse_arrays([first, second], KERNEL, BOTH)
        for kernel in rest:
            staged = fuse_arrays([staged, kernel], KERNEL, BOTH)
        at_once = fuse_arrays([first, second, *rest], KERNEL, BOTH)
        np.testing.assert_array_equal(staged, at_once)

    @properties
    @given(widths_of_sources)
    def test_every_entry_lands_once_and_the_rest_is_zero(self, widths):
        count, kernels = 0, []
        for n, m in widths:
            kernels.append(np.arange(count + 1, count + n * m + 1).reshape(n, m))
            count += n * m
        fused = fuse_arrays([kernel.astype("float64") for kernel in kernels], KERNEL, BOTH)
        assert fused.shape == tuple(np.sum(widths, axis=0))
        np.testing.assert_array_equal(np.sort(fused[fused != 0]), np.arange(1, count + 1))
        positions = KERNEL.slices(
            fused.shape, {"in": [n for n, _ in widths], "out": [m for _, m in widths]}
        )
        for kernel, position in zip(kernels, positions, strict=True):
            np.testing.assert_array_equal(fused[position], kernel)


class TestGaussianNoise:
    def test_fills_only_the_zero_blocks(self):
        sources = random_kernels([(2, 3), (4, 1), (3, 3)], seed=0)
        clean = fuse_arrays(sources, KERNEL, BOTH)
        noisy = fuse_arrays(sources, KERNEL, BOTH, noise=Noise(0.5), path="w")
        np.testing.assert_array_equal(noisy[clean != 0], clean[clean != 0])
        assert (noisy[clean == 0] != 0).all()

    @pytest.mark.parametrize("array_axes", [(BIAS, BOTH), (BIAS, HEAD), (SCALE, BOTH)])
    def test_leaves_what_has_no_zero_block(self, array_axes):
        axes, grow = array_axes
        source = np.arange(1.0, 4.0)
        clean = fuse_arrays([source] * 2, axes, grow)
        noisy = fuse_arrays([source] * 2, axes, grow, noise=Noise(0.5))
        np.testing.assert_array_equal(noisy, clean)

    def test_its_deviation_is_relative_to_the_sources(self):
        rng = np.random.default_rng(0)
        sources = [rng.normal(scale=scale, size=(200, 200)) for scale in (3.0, 4.0)]
        noise = fuse_arrays(sources, KERNEL, BOTH, noise=Noise(0.1), path="w")[:200, 200:]
        assert noise.std() == pytest.approx(0.1 * (12.5**0.5), rel=0.02)
        assert abs(noise.mean()) < 0.01

    def test_large_arrays_are_drawn_in_pieces_that_differ(self):
        sources = [np.ones((1100, 1000), "float32")] * 2
        noise = fuse_arrays(sources, KERNEL, BOTH, noise=Noise(1.0))[:1100, 1000:]
        assert noise.std() == pytest.approx(1.0, rel=0.01)
        assert not np.array_equal(noise[:50], noise[-50:])


class TestBalancedNoise:
    @pytest.mark.parametrize("n", [2, 3])
    @pytest.mark.parametrize("grow", [BOTH, HEAD])
    def test_sums_to_zero_over_the_input_blocks_of_every_output(self, n, grow):
        sources = [np.full((4, 5), 2.0)] * n
        noise = fuse_arrays(sources, KERNEL, grow, noise=Noise(0.3, "balanced"), path="w")
        noise = noise - fuse_arrays(sources, KERNEL, grow)
        blocks = noise.reshape(n, 4, -1)
        np.testing.assert_allclose(blocks.sum(0), 0, atol=1e-6)
        assert (blocks != 0).all()

    @pytest.mark.parametrize("n", [2, 3])
    @pytest.mark.parametrize("grow", [BOTH, HEAD])
    def test_keeps_the_function_of_equal_copies_and_parts_them(self, n, grow):
        rng = np.random.default_rng(0)
        kernel, x = rng.normal(size=(4, 5)), rng.normal(size=(3, 4))
        fused = fuse_arrays([kernel] * n, KERNEL, grow, noise=Noise(0.3, "balanced"), path="w")
        output = np.tile(x, (1, n)) @ fused
        np.testing.assert_allclose(
            output, np.tile(x @ kernel, (1, n if grow is BOTH else 1)), atol=1e-5
        )
        copies = fused.reshape(n, 4, -1)
        assert np.abs(copies[0, :, :5] - copies[1, :, -5:]).max() > 0.01

    def test_its_deviation_is_that_asked_for(self):
        sources = [np.zeros((200, 200)) + 2.0] * 2
        fused = fuse_arrays(sources, KERNEL, BOTH, noise=Noise(0.1, "balanced"))
        for noise in (fused[:200, :200] - 2, fused[:200, 200:], fused[200:, :200]):
            assert noise.std() == pytest.approx(0.2, rel=0.02)
        head = fuse_arrays(sources, KERNEL, HEAD, noise=Noise(0.1, "balanced"))
        assert (head - 1).std() == pytest.approx(0.1, rel=0.02)

    def test_leaves_what_sums_over_nothing(self):
        table = np.random.default_rng(0).normal(size=(4, 2))
        noisy = fuse_arrays([table] * 2, TABLE, BOTH, noise=Noise(0.3, "balanced"))
        np.testing.assert_array_equal(noisy, fuse_arrays([table] * 2, TABLE, BOTH))

    def test_input_blocks_of_unequal_widths(self):
        with pytest.raises(FusionError, match=r"in enc/w.*`in` with widths=\(1, 2\).*gaussian"):
            fuse_arrays(
                [np.ones((1, 2)), np.ones((2, 2))],
                KERNEL,
                BOTH,
                noise=Noise(0.1, "balanced"),
                path="enc/w",
            )

    def test_output_blocks_of_unequal_widths_are_fine(self):
        sources = [np.ones((2, 1)), np.ones((2, 3))]
        noisy = fuse_arrays(sources, KERNEL, BOTH, noise=Noise(0.1, "balanced"))
        noise = noisy - fuse_arrays(sources, KERNEL, BOTH)
        np.testing.assert_allclose(noise[:2] + noise[2:], 0, atol=1e-6)


class TestTheSameSeedEverywhere:
    """Arrays written out: they must come back on every machine, whatever the Keras backend."""

    GAUSSIAN = "1de6342ddbb2cbfd"
    BALANCED = "2514bbe7184c68a3"

    @staticmethod
    def fused(kind, seed=7, path="encoder/kernel", shape=(3, 5)):
        sources = [np.ones(shape, "float32")] * 2
        return fuse_arrays(sources, KERNEL, BOTH, noise=Noise(0.1, kind, seed), path=path)

    @pytest.mark.parametrize(("kind", "digest"), [("gaussian", GAUSSIAN), ("balanced", BALANCED)])
    def test_digest(self, kind, digest):
        array = self.fused(kind).astype("<f4")
        assert hashlib.sha256(array.tobytes()).hexdigest()[:16] == digest

    def test_values(self):
        values = [-0.059157926589250565, -0.2404797077178955, 0.25814089179039]
        np.testing.assert_allclose(self.fused("gaussian")[0, 5:8], values, rtol=1e-6)

    @pytest.mark.parametrize("kind", ["gaussian", "balanced"])
    def test_seed_and_path_decide(self, kind):
        first = self.fused(kind)
        np.testing.assert_array_equal(first, self.fused(kind))
        assert not np.array_equal(first, self.fused(kind, seed=8))
        assert not np.array_equal(first, self.fused(kind, path="decoder/kernel"))


class TestErrors:
    def test_one_source(self):
        with pytest.raises(FusionError, match="w takes at least two sources. Received: 1"):
            fuse_arrays([np.ones((1, 1))], KERNEL, BOTH, path="w")

    def test_dtypes_that_differ(self):
        with pytest.raises(FusionError, match=r"one dtype. Received: \['float32', 'float64'\]"):
            fuse_arrays([np.ones((1, 1), "float32"), np.ones((1, 1))], KERNEL, BOTH)

    def test_an_axis_that_does_not_grow_differs(self):
        with pytest.raises(FusionError, match=r"`vocab` does not grow.*sizes=\(4, 5\)"):
            fuse_arrays([np.ones((4, 1)), np.ones((5, 1))], TABLE, BOTH)

    def test_ranks_that_do_not_fit(self):
        with pytest.raises(FusionError, match=r"\('in', 'out'\).*\[\(1,\), \(1, 1\)\]"):
            fuse_arrays([np.ones(1), np.ones((1, 1))], KERNEL, BOTH)

    def test_a_shared_norm_scale_that_differs(self):
        with pytest.raises(FusionError, match="no growing axis and does not average"):
            fuse_arrays([np.ones(2), np.zeros(2)], SCALE, frozenset())
        np.testing.assert_array_equal(
            fuse_arrays([np.ones(2), np.ones(2)], SCALE, frozenset()), np.ones(2)
        )

    @pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
    def test_noise_that_is_no_deviation(self, scale):
        with pytest.raises(ValueError, match=f"at least 0. Received: noise={scale}"):
            Noise(scale)

    def test_an_unknown_kind_of_noise(self):
        with pytest.raises(ValueError, match="'balanced'.*noise_kind='uniform'"):
            Noise(0.1, "uniform")
