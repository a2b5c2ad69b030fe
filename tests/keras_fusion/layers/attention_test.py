"""Attention and relative position bias: the contract, Keras' own layer, buckets by hand."""

import functools
import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.errors import FusionError
from keras_fusion.layers import (
    FusableMultiHeadAttention,
    FusableRelativePositionBias,
    flash_attention,
)
from tests.keras_fusion.fusion_contract import (
    built,
    gradients_of_the_sum,
    numpy,
    random_inputs,
    run_fusion_test,
)


def to_keras(heads, key_dim, value_dim=None, bias=True):
    """Reshapes our matrices to the tensors (features, heads, size) of Keras' layer."""
    value_dim = value_dim or key_dim

    def convert(weights):
        kernels, biases = (weights[::2], weights[1::2]) if bias else (weights, [None] * 4)
        sizes = (key_dim, key_dim, value_dim)
        converted = []
        for kernel, vector, size in zip(kernels, biases, sizes, strict=False):
            converted.append(kernel.reshape(kernel.shape[0], heads, size))
            converted += [] if vector is None else [vector.reshape(heads, size)]
        converted.append(kernels[3].reshape(heads, value_dim, -1))
        return converted + ([biases[3]] if bias else [])

    return convert


def attention_and_peer(inputs, bias=True, **kwargs):
    ours = built(FusableMultiHeadAttention(2, 3, use_bias=bias, **kwargs), inputs)
    peer = keras.layers.MultiHeadAttention(2, 3, use_bias=bias, **kwargs)
    peer(*inputs, return_attention_scores=True)
    peer.set_weights(to_keras(2, 3, kwargs.get("value_dim"), bias)(ours.get_weights()))
    return ours, peer


class TestContract:
    def test_with_biases(self, tmp_path):
        run_fusion_test(
            FusableMultiHeadAttention,
            {"num_heads": 2, "key_dim": 3},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 4), (2, 6, 4)],
            other_kwargs={"num_heads": 1},
            other_shapes=[(2, 5, 3), (2, 6, 3)],
            keras_class=keras.layers.MultiHeadAttention,
            to_keras=to_keras(2, 3),
            mismatch=({"key_dim": 5, "use_bias": False}, "key_dim: 3 vs 5.*use_bias: True"),
        )

    @pytest.mark.one_backend
    def test_like_t5_without_bias_and_scale(self, tmp_path):
        run_fusion_test(
            FusableMultiHeadAttention,
            {"num_heads": 2, "key_dim": 3, "value_dim": 4, "use_bias": False, "use_scale": False},
            tmp_path=tmp_path,
            input_shapes=[(2, 5, 4), (2, 6, 4), (2, 6, 4)],
            other_kwargs={"num_heads": 3, "output_shape": 2},
            other_shapes=[(2, 5, 3), (2, 6, 3), (2, 6, 3)],
            mismatch=({"use_scale": True}, "use_scale: False vs True"),
        )

    @pytest.mark.one_backend
    def test_a_position_bias(self, tmp_path):
        run_fusion_test(
            FusableRelativePositionBias,
            {"num_heads": 2, "num_buckets": 8, "max_distance": 12},
            tmp_path=tmp_path,
            input_shapes=[(1, 9, 1)],
            other_kwargs={"num_heads": 3},
            input_axis=None,
            output_axis=1,
            mismatch=({"num_buckets": 16}, "num_buckets: 8 vs 16"),
            masking=False,
        )


