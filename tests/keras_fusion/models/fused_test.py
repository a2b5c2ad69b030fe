"""T5s from arrays: fusing configurations and files gives what fusing models gives."""

import warnings

import keras
import ml_dtypes
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.layers.tree import values_of, weight_axes
from keras_fusion.layers.values import ArrayInitializer, deferred
from keras_fusion.models import T5, fused_weights
from keras_fusion.operator import FusedArray
from tests.keras_fusion.models import tiny


def arrays(model):
    """A model's weights as a checkpoint would hold them: copies, by path."""
    (values,) = values_of([model])
    return {path: np.array(value) for path, value in values.items()}


def fused_from_arrays(models, **how):
    """The fusion of models' configurations and arrays, as a model."""
    copies = {id(model): arrays(model) for model in models}
    config, weights = fused_weights(
        [model.config for model in models], [copies[id(model)] for model in models], **how
    )
    return T5.from_weights(config, weights, seed=how.get("seed", 0))


def assert_same(first, second):
    assert first.config == second.config
    assert first.seed == second.seed
    first, second = arrays(first), arrays(second)
    assert first.keys() == second.keys()
    for path in first:
        assert first[path].dtype == second[path].dtype
        np.testing.assert_array_equal(first[path], second[path], err_msg=path)


@pytest.mark.parametrize(
    ("version", "how"),
    [
        (tiny.V1_1, {"noise": 0.3, "seed": 5}),
        pytest.param(tiny.V1_1, {"norm": "rule"}, marks=pytest.mark.one_backend),
        pytest.param(tiny.V1_0, {}, marks=pytest.mark.one_backend),
        pytest.param(
            tiny.V1_0,
            {"noise": 0.3, "noise_kind": "balanced", "seed": 6},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_same_bits_as_fusing_models(version, how):
    a, b = (tiny.shared(seed, num_layers=1, **version) for seed in (0, 1))
    assert_same(a.fuse(b, **how), fused_from_arrays([a, b], **how))


@pytest.mark.one_backend
def test_other_widths_and_a_source_that_was_fused():
    a, b = tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1, hidden_dim=6, num_heads=3)
    both = a.fuse(b)
    assert_same(both.fuse(a, b), fused_from_arrays([both, a, b]))


def test_every_weight_is_computed_only_when_it_is_read():
    a, b = tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1)
    sources = [arrays(a), arrays(b)]
    config, weights = fused_weights([a.config, b.config], sources)
    assert config == a.config.fused([b.config], "property")
    assert set(weights) == set(weight_axes(a))
    assert all(type(array) is FusedArray for array in weights.values())
    sources[1]["head/kernel"][:] = 2
    assert (weights["head/kernel"][8:] == 1).all()


class TestFromWeights:
    def test_a_model_of_its_own_arrays(self):
        model = tiny.shared(3, num_layers=1)
        made = T5.from_weights(model.config, arrays(model), seed=3)
        assert_same(made, model)
        inputs = tiny.batch()
        np.testing.assert_array_equal(tiny.logits(made, inputs), tiny.logits(model, inputs))

    @pytest.mark.one_backend
    def test_seeds_and_names_are_those_of_a_model_that_was_initialised(self):
        usual = T5(tiny.config(num_layers=1, dropout=0.5), seed=3)
        made = T5.from_weights(usual.config, arrays(usual), seed=3, name=usual.name)
        assert [v.path for v in made.weights] == [v.path for v in usual.weights]
        inputs = tiny.batch()
        np.testing.assert_array_equal(
            tiny.logits(made, inputs, training=True), tiny.logits(usual, inputs, training=True)
        )

    def test_no_weight_is_initialised_first(self, monkeypatch):
        model = tiny.shared(num_layers=1)
        weights = arrays(model)

        def refuse(*args, **kwargs):
            raise AssertionError("A weight was initialised.")

        for name in ("RandomNormal", "VarianceScaling", "Ones"):
            monkeypatch.setattr(getattr(keras.initializers, name), "__call__", refuse)
        T5.from_weights(model.config, weights)

    @pytest.mark.parametrize("scope", [deferred, keras.StatelessScope])
    def test_in_a_stateless_scope_variables_keep_their_arrays(self, scope):
        model = tiny.shared(num_layers=1)
        weights = arrays(model)
        with scope():
            made = T5.from_weights(model.config, weights)
            for variable in made.trainable_variables:
                assert variable._value is None
                assert type(variable._initializer) is ArrayInitializer
            assert made.head.kernel._initializer.array is weights["head/kernel"]
        if scope is keras.StatelessScope:
            assert_same(T5.from_weights(model.config, arrays(made)), made)

    @pytest.mark.one_backend
    def test_a_policy_of_another_dtype(self):
        model = tiny.shared(num_layers=1)
        made = T5.from_weights(model.config, arrays(model), dtype="bfloat16")
        assert made.head.kernel.dtype == "bfloat16"

    @pytest.mark.one_backend
    def test_every_misfit_is_named_before_anything_is_allocated(self, monkeypatch):
        model = tiny.shared(num_layers=1)
        weights = arrays(model)
        del weights["encoder/final_norm/scale"]
        weights |= {"head/bias": np.ones(3), "head/kernel": np.ones((2, 2))}
        monkeypatch.setattr(T5, "build", lambda self, *_: pytest.fail("It was built."))
        monkeypatch.setattr(T5, "skeleton", lambda config: model)
        with pytest.raises(ValueError) as error:
            T5.from_weights(model.config, weights)
        for expected in (
            "3 mismatches",
            "missing `encoder/final_norm/scale` (8,)",
            "unknown `head/bias` (3,)",
            "`head/kernel` expected (8, 23), got (2, 2)",
        ):
            assert expected in str(error.value)


@pytest.mark.one_backend
class TestErrors:
    def test_every_mismatch_of_the_configurations(self):
        a = tiny.shared(num_layers=1)
        b = tiny.shared(num_layers=2, vocabulary_size=24, activation="silu")
        with pytest.raises(FusionError) as in_memory:
            a.fuse(b)
        with pytest.raises(FusionError) as from_arrays:
            fused_weights([a.config, b.config], [arrays(a), arrays(b)])
        assert str(from_arrays.value) == str(in_memory.value)
        assert "num_layers: 1 vs 2; " in str(in_memory.value)

    def test_every_misfit_of_the_weights(self):
        a = tiny.shared(num_layers=1)
        changed = arrays(a)
        changed["head/kernel"] = changed["head/kernel"][:, 1:]
        del changed["decoder/final_norm/scale"]
        with pytest.raises(FusionError) as error:
            fused_weights([a.config, a.config], [arrays(a), changed])
        assert "source 1: missing `decoder/final_norm/scale` (8,)" in str(error.value)
        assert "source 1: `head/kernel` expected (8, 23), got (8, 22)" in str(error.value)
        assert "source 0" not in str(error.value)

    def test_dtypes_that_differ(self):
        a = tiny.shared(num_layers=1)
        changed = arrays(a)
        changed["head/kernel"] = changed["head/kernel"].astype(ml_dtypes.bfloat16)
        with pytest.raises(FusionError, match="`head/kernel`: dtype float32 vs bfloat16"):
            fused_weights([a.config, a.config], [arrays(a), changed])

    def test_balanced_noise_over_unequal_widths(self):
        a, b = tiny.shared(num_layers=1), tiny.shared(num_layers=1, hidden_dim=6)
        with pytest.raises(FusionError, match=r"`hidden` has widths \(8, 6\); use .*'gaussian'$"):
            fused_weights(
                [a.config, b.config], [arrays(a), arrays(b)], noise=0.1, noise_kind="balanced"
            )

    def test_values_that_are_not_finite_are_named_when_they_are_read(self):
        a, b = tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1)
        changed = arrays(b)
        changed["head/kernel"][3, 4] = np.inf
        config, weights = fused_weights([a.config, b.config], [arrays(a), changed])
        assert np.isfinite(weights["head/kernel"][:11]).all()
        with pytest.raises(FusionError, match="`head/kernel` of source 1 holds 1 NaN or infinite"):
            T5.from_weights(config, weights)

    def test_counts_that_differ_and_too_few(self):
        a = tiny.shared(num_layers=1)
        with pytest.raises(ValueError, match="2 configurations, weights of 1"):
            fused_weights([a.config, a.config], [arrays(a)])
        with pytest.raises(FusionError, match="at least two networks, received 1"):
            fused_weights([a.config], [arrays(a)])

    def test_an_unknown_norm(self):
        with pytest.raises(FusionError, match="norm='batch'"):
            fused_weights([], [], norm="batch")


