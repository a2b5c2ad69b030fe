"""T5 as a network: initialisers, axes, precision, dropout, padding, export."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.layers.tree import weight_axes
from keras_fusion.models import T5, T5Config
from tests.keras_fusion.models import tiny

# JAX meets v1.0 in the tests of generation and of KerasHub's T5.
VERSIONS = pytest.mark.parametrize(
    "version",
    [
        pytest.param(tiny.V1_1, id="v1.1"),
        pytest.param(tiny.V1_0, id="v1.0", marks=pytest.mark.one_backend),
    ],
)


@pytest.mark.one_backend
def test_initialisers():
    config = T5Config(
        vocabulary_size=200,
        num_layers=1,
        num_heads=4,
        hidden_dim=80,
        intermediate_dim=150,
        key_value_dim=30,
    )
    model = T5(config, seed=0)
    deviations = {
        "token_embedding/embeddings": 1.0,
        "_attention/query/kernel": (80 * 30) ** -0.5,
        "_attention/key/kernel": 80**-0.5,
        "_attention/value/kernel": 80**-0.5,
        "_attention/attention_output/kernel": (4 * 30) ** -0.5,
        "input_projector/kernel": 80**-0.5,
        "gate_projector/kernel": 80**-0.5,
        "output_projector/kernel": 150**-0.5,
        "head/kernel": 80**-0.5,
        "position_bias/table": (2 / (32 + 4)) ** 0.5,  # uniform, fan-avg: variance 1 / mean fan
    }
    seen = set()
    for weight in model.weights:
        values = ops.convert_to_numpy(weight)
        if weight.path.endswith("norm/scale"):
            np.testing.assert_array_equal(values, np.ones(80))
            continue
        (name,) = [name for name in deviations if weight.path.endswith(name)]
        tolerance = 0.15 if "table" in name else 0.03
        assert values.std() == pytest.approx(deviations[name], rel=tolerance), weight.path
        assert abs(values.mean()) < 5 * values.std() / values.size**0.5, weight.path
        seen.add(name)
    assert seen == set(deviations)
    # Truncated at two deviations of the untruncated normal, whose deviation is 1 / 0.87962566.
    kernel = ops.convert_to_numpy(model.head.kernel)
    assert np.abs(kernel).max() <= 2 * 80**-0.5 / 0.87962566 + 1e-6
    table = ops.convert_to_numpy(model.encoder.position_bias.table)
    assert np.abs(table).max() <= (6 / (32 + 4)) ** 0.5


def test_the_seed_decides_all_weights():
    a, b, c = (T5(tiny.config(num_layers=1), seed=seed) for seed in (3, 3, 4))
    for first, same, other in zip(a.weights, b.weights, c.weights, strict=True):
        first, same, other = map(ops.convert_to_numpy, (first, same, other))
        np.testing.assert_array_equal(first, same)
        assert len(first.shape) == 1 or not np.array_equal(first, other)


def test_axes_of_every_weight():
    model = tiny.shared(num_layers=1)
    axes = weight_axes(model)
    assert len(axes) == len(model.weights)
    sizes = {"hidden": 8, "heads": 8, "mlp": 12, "vocab": 23, "buckets": 32}
    for path, declared in axes.items():
        (weight,) = [w for w in model.weights if w.path.endswith("/" + path)]
        expected = [
            2 if path.endswith("table") and n == "heads" else sizes[n] for n in declared.names
        ]
        assert list(weight.shape) == expected
    assert axes["encoder/block_0/self_attention/query/kernel"].sums == ("hidden",)
    assert axes["decoder/block_0/feed_forward/output_projector/kernel"].sums == ("mlp",)


@VERSIONS
def test_mixed_precision_ends_in_float32_logits(version):
    wide = tiny.shared(num_layers=1, **version)
    half = tiny.model(num_layers=1, dtype="mixed_bfloat16", **version)
    half.set_weights(wide.get_weights())
    inputs = tiny.batch(padding=True)
    logits = half(inputs, training=False)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert {weight.dtype for weight in half.weights} == {"float32"}
    assert tiny.relative_gap(ops.convert_to_numpy(logits), tiny.logits(wide, inputs)) < 0.05
    # More than the 8 bits that bfloat16 has.
    bits = ops.convert_to_numpy(logits).view(np.uint32)
    assert (bits & 0xFFFF).any()
    fused = half.self_fuse(2, noise=0.1)
    assert fused.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("version", "dtype"),
    [
        (tiny.V1_1, "bfloat16"),
        pytest.param(tiny.V1_0, "float16", marks=pytest.mark.slow),
        (tiny.V1_1, "mixed_float16"),
    ],
)
@pytest.mark.one_backend
def test_small_floats_end_in_float32_logits(version, dtype):
    model = tiny.shared(num_layers=1, dtype=dtype, **version)
    inputs = tiny.batch(padding=True)
    inputs["encoder_padding_mask"][1] = 0  # nothing to attend to, yet no NaN
    fused = model.self_fuse(2, noise=0.1, noise_kind="balanced")
    for network in (model, fused):
        logits = network(inputs, training=False)
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        assert np.isfinite(ops.convert_to_numpy(logits)).all()
        assert {weight.dtype for weight in network.weights} == {model.dtype_policy.variable_dtype}


class TestDropout:
    def test_acts_in_training_only_and_is_seeded(self):
        inputs = tiny.batch()
        a, b = (tiny.model(0, num_layers=1, dropout=0.3) for _ in range(2))
        np.testing.assert_array_equal(
            tiny.logits(a, inputs), tiny.logits(tiny.shared(0, num_layers=1), inputs)
        )
        first = tiny.logits(a, inputs, training=True)
        np.testing.assert_array_equal(first, tiny.logits(b, inputs, training=True))
        assert not np.array_equal(first, tiny.logits(a, inputs, training=True))

    def test_one_mask_serves_the_whole_length(self):
        model = tiny.model(num_layers=1, dropout=0.5)
        x = np.ones((2, 6, 8), "float32")
        for layer in (
            model.encoder.input_dropout,
            model.encoder.output_dropout,
            model.encoder.blocks[0].residual_dropout,
            model.encoder.blocks[0].feed_forward.inner_dropout,
        ):
            dropped = ops.convert_to_numpy(layer(x, training=True))
            np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], 6, 1))
            assert set(np.unique(dropped)) == {0.0, 2.0}
        weights = np.ones((2, 3, 4, 50), "float32")
        dropped = model.encoder.blocks[0].self_attention.attention_dropout(weights, training=True)
        dropped = ops.convert_to_numpy(dropped)
        np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :, :1], 4, 2))
        assert not np.array_equal(dropped[:, 0], dropped[:, 1])

    @pytest.mark.one_backend
    def test_every_dropout_draws_for_itself(self):
        model = tiny.model(num_layers=2, dropout=0.5)
        seeds = [
            tuple(ops.convert_to_numpy(variable).tolist())
            for variable in model.variables
            if "seed" in variable.path
        ]
        assert len(seeds) == len(set(seeds)) > 10

    @pytest.mark.one_backend
    def test_its_rate_may_change_in_a_fusion(self):
        a, b = tiny.shared(0, num_layers=1, dropout=0.1), tiny.shared(1, num_layers=1)
        assert a.fuse(b).config.dropout == 0.1


@VERSIONS
@pytest.mark.one_backend
def test_what_is_padded_is_ignored(version):
    model = tiny.shared(num_layers=1, **version)
    inputs = tiny.batch(padding=True)
    changed = {name: value.copy() for name, value in inputs.items()}
    changed["encoder_token_ids"][1, -2:] = 3
    changed["decoder_token_ids"][1, -2:] = 3
    before, after = tiny.logits(model, inputs), tiny.logits(model, changed)
    np.testing.assert_allclose(before[0], after[0], atol=1e-6)
    np.testing.assert_allclose(before[1, :-2], after[1, :-2], atol=1e-5)
    short = {name: value[1:, :-2] for name, value in inputs.items()}
    np.testing.assert_allclose(before[1:, :-2], tiny.logits(model, short), atol=1e-5)


def test_the_decoder_does_not_look_ahead():
    model, inputs = tiny.shared(), tiny.batch()
    changed = {name: value.copy() for name, value in inputs.items()}
    changed["decoder_token_ids"][:, 3:] = 2
    before, after = tiny.logits(model, inputs), tiny.logits(model, changed)
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-5)
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-3


@pytest.mark.slow  # plain_model_test.py exports
def test_an_exported_model_computes_the_same(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the archive is read with TensorFlow")
    import tensorflow as tf

    model = tiny.model(num_layers=1)
    model.export(tmp_path / "t5", verbose=False)
    tokens = np.arange(6, dtype="int32").reshape(2, 3)
    inputs = {
        f"{side}_{kind}": tokens if kind == "token_ids" else np.ones_like(tokens)
        for side in ("encoder", "decoder")
        for kind in ("token_ids", "padding_mask")
    }
    exported = tf.saved_model.load(str(tmp_path / "t5"))
    np.testing.assert_allclose(
        exported.serve({name: tf.constant(value) for name, value in inputs.items()}),
        keras.ops.convert_to_numpy(model(inputs)),
        atol=1e-5,
    )
