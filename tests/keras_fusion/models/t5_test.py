"""T5: fused logits are the mean of the sources', initialisers, precision, dropout, saving."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_fusion as kf
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.layers.tree import weight_axes
from keras_fusion.models import T5, T5Config, parameter_count
from tests.keras_fusion.models import tiny

# JAX meets v1.0 in the tests of generation and of KerasHub's T5.
VERSIONS = pytest.mark.parametrize(
    "version",
    [
        pytest.param(tiny.V1_1, id="v1.1"),
        pytest.param(tiny.V1_0, id="v1.0", marks=pytest.mark.one_backend),
    ],
)
SLOW_V1_1 = pytest.param(tiny.V1_1, marks=pytest.mark.slow)
SLOW_V1_0 = pytest.param(tiny.V1_0, marks=pytest.mark.slow)
WIDER = {"hidden_dim": 6, "num_heads": 3, "intermediate_dim": 5}
WIDEST = {"hidden_dim": 10, "num_heads": 1, "intermediate_dim": 7}


class TestProperty:
    """With norm="property" the fused logits are the mean of the sources' (section 3.1)."""

    @VERSIONS
    @pytest.mark.parametrize("n", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
    def test_equals_the_mean_of_the_logits(self, version, n):
        shapes = [{}, WIDER, {}, WIDEST][:n]
        sources = [tiny.model(seed, **version, **shape) for seed, shape in enumerate(shapes)]
        fused = sources[0].fuse(*sources[1:])
        for padding in (False, True):
            inputs = tiny.batch(padding=padding)
            mean = np.mean([tiny.logits(source, inputs) for source in sources], 0)
            assert tiny.relative_gap(tiny.logits(fused, inputs), mean) <= 1e-5
        assert fused.count_params() == parameter_count(fused.config)

    @pytest.mark.parametrize("version", [tiny.V1_0, SLOW_V1_1])
    @pytest.mark.one_backend
    def test_in_stages(self, version):
        inputs = tiny.batch(padding=True)
        a, b, c, d = (
            tiny.model(seed, num_layers=1, **version, **shape)
            for seed, shape in enumerate([{}, WIDER, WIDEST, {}])
        )
        fused = a.fuse(b).fuse(c.fuse(d))
        mean = np.mean([tiny.logits(source, inputs) for source in (a, b, c, d)], 0)
        assert tiny.relative_gap(tiny.logits(fused, inputs), mean) <= 1e-5
        # Unequal stages weigh the sources as they were staged: ((a + b) / 2 + c) / 2.
        uneven = a.fuse(b).fuse(c)
        mean = np.mean([mean_of(inputs, a, b), tiny.logits(c, inputs)], 0)
        assert tiny.relative_gap(tiny.logits(uneven, inputs), mean) <= 1e-5
        assert uneven.config.norm_groups == (8, 6, 10)

    @pytest.mark.one_backend
    def test_the_sources_stay_what_they_were(self):
        a, b = tiny.model(0, num_layers=1), tiny.model(1, num_layers=1)
        before = [weight.copy() for weight in a.get_weights()]
        a.fuse(b, noise=0.5, noise_kind="balanced")
        for weight, old in zip(a.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, old)


def mean_of(inputs, *models):
    return np.mean([tiny.logits(source, inputs) for source in models], 0)


class TestSelfFusion:
    """A loss-preserving growth: fusing a network with itself changes no logit (section 3.1)."""

    @pytest.mark.parametrize(
        ("version", "norm", "n", "noise"),
        [
            pytest.param(version, norm, n, noise, marks=marks)
            for version, norm, n, noise, marks in (
                (tiny.V1_1, "property", 2, 0.0, ()),
                (tiny.V1_1, "rule", 3, 0.3, ()),
                (tiny.V1_0, "property", 3, 0.3, pytest.mark.one_backend),
                (tiny.V1_0, "rule", 2, 0.0, pytest.mark.one_backend),
                (tiny.V1_1, "property", 3, 0.3, pytest.mark.slow),
                (tiny.V1_1, "rule", 2, 0.0, pytest.mark.slow),
                (tiny.V1_0, "property", 2, 0.0, pytest.mark.slow),
                (tiny.V1_0, "rule", 3, 0.3, pytest.mark.slow),
            )
        ],
    )
    def test_keeps_the_logits(self, version, norm, n, noise):
        source = tiny.model(num_layers=1, **version)
        inputs = tiny.batch(padding=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if not noise else "error", SymmetryWarning)
            fused = source.self_fuse(n, norm=norm, noise=noise, noise_kind="balanced", seed=1)
        gap = tiny.relative_gap(tiny.logits(fused, inputs), tiny.logits(source, inputs))
        assert gap <= 1e-5
        assert fused.config.norm_groups == (None if norm == "rule" else (8,) * n)
        assert kf.symmetry(fused) > 0.1 if noise else kf.symmetry(fused) == 0

    @pytest.mark.one_backend
    def test_gaussian_noise_moves_the_logits_a_little(self):
        source, inputs = tiny.model(num_layers=1), tiny.batch()
        gaps = [
            tiny.relative_gap(
                tiny.logits(source.self_fuse(2, noise=noise), inputs), tiny.logits(source, inputs)
            )
            for noise in (1e-3, 1e-1)
        ]
        assert 1e-6 < gaps[0] < 1e-2 < gaps[1]

    @pytest.mark.one_backend
    def test_the_seed_decides_the_noise(self):
        source = tiny.model(num_layers=1)
        a, b, c = (source.self_fuse(2, noise=0.1, seed=seed) for seed in (1, 1, 2))
        kernels = [
            ops.convert_to_numpy(fused.encoder.blocks[0].self_attention.query.kernel)
            for fused in (a, b, c)
        ]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[0], kernels[2])

    @pytest.mark.one_backend
    def test_noise_differs_from_weight_to_weight(self):
        fused = tiny.model(num_layers=1).self_fuse(2, noise=0.1)
        attention = fused.encoder.blocks[0].self_attention
        query, key = (
            ops.convert_to_numpy(layer.kernel)[:8, 8:] for layer in (attention.query, attention.key)
        )
        assert abs(np.corrcoef(query.ravel(), key.ravel())[0, 1]) < 0.5