@pytest.mark.one_backend
class TestLikeKeras:
    """The function of keras.layers.MultiHeadAttention, in every way to call it."""

    shapes = [(2, 5, 4), (2, 6, 4)]
    attention_mask = np.random.default_rng(0).random((2, 5, 6)) < 0.7
    attention_mask[..., 0] = True  # no row without a source

    @pytest.mark.parametrize(
        "kwargs",
        [
            {},
            {"bias": False},
            {"value_dim": 5},
            {"output_shape": 7},
            {"value_dim": 2, "output_shape": 3, "bias": False},
        ],
    )
    def test_constructor(self, kwargs):
        inputs = random_inputs(self.shapes)
        ours, peer = attention_and_peer(inputs, **kwargs)
        assert tuple(ours.compute_output_shape(*self.shapes)) == ours(*inputs).shape
        # With the scores, since Keras 3.15 on JAX takes no other value_dim without.
        pairs = zip(
            *(layer(*inputs, return_attention_scores=True) for layer in (ours, peer)), strict=True
        )
        for actual, expected in pairs:
            np.testing.assert_allclose(numpy(actual), numpy(expected), atol=1e-5)

    @pytest.mark.parametrize(
        "call",
        [
            {"attention_mask": attention_mask},
            {"use_causal_mask": True},
            {"attention_mask": attention_mask[:, :1], "use_causal_mask": True},
            {"value_mask": np.arange(6)[None] < np.array([[6], [4]])},
            {"key_mask": np.arange(6)[None] < np.array([[3], [6]])},
        ],
    )
    def test_masks(self, call):
        inputs = random_inputs(self.shapes)
        ours, peer = attention_and_peer(inputs)
        call = {
            name: ops.convert_to_tensor(v) if name != "use_causal_mask" else v
            for name, v in call.items()
        }
        ours, peer = (
            layer(*inputs, return_attention_scores=True, **call) for layer in (ours, peer)
        )
        np.testing.assert_allclose(numpy(ours[0]), numpy(peer[0]), atol=1e-5)
        np.testing.assert_allclose(numpy(ours[1]), numpy(peer[1]), atol=1e-6)

    @pytest.mark.one_backend
    def test_a_key_of_its_own(self):
        inputs = random_inputs([(2, 5, 4), (2, 6, 3), (2, 6, 2)])
        ours, peer = attention_and_peer(inputs)
        np.testing.assert_allclose(numpy(ours(*inputs)), numpy(peer(*inputs)), atol=1e-5)

    @pytest.mark.one_backend
    def test_masks_that_come_with_the_tensors(self):
        x = random_inputs([(2, 5, 4)])[0]
        x[0, 3:] = x[1, 1:] = 0
        masked = keras.layers.Masking()(x)
        ours, peer = attention_and_peer([x, x])
        ours, peer = numpy(ours(masked, masked)), numpy(peer(masked, masked))
        for row, length in enumerate((3, 1)):
            np.testing.assert_allclose(ours[row, :length], peer[row, :length], atol=1e-5)

    def test_dropout_acts_in_training_only(self):
        inputs = random_inputs(self.shapes)
        layer = built(FusableMultiHeadAttention(2, 3, dropout=0.5, seed=0), inputs)
        still = numpy(layer(*inputs))
        np.testing.assert_array_equal(still, numpy(layer(*inputs)))
        assert np.abs(numpy(layer(*inputs, training=True)) - still).max() > 1e-3

    @pytest.mark.parametrize(
        "kwargs", [{"attention_axes": (2,)}, {"sliding_window": 3}, {"use_gate": True}]
    )
    def test_what_cannot_be_fused_is_refused(self, kwargs):
        ((name, value),) = kwargs.items()
        with pytest.raises(ValueError, match=f"default of `{name}`. Received: {name}="):
            FusableMultiHeadAttention(2, 3, **kwargs)
        assert value

    def test_inputs_of_another_rank_are_refused_when_it_is_built(self):
        with pytest.raises(ValueError, match="kf.fuse takes that layer"):
            FusableMultiHeadAttention(2, 3)(*[np.zeros((1, 2, 2, 4), "float32")] * 2)

    def test_regularizers_and_constraints_are_kept(self):
        layer = FusableMultiHeadAttention(
            1, 2, kernel_regularizer="l2", bias_constraint="non_neg", activity_regularizer="l1"
        )
        again = FusableMultiHeadAttention.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert isinstance(again.query.kernel_regularizer, keras.regularizers.L2)
        assert isinstance(again.activity_regularizer, keras.regularizers.L1)


@pytest.mark.one_backend
def test_scale_by_hand():
    # One query, two keys: scores q·k are 4 and 0; with the scale they are 2 and 0.
    x, y = np.full((1, 1, 4), 1.0, "float32"), np.array([[[1.0] * 4, [0.0] * 4]], "float32")
    for use_scale, score in ((True, 2.0), (False, 4.0)):
        layer = FusableMultiHeadAttention(1, 4, use_bias=False, use_scale=use_scale)
        layer(x, y)
        layer.set_weights([np.eye(4)] * 4)
        expected = math.exp(score) / (math.exp(score) + 1)
        np.testing.assert_allclose(numpy(layer(x, y)), np.full((1, 1, 4), expected), rtol=1e-5)