@pytest.mark.one_backend
class TestSymmetryWarning:
    def test_equal_sources_without_noise_or_dropout(self):
        a = tiny.shared(num_layers=1)
        first = arrays(a)
        for second in (first, arrays(a)):
            with pytest.warns(SymmetryWarning, match="never part"):
                fused_weights([a.config] * 2, [first, second])

    def test_not_for_others(self):
        a, b = tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1)
        dropping = tiny.shared(num_layers=1, dropout=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SymmetryWarning)
            fused_weights([a.config] * 2, [arrays(a), arrays(b)])
            fused_weights([a.config] * 2, [arrays(a)] * 2, noise=0.1)
            fused_weights([dropping.config] * 2, [arrays(a)] * 2)


def test_it_is_part_of_the_library():
    assert kf.models.fused_weights is fused_weights


@pytest.mark.parametrize(
    "how",
    [
        {"fill": "copies", "asymmetry": 0.2},
        pytest.param(
            {"fill": "copies", "noise": 0.2, "noise_kind": "balanced"}, marks=pytest.mark.slow
        ),
        pytest.param({"grow": ("mlp",), "noise": 0.1}, marks=pytest.mark.slow),
        {"grow": ("hidden", "heads"), "fill": "copies", "noise": 0.1},
    ],
)
@pytest.mark.one_backend
def test_self_fusions_with_options(how):
    model = tiny.shared(num_layers=1)
    how = {"norm": "rule", "seed": 3} | how
    assert_same(model.self_fuse(2, **how), fused_from_arrays([model, model], **how))


@pytest.mark.one_backend
def test_copies_of_two_networks_are_refused():
    models = [tiny.shared(seed, num_layers=1) for seed in (0, 1)]
    with pytest.raises(FusionError, match="Received: 2 networks"):
        fused_from_arrays(models, fill="copies")