class TestRule:
    @pytest.mark.one_backend
    def test_moves_the_logits_of_different_sources(self):
        a, b = tiny.model(0, num_layers=1), tiny.model(1, num_layers=1)
        batch = tiny.batch(targets=True)
        kept = kf.fusion_gap(a.fuse(b, norm="property"), [a, b], batch)
        moved = a.fuse(b, norm="rule", check_on=batch).fusion_gap
        assert kept.logits < 1e-5 and abs(kept.fused - kept.mean) < 1e-5
        assert moved.logits > 1e-3 and abs(moved.fused - moved.mean) > 1e-4
        assert moved.mean == pytest.approx(kept.mean) and moved.sources == kept.sources


@pytest.mark.one_backend
class TestErrors:
    def test_every_mismatch_is_named_at_once(self):
        a = tiny.model(num_layers=1)
        b = tiny.model(
            num_layers=2,
            vocabulary_size=24,
            key_value_dim=3,
            activation="silu",
            use_gated_activation=False,
            tie_embedding_weights=True,
            layer_norm_epsilon=1e-5,
            dtype="mixed_bfloat16",
        )
        with pytest.raises(FusionError) as error:
            a.fuse(b)
        for expected in (
            "num_layers: 1 vs 2",
            "vocabulary_size: 23 vs 24",
            "key_value_dim: 4 vs 3",
            "activation: gelu vs silu",
            "use_gated_activation: True vs False",
            "tie_embedding_weights: False vs True",
            "layer_norm_epsilon: 1e-06 vs 1e-05",
            "dtype: float32 vs mixed_bfloat16",
        ):
            assert expected in str(error.value)
        assert "\n" not in str(error.value)

    def test_nothing_is_allocated_before_the_checks(self, monkeypatch):
        a, b = tiny.model(num_layers=1), tiny.model(num_layers=1, key_value_dim=3)
        c = tiny.model(num_layers=1)
        c.decoder.final_norm.scale.assign([np.nan] * 7 + [1.0])

        def refuse(*args, **kwargs):
            raise AssertionError("A target was made.")

        monkeypatch.setattr(T5, "__init__", refuse)
        monkeypatch.setattr("keras_fusion.layers.fusing.FusedArray", refuse)
        with pytest.raises(FusionError, match="key_value_dim: 4 vs 3"):
            a.fuse(b)
        with pytest.raises(FusionError, match="`decoder/final_norm/scale` of .* holds 7 NaN"):
            a.fuse(c)

    def test_an_unbuilt_model(self):
        a = tiny.model(num_layers=1)
        with pytest.raises(FusionError, match="source 1 .* is not built"):
            a.fuse(T5(a.config, build=False))

    def test_another_kind_of_model(self):
        with pytest.raises(FusionError, match="source 1 is a Dense, which is not fusable"):
            tiny.model(num_layers=1).fuse(keras.layers.Dense(2))

    @pytest.mark.parametrize("n", [1, 2.0, True, "2", 10**9])
    def test_what_is_no_number_of_copies(self, n):
        with pytest.raises(FusionError, match=f"integers from 2 to 1,000. Received: n={n!r}"):
            tiny.model(num_layers=1).self_fuse(n)

    def test_too_few(self):
        with pytest.raises(FusionError, match="at least two networks, received 1"):
            tiny.model(num_layers=1).fuse()

    def test_balanced_noise_needs_equal_widths(self):
        a, b = tiny.model(num_layers=1), tiny.model(num_layers=1, hidden_dim=6)
        with pytest.raises(FusionError, match=r"`hidden` has widths \(8, 6\); use .*'gaussian'$"):
            a.fuse(b, noise=0.1, noise_kind="balanced")


