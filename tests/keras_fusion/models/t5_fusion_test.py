"""Fused T5s: logits are the mean of the sources', what is refused, saving, training on."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_fusion as kf
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.models import T5, parameter_count
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

    @pytest.mark.parametrize(
        ("version", "n"),
        # Of v1.0, test_in_stages has the mean of four.
        [(tiny.V1_1, 3), *(pytest.param(tiny.V1_1, n, marks=pytest.mark.slow) for n in (2, 4))]
        + [pytest.param(tiny.V1_0, n, marks=pytest.mark.slow) for n in (2, 3, 4)],
    )
    def test_equals_the_mean_of_the_logits(self, version, n):
        shapes = [{}, WIDER, {}, WIDEST][:n]
        sources = [tiny.shared(seed, **version, **shape) for seed, shape in enumerate(shapes)]
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
            tiny.shared(seed, num_layers=1, **version, **shape)
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
        a, b = tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1)
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
                (tiny.V1_1, "rule", 3, 0.3, pytest.mark.one_backend),
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
        source = tiny.shared(num_layers=1, **version)
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
        source, inputs = tiny.shared(num_layers=1), tiny.batch()
        gaps = [
            tiny.relative_gap(
                tiny.logits(source.self_fuse(2, noise=noise), inputs), tiny.logits(source, inputs)
            )
            for noise in (1e-3, 1e-1)
        ]
        assert 1e-6 < gaps[0] < 1e-2 < gaps[1]

    @pytest.mark.one_backend
    def test_the_seed_decides_the_noise(self):
        source = tiny.shared(num_layers=1)
        a, b, c = (source.self_fuse(2, noise=0.1, seed=seed) for seed in (1, 1, 2))
        kernels = [
            ops.convert_to_numpy(fused.encoder.blocks[0].self_attention.query.kernel)
            for fused in (a, b, c)
        ]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[0], kernels[2])

    @pytest.mark.one_backend
    def test_noise_differs_from_weight_to_weight(self):
        fused = tiny.shared(num_layers=1).self_fuse(2, noise=0.1)
        attention = fused.encoder.blocks[0].self_attention
        query, key = (
            ops.convert_to_numpy(layer.kernel)[:8, 8:] for layer in (attention.query, attention.key)
        )
        assert abs(np.corrcoef(query.ravel(), key.ravel())[0, 1]) < 0.5


class TestRule:
    @pytest.mark.one_backend
    def test_moves_the_logits_of_different_sources(self):
        a, b = tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1)
        batch = tiny.batch(targets=True)
        kept = kf.fusion_gap(a.fuse(b, norm="property"), [a, b], batch)
        moved = a.fuse(b, norm="rule", check_on=batch).fusion_gap
        assert kept.logits < 1e-5 and abs(kept.fused - kept.mean) < 1e-5
        assert moved.logits > 1e-3 and abs(moved.fused - moved.mean) > 1e-4
        assert moved.mean == pytest.approx(kept.mean) and moved.sources == kept.sources


@pytest.mark.one_backend
class TestErrors:
    def test_every_mismatch_is_named_at_once(self):
        a = tiny.shared(num_layers=1)
        b = tiny.shared(
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
        a, b = tiny.shared(num_layers=1), tiny.shared(num_layers=1, key_value_dim=3)
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
        a = tiny.shared(num_layers=1)
        with pytest.raises(FusionError, match="source 1 .* is not built"):
            a.fuse(T5(a.config, build=False))

    def test_another_kind_of_model(self):
        with pytest.raises(FusionError, match="source 1 is a Dense, which is not fusable"):
            tiny.shared(num_layers=1).fuse(keras.layers.Dense(2))

    @pytest.mark.parametrize("n", [1, 2.0, True, "2", 10**9])
    def test_what_is_no_number_of_copies(self, n):
        with pytest.raises(FusionError, match=f"integers from 2 to 1,000. Received: n={n!r}"):
            tiny.shared(num_layers=1).self_fuse(n)

    def test_too_few(self):
        with pytest.raises(FusionError, match="at least two networks, received 1"):
            tiny.shared(num_layers=1).fuse()

    def test_balanced_noise_needs_equal_widths(self):
        a, b = tiny.shared(num_layers=1), tiny.shared(num_layers=1, hidden_dim=6)
        with pytest.raises(FusionError, match=r"`hidden` has widths \(8, 6\); use .*'gaussian'$"):
            a.fuse(b, noise=0.1, noise_kind="balanced")


@pytest.mark.one_backend
class TestSymmetryWarning:
    def test_equal_sources_without_noise_or_dropout(self):
        with pytest.warns(SymmetryWarning, match="never part"):
            tiny.shared(num_layers=1).self_fuse(2)

    @pytest.mark.parametrize(
        ("dropout", "other_seed", "noise"), [(0.1, 0, 0.0), (0.0, 1, 0.0), (0.0, 0, 0.01)]
    )
    def test_not_otherwise(self, dropout, other_seed, noise):
        a = tiny.shared(0, num_layers=1, dropout=dropout)
        b = tiny.shared(other_seed, num_layers=1, dropout=dropout)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SymmetryWarning)
            a.fuse(b, noise=noise)


@pytest.mark.parametrize("version", [tiny.V1_1, SLOW_V1_0])
@pytest.mark.one_backend
def test_saving(version, tmp_path):
    source = tiny.shared(num_layers=1, dropout=0.1, **version)
    fused = source.fuse(tiny.shared(1, num_layers=1, **version, **WIDER), noise=0.1)
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
    fused = tiny.shared(num_layers=1).self_fuse(2, noise=0.01, noise_kind="balanced")
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
