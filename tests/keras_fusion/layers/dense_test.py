"""Dense, einsum-dense and embedding layers: the contract, and answers by hand."""

import keras
import numpy as np
import pytest

from keras_fusion.errors import FusionError
from keras_fusion.layers import FusableDense, FusableEinsumDense, FusableEmbedding
from tests.keras_fusion.fusion_contract import (
    built,
    gradients_of_the_sum,
    numpy,
    random_inputs,
    run_fusion_test,
)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("shape", [(2000, 4), (2, 1000, 4)])
@pytest.mark.parametrize(
    "layer",
    [
        lambda **options: FusableDense(3, **options),
        lambda **options: FusableEinsumDense("...a,ab->...b", 3, bias_axes="b", **options),
    ],
)
def test_gradients_of_a_bias_add_up_with_mixed_precision(layer, shape, dtype):
    """Added up in bfloat16 one after the other they end at 256."""
    layer = layer(dtype=dtype)
    _, gradient = gradients_of_the_sum(layer, np.ones(shape, "float32"))
    np.testing.assert_allclose(gradient, [2000] * 3, rtol=0.01)


class TestDense:
    def test_contract(self, tmp_path):
        run_fusion_test(
            FusableDense,
            {"units": 3, "activation": "relu"},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 4)],
            other_kwargs={"units": 2},
            other_shapes=[(2, 5, 3)],
            keras_class=keras.layers.Dense,
            mismatch=({"activation": "tanh", "units": 4}, "activation: relu vs tanh"),
        )

    @pytest.mark.one_backend
    def test_contract_of_a_first_layer(self, tmp_path):
        run_fusion_test(
            FusableDense,
            {"units": 3, "use_bias": False},
            tmp_path=tmp_path,
            input_shapes=[(2, 4)],
            other_kwargs={"units": 2},
            input_axis=None,
            grow={"output"},
            mismatch=({"use_bias": True}, "use_bias: False vs True"),
            masking=False,
        )

    @pytest.mark.one_backend
    def test_contract_of_a_head(self, tmp_path):
        run_fusion_test(
            FusableDense,
            {"units": 3},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 4)],
            other_shapes=[(2, 5, 3)],
            output_axis=None,
            grow={"input"},
            mismatch=({"units": 4}, "units: 3 vs 4"),
        )

    def test_more_axes_and_an_activation_over_another_one(self):
        inputs = keras.random.normal((2, 3, 4, 5), seed=0)
        for activation in (None, lambda x: keras.ops.softmax(x, axis=1)):
            ours, theirs = (
                kind(6, activation=activation) for kind in (FusableDense, keras.layers.Dense)
            )
            ours.build(inputs.shape)
            theirs.build(inputs.shape)
            theirs.set_weights(ours.get_weights())
            expected = keras.ops.convert_to_numpy(theirs(inputs))
            outputs = keras.ops.convert_to_numpy(ours(inputs))
            np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)

    def test_three_sources_and_a_fused_one(self):
        widths = [(2, 3), (3, 1), (1, 2)]
        inputs = [random_inputs([(2, n)], seed=n)[0] for n, _ in widths]
        sources = [built(FusableDense(m), [x], m) for (_, m), x in zip(widths, inputs, strict=True)]
        expected = np.concatenate(
            [numpy(layer(x)) for layer, x in zip(sources, inputs, strict=True)], 1
        )
        at_once = sources[0].fuse(*sources[1:])
        staged = sources[0].fuse(sources[1]).fuse(sources[2])
        for fused in (at_once, staged):
            np.testing.assert_allclose(numpy(fused(np.concatenate(inputs, 1))), expected, rtol=1e-5)
        assert at_once.blocks == {"input": (2, 3, 1), "output": (3, 1, 2)}
        assert staged.blocks == {"input": (5, 1), "output": (4, 2)}

    @pytest.mark.one_backend
    def test_all_mismatches_are_named_at_once(self):
        a = built(FusableDense(3, activation="relu"), random_inputs([(2, 4)]))
        b = built(FusableDense(3, activation="tanh", use_bias=False), random_inputs([(2, 4)]))
        with pytest.raises(FusionError) as error:
            a.fuse(b, grow={"input"})
        assert "activation: relu vs tanh" in str(error.value)
        assert "use_bias: True vs False" in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.one_backend
    def test_inputs_that_do_not_grow_must_have_one_width(self):
        a = built(FusableDense(3), random_inputs([(2, 4)]))
        b = built(FusableDense(3), random_inputs([(2, 5)]))
        with pytest.raises(FusionError, match=r"`kernel`: axis `input`.*sizes=\(4, 5\)"):
            a.fuse(b, grow={"output"})

    @pytest.mark.one_backend
    def test_dtype_policies_must_agree(self):
        a = built(FusableDense(3), random_inputs([(2, 4)]))
        b = built(FusableDense(3, dtype="float16"), random_inputs([(2, 4)]))
        with pytest.raises(FusionError, match="dtype: float32 vs float16"):
            a.fuse(b)

    @pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_weights_keep_their_dtype(self, dtype):
        layer = built(FusableDense(3, dtype=dtype), random_inputs([(2, 4)]))
        if layer.kernel.dtype != dtype:
            pytest.skip(f"This backend has no {dtype} switched on.")
        fused = layer.fuse(layer, noise=0.1)
        assert {weight.dtype for weight in fused.weights} == {dtype}

    @pytest.mark.one_backend
    def test_axes_of_the_wrong_number(self):
        with pytest.raises(ValueError, match=r"\('input', 'output'\).*axes=\('a',\)"):
            FusableDense(3, axes=("a",))

    @pytest.mark.one_backend
    def test_an_adapter_has_no_declared_axes(self):
        layer = built(FusableDense(3), random_inputs([(2, 4)]))
        layer.enable_lora(2)
        with pytest.raises(FusionError, match="declares no axes"):
            layer.fuse(layer)