@pytest.mark.one_backend
def test_a_position_bias_is_added_to_the_scores_and_is_fused_with_the_heads():
    sizes = ((2, 4), (1, 3))
    inputs = [random_inputs([(2, 5, width)], seed=width)[0] for _, width in sizes]
    layers = [
        built(FusableMultiHeadAttention(heads, 3, use_scale=False), [x, x], heads)
        for (heads, _), x in zip(sizes, inputs, strict=True)
    ]
    tables = [built(FusableRelativePositionBias(heads), [inputs[0]], heads) for heads, _ in sizes]
    apart = [
        numpy(layer(x, x, position_bias=table(x), use_causal_mask=True))
        for layer, table, x in zip(layers, tables, inputs, strict=True)
    ]
    assert np.abs(apart[0] - numpy(layers[0](inputs[0], inputs[0]))).max() > 1e-3
    together = np.concatenate(inputs, -1)
    fused = layers[0].fuse(layers[1])(
        together,
        together,
        position_bias=tables[0].fuse(tables[1])(together),
        use_causal_mask=True,
    )
    np.testing.assert_allclose(numpy(fused), np.concatenate(apart, -1), atol=1e-5)


@pytest.mark.one_backend
def test_an_attention_that_averages():
    x = random_inputs([(2, 5, 4)])[0]
    layers = [built(FusableMultiHeadAttention(heads, 3), [x, x], heads) for heads in (1, 2)]
    fused = layers[0].fuse(layers[1], grow={"heads"})
    mean = np.mean([numpy(layer(x, x)) for layer in layers], 0)
    np.testing.assert_allclose(numpy(fused(x, x)), mean, atol=1e-5)
    assert fused.num_heads == 3 and fused.attention_output.units == 4


def test_outputs_of_unequal_width_cannot_be_averaged():
    layers = []
    for width in (4, 3):
        x = random_inputs([(2, 5, width)])[0]
        layers.append(built(FusableMultiHeadAttention(2, 3), [x, x]))
    with pytest.raises(FusionError, match=r"attention_output/kernel.*sizes=\(4, 3\)"):
        layers[0].fuse(layers[1], grow={"input", "heads"})


@pytest.mark.one_backend
class TestBuckets:
    """Raffel et al. (2019): half of the buckets for exact distances, the others logarithmic."""

    @staticmethod
    def by_definition(ahead, bidirectional, count=32, maximum=128):
        first = 0
        if bidirectional:
            count //= 2
            first = count if ahead > 0 else 0
        distance = abs(ahead) if bidirectional else max(-ahead, 0)
        exact = count // 2
        if distance < exact:
            return first + distance
        share = math.log(distance / exact) / math.log(maximum / exact)
        return first + min(exact + int(share * (count - exact) + 1e-9), count - 1)

    @pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
    def test_a_bucket_s_gradient_is_that_of_all_its_pairs(self, dtype):
        layer = FusableRelativePositionBias(2, 4, 3, dtype=dtype, initializer="zeros")
        (gradient,) = gradients_of_the_sum(layer, np.zeros((1, 64, 1), "float32"))
        # Itself; what is before it; none is ahead by 0; what is ahead.
        np.testing.assert_array_equal(gradient, np.stack([[64, 2016, 0, 2016]] * 2, 1))

    @pytest.mark.parametrize("bidirectional", [True, False])
    def test_all_distances(self, bidirectional):
        layer = FusableRelativePositionBias(1, bidirectional=bidirectional)
        ahead = np.arange(-200, 201)
        buckets = ops.convert_to_numpy(layer.buckets(ops.convert_to_tensor(ahead, "int32")))
        expected = np.array(
            [self.by_definition(int(distance), bidirectional) for distance in ahead]
        )
        # A boundary such as 8 · 16^(k/8) may fall to either side in float32.
        assert np.sum(buckets != expected) <= 2
        np.testing.assert_array_equal(np.abs(buckets - expected) <= 1, True)

    @pytest.mark.parametrize(
        ("bidirectional", "ahead", "bucket"),
        [
            (True, 0, 0),
            (True, -7, 7),
            (True, 7, 23),
            (True, -8, 8),
            (True, -11, 8),  # 8 + floor(8 · ln(11/8) / ln 16) = 8 + floor(0.92)
            (True, -12, 9),  # 8 + floor(1.17)
            (True, 20, 26),  # 16 + 8 + floor(2.64)
            (True, -1000, 15),
            (True, 1000, 31),
            (False, 5, 0),  # what lies ahead is masked; it has no bucket
            (False, -15, 15),
            (False, -16, 16),
            (False, -50, 24),  # 16 + floor(16 · ln(50/16) / ln 8) = 16 + floor(8.77)
            (False, -127, 31),
            (False, -1000, 31),
        ],
    )
    @pytest.mark.one_backend
    def test_by_hand(self, bidirectional, ahead, bucket):
        layer = FusableRelativePositionBias(1, bidirectional=bidirectional)
        assert int(layer.buckets(ops.convert_to_tensor([ahead], "int32"))[0]) == bucket

    @pytest.mark.parametrize(
        ("num_buckets", "max_distance", "bidirectional"),
        [(1, 9, False), (3, 9, True), (8, 2, True), (8, 4, False)],
    )
    def test_too_few_are_refused_when_configured(self, num_buckets, max_distance, bidirectional):
        with pytest.raises(ValueError, match=f"Received: num_buckets={num_buckets}, max_dist"):
            FusableRelativePositionBias(1, num_buckets, max_distance, bidirectional)

    @pytest.mark.parametrize(
        ("num_buckets", "max_distance", "bidirectional"),
        [(2, 2, False), (4, 2, True), (8, 3, True)],
    )
    def test_the_fewest(self, num_buckets, max_distance, bidirectional):
        layer = FusableRelativePositionBias(1, num_buckets, max_distance, bidirectional)
        buckets = numpy(layer.buckets(ops.arange(-9, 10)))
        assert set(buckets) <= set(range(num_buckets)) and buckets[9] == 0

    @pytest.mark.one_backend
    def test_between_is_a_part_of_the_whole(self):
        layer = built(FusableRelativePositionBias(2), [np.zeros((1, 9, 1))])
        whole = numpy(layer.between(9, 9))
        assert whole.shape == (1, 2, 9, 9)
        np.testing.assert_array_equal(numpy(layer.between(1, 9, offset=4)), whole[:, :, 4:5])
        table = numpy(layer.table)
        assert whole[0, 1, 3, 1] == table[2, 1]  # a source two positions back: bucket 2
        assert whole[0, 1, 1, 3] == table[18, 1]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="jax.nn.dot_product_attention")
