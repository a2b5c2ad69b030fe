"""Weights born from arrays, and layers that hold none."""

import keras
import numpy as np
import pytest

from keras_fusion.axes import Axes
from keras_fusion.errors import FusionError
from keras_fusion.layers import FusableDense, FusableEmbedding, FusableMultiHeadAttention
from keras_fusion.layers.tree import values_of
from keras_fusion.layers.values import ArrayInitializer, array_of, born_as, deferred, misfits
from keras_fusion.operator import FusedArray

PETABYTE = (10**9, 10**6)


class TestArrayInitializer:
    def test_returns_the_array(self):
        array = np.arange(6.0, dtype="float32").reshape(2, 3)
        variable = keras.Variable(ArrayInitializer(array), shape=(2, 3), dtype="float32")
        np.testing.assert_array_equal(variable, array)

    def test_of_a_fused_array(self):
        fused = FusedArray([np.ones(1, "float32"), np.zeros(2, "float32")], Axes(("out",)), {"out"})
        variable = keras.Variable(ArrayInitializer(fused), shape=(3,), dtype="float32")
        np.testing.assert_array_equal(variable, [1, 0, 0])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_takes_the_dtype_of_the_variable(self, dtype):
        made = ArrayInitializer(np.ones(2, "float32"))((2,), dtype=dtype)
        assert made.dtype.name == dtype

    def test_shares_no_memory_with_the_array(self, tmp_path):
        np.save(tmp_path / "a.npy", np.ones(64, "float32"))
        mapped = np.load(tmp_path / "a.npy", mmap_mode="r+")
        variable = keras.Variable(ArrayInitializer(mapped), shape=(64,), dtype="float32")
        mapped[:] = 5
        np.testing.assert_array_equal(variable, np.ones(64))
        variable.assign(np.zeros(64))
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.full(64, 5))

    def test_another_shape(self):
        with pytest.raises(FusionError, match=r"shape \(2,\) cannot be a weight of shape \(3,\)"):
            ArrayInitializer(np.ones(2))((3,), dtype="float32")


class TestBornAs:
    def test_weights_are_the_arrays_and_others_as_usual(self):
        layer = FusableDense(2, bias_initializer="ones")
        with born_as(layer, {"kernel": np.full((3, 2), 7.0)}) as made:
            layer.build((None, 3))
        np.testing.assert_array_equal(layer.kernel, np.full((3, 2), 7))
        np.testing.assert_array_equal(layer.bias, np.ones(2))
        assert made == {"kernel"}

    def test_sublayers_by_their_paths(self):
        layer = FusableMultiHeadAttention(1, 2, output_shape=3)
        with born_as(layer, {"query/kernel": np.full((3, 2), 7.0)}):
            layer.build((None, 4, 3), (None, 4, 3))
        np.testing.assert_array_equal(layer.query.kernel, np.full((3, 2), 7))

    def test_it_ends_where_building_fails(self):
        layer = FusableDense(2)
        with pytest.raises(FusionError), born_as(layer, {"kernel": np.ones((1, 1))}):
            layer.build((None, 3))
        layer.build((None, 3))
        assert layer.kernel.shape == (3, 2)


class TestDeferred:
    def test_takes_no_memory(self):
        with deferred():
            layer = FusableEmbedding(*PETABYTE)
            layer.build()
        assert tuple(layer.embeddings.shape) == PETABYTE

    def test_what_is_built_in_it_stays_so(self):
        """Keras makes up for what stateless scopes put off when the next of them closes."""
        with deferred():
            FusableEmbedding(*PETABYTE).build()
        with keras.StatelessScope():
            pass
        with deferred(), pytest.raises(KeyError):
            FusableEmbedding(*PETABYTE).build()
            raise KeyError
        with keras.StatelessScope():
            pass

    def test_inside_another_scope_that_initialises(self):
        with keras.StatelessScope():
            inner = FusableDense(2)
            inner.build((None, 3))
            with deferred():
                FusableEmbedding(*PETABYTE).build()
        assert keras.ops.convert_to_numpy(inner.kernel).shape == (3, 2)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.one_backend
    def test_a_large_weight_is_its_array(self, dtype):
        # 73 MB, or 64.1 MiB in bfloat16: rows that no part divides.
        rows = {"float32": 2**15 + 3, "bfloat16": 2**16 + 77}[dtype]
        array = np.random.default_rng(0).normal(size=(rows, 520)).astype("float32")
        layer = FusableEmbedding(*array.shape, dtype=dtype)
        with born_as(layer, {"embeddings": array}):
            layer.build()
        expected = array.astype(keras.ops.convert_to_numpy(layer.embeddings.value).dtype)
        np.testing.assert_array_equal(array_of(layer.embeddings), expected)

    def test_the_array_of_a_variable(self):
        array = np.ones((3, 2), "float32")
        layer = FusableDense(2, bias_initializer="ones")
        with deferred(), born_as(layer, {"kernel": array}):
            layer.build((None, 3))
        assert array_of(layer.kernel) is array
        np.testing.assert_array_equal(array_of(layer.bias), np.ones(2))
        built = FusableDense(2, bias_initializer="ones")
        built.build((None, 3))
        np.testing.assert_array_equal(array_of(built.bias), np.ones(2))


def test_misfits_are_all_named():
    layer = FusableDense(2)
    layer.build((None, 3))
    assert misfits(layer, {"kernel": np.ones((3, 2)), "bias": np.ones(2)}) == []
    assert misfits(layer, {"kernel": np.ones((3, 1)), "scale": np.ones(4)}) == [
        "missing `bias` (2,)",
        "unknown `scale` (4,)",
        "`kernel` expected (3, 2), got (3, 1)",
    ]


def test_values_of_a_layer_that_stands_twice_are_one():
    a, b = FusableDense(2), FusableDense(2)
    a.build((None, 3)), b.build((None, 3))
    first, second, third = values_of([a, b, a])
    assert first is third and first is not second
    assert set(first) == {"kernel", "bias"} and len(first) == 2
    assert "kernel" in first and "scale" not in first
    np.testing.assert_array_equal(second["kernel"], b.kernel)