class TestEinsumDense:
    def test_contract_of_a_projection_to_heads(self, tmp_path):
        run_fusion_test(
            FusableEinsumDense,
            {"equation": "abc,cde->abde", "output_shape": (None, 2, 4), "bias_axes": "de"},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 3)],
            other_kwargs={"output_shape": (None, 1, 4)},
            other_shapes=[(2, 5, 2)],
            output_axis=2,
            keras_class=keras.layers.EinsumDense,
            mismatch=({"output_shape": (None, 2, 3)}, r"`kernel`: axis `e`.*sizes=\(4, 3\)"),
            masking=False,
        )

    @pytest.mark.one_backend
    def test_contract_of_a_projection_from_heads(self, tmp_path):
        run_fusion_test(
            FusableEinsumDense,
            {"equation": "abde,dec->abc", "output_shape": (None, 3), "bias_axes": "c"},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 2, 4)],
            other_kwargs={"output_shape": (None, 2)},
            other_shapes=[(2, 5, 1, 4)],
            input_axis=2,
            keras_class=keras.layers.EinsumDense,
            mismatch=({"bias_axes": None}, "bias_axes: c vs None"),
            masking=False,
        )

    @pytest.mark.one_backend
    def test_contract_of_a_head_with_an_ellipsis(self, tmp_path):
        run_fusion_test(
            FusableEinsumDense,
            {"equation": "...x,xy->...y", "output_shape": 3, "bias_axes": "y"},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 4)],
            output_axis=None,
            grow={"x"},
            keras_class=keras.layers.EinsumDense,
            masking=False,
        )

    @pytest.mark.one_backend
    def test_contract_of_a_kernel_for_every_position(self, tmp_path):
        run_fusion_test(
            FusableEinsumDense,
            {"equation": "abc,bcd->abd", "output_shape": (5, 3), "bias_axes": "bd"},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 4)],
            other_kwargs={"output_shape": (5, 2)},
            other_shapes=[(2, 5, 3)],
            keras_class=keras.layers.EinsumDense,
            masking=False,
        )

    @pytest.mark.one_backend
    def test_a_bias_that_cannot_tell_the_sources_apart(self):
        def layer(seed):
            layer = FusableEinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="e")
            return built(layer, random_inputs([(2, 5, 3)]), seed)

        with pytest.raises(FusionError, match="its bias does not vary along `d`"):
            layer(0).fuse(layer(1))
        x = random_inputs([(2, 5, 3)])[0]
        twice = numpy(layer(0).fuse(layer(0), noise=0.1, noise_kind="balanced")(np.tile(x, 2)))
        np.testing.assert_allclose(twice, np.tile(numpy(layer(0)(x)), (1, 1, 2, 1)), atol=1e-5)


class TestEmbedding:
    def test_contract(self, tmp_path):
        run_fusion_test(
            FusableEmbedding,
            {"input_dim": 7, "output_dim": 3, "mask_zero": True},
            tmp_path=tmp_path,
            input_shapes=[(2, 5)],
            other_kwargs={"output_dim": 2},
            input_axis=None,
            vocabulary=7,
            keras_class=keras.layers.Embedding,
            mismatch=({"input_dim": 9, "mask_zero": False}, "input_dim: 7 vs 9.*mask_zero: True"),
        )

    def test_gradients_of_a_frequent_token_add_up_with_mixed_precision(self):
        """Added up in bfloat16 they end at 256: one more is less than its last digit."""
        layer = FusableEmbedding(
            3, 2, dtype="mixed_bfloat16", embeddings_initializer="zeros", name="table"
        )
        tokens = np.array([[1] * 1000 + [2]], "int32")
        (gradient,) = gradients_of_the_sum(layer, tokens)
        np.testing.assert_array_equal(gradient, [[0, 0], [1000, 1000], [1, 1]])