class TestFlashAttention:
    """The operation on a CPU; cuDNN's has other rounding."""

    @staticmethod
    def reference(query, key, value, bias, scale):
        scores = np.einsum("bhtd,bhsd->bhts", query, key) * scale + bias
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("bhts,bhsd->bthd", weights, value)

    @pytest.mark.parametrize("scale", [1.0, 0.5])
    def test_is_attention(self, scale):
        query = random_inputs([(2, 3, 4, 8)])[0]
        key, value = random_inputs([(2, 3, 6, 8)] * 2, seed=1)
        bias = random_inputs([(1, 3, 4, 6)], seed=2)[0]
        bias[..., 2:4, 4:] = -1e9
        tensors = map(ops.convert_to_tensor, (query, key, value, bias))
        attended = flash_attention.flash_attention(*tensors, scale, implementation="xla")
        wanted = self.reference(query, key, value, bias, scale)
        np.testing.assert_allclose(attended, wanted, atol=2e-6)

    @pytest.mark.parametrize("use_scale", [True, False])
    def test_a_layer_that_takes_it_computes_the_same(self, use_scale, monkeypatch):
        x = random_inputs([(2, 6, 5)])[0]
        layer = built(FusableMultiHeadAttention(2, 8, use_scale=use_scale), [x, x])
        bias = ops.convert_to_tensor(random_inputs([(1, 2, 6, 6)], seed=3)[0])
        plain = layer(x, x, position_bias=bias, use_causal_mask=True)
        operation = functools.partial(flash_attention.flash_attention, implementation="xla")
        monkeypatch.setattr(flash_attention, "flash_attention", operation)
        monkeypatch.setattr(flash_attention, "fits", lambda *tensors: True)
        np.testing.assert_allclose(
            layer(x, x, position_bias=bias, use_causal_mask=True), plain, rtol=1e-5
        )
        _, weights = layer(x, x, return_attention_scores=True)
        np.testing.assert_allclose(ops.sum(weights, -1), np.ones((2, 2, 6)), atol=1e-6)

    def test_not_where_it_does_not_fit(self):
        tensor = ops.ones((1, 2, 4, 8), "bfloat16")
        assert not flash_attention.fits(tensor, tensor, tensor)  # no GPU
        assert not flash_attention.fits(*[ops.ones((1, 2, 3, 8), "bfloat16")] * 3)
        assert not flash_attention.fits(*[ops.ones((1, 2, 4, 8))] * 3)