@pytest.mark.one_backend
class TestSymmetryWarning:
    def test_equal_sources_without_noise_or_dropout(self):
        with pytest.warns(SymmetryWarning, match="never part"):
            tiny.model(num_layers=1).self_fuse(2)

    @pytest.mark.parametrize(
        ("dropout", "other_seed", "noise"), [(0.1, 0, 0.0), (0.0, 1, 0.0), (0.0, 0, 0.01)]
    )
    def test_not_otherwise(self, dropout, other_seed, noise):
        a = tiny.model(0, num_layers=1, dropout=dropout)
        b = tiny.model(other_seed, num_layers=1, dropout=dropout)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SymmetryWarning)
            a.fuse(b, noise=noise)


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
    model = tiny.model(num_layers=1)
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
    wide = tiny.model(num_layers=1, **version)
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
    model = tiny.model(num_layers=1, dtype=dtype, **version)
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
            tiny.logits(a, inputs), tiny.logits(tiny.model(0, num_layers=1), inputs)
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
        a, b = tiny.model(0, num_layers=1, dropout=0.1), tiny.model(1, num_layers=1)
        assert a.fuse(b).config.dropout == 0.1


@VERSIONS
@pytest.mark.one_backend
def test_what_is_padded_is_ignored(version):
    model = tiny.model(num_layers=1, **version)
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
    model, inputs = tiny.model(), tiny.batch()
    changed = {name: value.copy() for name, value in inputs.items()}
    changed["decoder_token_ids"][:, 3:] = 2
    before, after = tiny.logits(model, inputs), tiny.logits(model, changed)
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-5)
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-3


@pytest.mark.parametrize("version", [tiny.V1_1, SLOW_V1_0])
@pytest.mark.one_backend
def test_saving(version, tmp_path):
    source = tiny.model(num_layers=1, dropout=0.1, **version)
    fused = source.fuse(tiny.model(1, num_layers=1, **version, **WIDER), noise=0.1)
    inputs = tiny.batch(padding=True)
    for name, model in (("source", source), ("fused", fused)):
        model.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras", safe_mode=True)
        assert loaded.config == model.config and loaded.dtype_policy == model.dtype_policy
        np.testing.assert_array_equal(tiny.logits(loaded, inputs), tiny.logits(model, inputs))
    again = loaded.fuse(source)
    mean = mean_of(inputs, loaded, source)
    assert tiny.relative_gap(tiny.logits(again, inputs), mean) <= 1e-5


@pytest.mark.one_backend
def test_training_parts_the_copies():
    fused = tiny.model(num_layers=1).self_fuse(2, noise=0.01, noise_kind="balanced")
    start = kf.symmetry(fused)
    inputs = tiny.batch(targets=True)
    fused.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    targets = inputs.pop("targets")
    losses = [float(fused.train_on_batch(inputs, targets)) for _ in range(3)]
    assert losses[2] < losses[0]
    assert 0 < start < kf.symmetry(fused)


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
