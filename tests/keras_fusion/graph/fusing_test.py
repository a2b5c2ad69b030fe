"""`kf.fuse` on functional and sequential models: what it computes, and what it cannot fuse."""

import os
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_fusion as kf
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.layers import (
    FusableDense,
    FusableEinsumDense,
    FusableEmbedding,
    FusableLayerNorm,
    FusableMultiHeadAttention,
    FusableRMSNorm,
)
from tests import forks
from tests.keras_fusion.fusion_contract import numpy, random_inputs
from tests.keras_fusion.graph.networks import FEATURES, perceptron, randomised, residual


def transformer(seed=0, width=4, heads=2):
    tokens = keras.Input((6,), dtype="int32")
    x = FusableEmbedding(11, width, mask_zero=True)(tokens)
    y = FusableRMSNorm()(x)
    x = layers.Add()([x, FusableMultiHeadAttention(heads, 3)(y, y, use_causal_mask=True)])
    y = FusableEinsumDense("abc,cd->abd", (None, 2 * width), activation="relu", bias_axes="d")(x)
    x = layers.Add()([x, FusableDense(width)(y)])
    x = FusableLayerNorm()(layers.GlobalAveragePooling1D()(x))
    return randomised(keras.Model(tokens, FusableDense(3)(x)), seed)


# Two rows, as in the check of a fusion: JAX then compiles every operation once.
TOKENS = np.random.default_rng(0).integers(1, 11, (2, 6)).astype("int32")
TOKENS[1, 4:] = 0


# As Keras' own, an einsum layer does not hand masks on.
@pytest.mark.filterwarnings("ignore:Layer 'fusable_einsum_dense")
@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        pytest.param(perceptron, FEATURES, marks=pytest.mark.one_backend),
        pytest.param(residual, FEATURES, marks=pytest.mark.one_backend),
        (transformer, TOKENS),
    ],
)
@pytest.mark.parametrize("widths", [(4, 4), pytest.param((4, 3, 6), marks=pytest.mark.one_backend)])
def test_the_outputs_are_the_mean(build, inputs, widths):
    sources = [build(seed, width) for seed, width in enumerate(widths)]
    fused = kf.fuse(sources)
    assert type(fused) is type(sources[0])
    assert len(fused.weights) == len(sources[0].weights)
    mean = np.mean([numpy(source(inputs)) for source in sources], 0)
    np.testing.assert_allclose(numpy(fused(inputs)), mean, rtol=1e-5, atol=1e-5)


@pytest.mark.one_backend
def test_fused_again_saved_and_trained(tmp_path):
    a, b, c = residual(0), residual(1, 3), residual(2, 5)
    fused = kf.fuse([kf.fuse([a, b]), c])
    expected = (numpy(a(FEATURES)) + numpy(b(FEATURES))) / 4 + numpy(c(FEATURES)) / 2
    np.testing.assert_allclose(numpy(fused(FEATURES)), expected, atol=1e-5)
    fused.save(tmp_path / "fused.keras")
    loaded = keras.saving.load_model(tmp_path / "fused.keras", safe_mode=True)
    np.testing.assert_array_equal(numpy(loaded(FEATURES)), numpy(fused(FEATURES)))
    loaded.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    target = np.ones((2, 3), "float32")
    losses = [float(loaded.train_on_batch(FEATURES, target)) for _ in range(4)]
    assert losses[3] < losses[0]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_mean_is_that_before_the_last_activation(activation):
    sources = [perceptron(seed, activation=activation) for seed in range(2)]
    logits = [perceptron(seed) for seed in range(2)]
    mean = np.mean([numpy(source(FEATURES)) for source in logits], 0)
    expected = numpy(getattr(keras.activations, activation)(keras.ops.convert_to_tensor(mean)))
    np.testing.assert_allclose(numpy(kf.fuse(sources)(FEATURES)), expected, atol=1e-5)


@pytest.mark.one_backend
def test_rule_keeps_the_architecture_and_property_the_groups():
    sources = [residual(0, 4), residual(1, 3)]
    groups = {}
    for norm in ("property", "rule"):
        fused = kf.fuse(sources, norm=norm)
        groups[norm] = [layer.groups for layer in fused.layers if hasattr(layer, "groups")]
    assert groups == {"property": [(4, 3)] * 2, "rule": [None] * 2}


@pytest.mark.parametrize("norm", ["property", "rule"])
@pytest.mark.one_backend
def test_self_fusion_with_balanced_noise_keeps_the_function(norm):
    model = residual(0)
    fused = kf.fuse([model] * 3, norm=norm, noise=0.2, noise_kind="balanced", seed=1)
    np.testing.assert_allclose(numpy(fused(FEATURES)), numpy(model(FEATURES)), atol=1e-4)
    assert kf.symmetry(fused) > 0.1


def test_a_layer_that_is_called_twice():
    def build(seed):
        inputs = keras.Input((5,))
        shared = FusableDense(4, activation="tanh")
        x = shared(shared(FusableDense(4)(inputs)))
        return randomised(keras.Model(inputs, FusableDense(2)(x)), seed)

    a, b = build(0), build(1)
    fused = kf.fuse([a, b])
    assert len(fused.weights) == len(a.weights)
    mean = (numpy(a(FEATURES)) + numpy(b(FEATURES))) / 2
    np.testing.assert_allclose(numpy(fused(FEATURES)), mean, atol=1e-5)


def test_several_inputs_and_outputs():
    def build(seed):
        inputs = [keras.Input((5,), name="left"), keras.Input((5,), name="right")]
        x = layers.Add()([FusableDense(4)(tensor) for tensor in inputs])
        return randomised(keras.Model(inputs, [FusableDense(2)(x), FusableDense(3)(x)]), seed)

    a, b = build(0), build(1)
    both = [FEATURES, FEATURES[::-1].copy()]
    for fused, *apart in zip(kf.fuse([a, b])(both), a(both), b(both), strict=True):
        mean = np.mean([numpy(output) for output in apart], 0)
        np.testing.assert_allclose(numpy(fused), mean, atol=1e-5)


@pytest.mark.one_backend
def test_the_inputs_may_leave_as_they_came():
    def build(seed):
        inputs = keras.Input((5,))
        x = layers.Activation("relu")(inputs)
        x = layers.Add()([x, FusableDense(5)(FusableDense(4, activation="tanh")(x))])
        return randomised(keras.Model(inputs, [x, layers.Activation("softmax")(x)]), seed)

    a, b = build(0), build(1)
    mean = (numpy(a(FEATURES)[0]) + numpy(b(FEATURES)[0])) / 2
    logits, probabilities = kf.fuse([a, b])(FEATURES)
    np.testing.assert_allclose(numpy(logits), mean, atol=1e-5)
    np.testing.assert_allclose(numpy(probabilities), numpy(keras.ops.softmax(logits)), atol=1e-6)


@pytest.mark.one_backend
def test_a_report_says_what_became_of_every_weight():
    fused = kf.fuse([perceptron(0), perceptron(1, 3)])
    rows = {row.path.split("/")[1] + str(row.shape): row for row in kf.report(fused).weights}
    assert [row.operation for row in kf.report(fused).weights] == [
        *["concatenation"] * 2,
        "blocks",
        "concatenation",
        "concatenation",
        "mean",
    ]
    first = rows["kernel(7, 9)"]
    assert first.sources == ((4, 5), (3, 4)) and first.eta == pytest.approx(1 - 32 / 63)
    assert rows["kernel(9, 3)"].factor == "1/n" and first.factor == "1"
    assert "7 x 9" in str(kf.report(fused))
    with pytest.raises(FusionError, match="a report needs a model that a fusion made"):
        kf.report(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))


def of(*stack, inputs=(5,)):
    return randomised(keras.Sequential([keras.Input(inputs), *stack]), 0)


def fused_output(models, inputs=FEATURES, **options):
    return [numpy(output) for output in keras.tree.flatten(kf.fuse(models, **options)(inputs))]


def mean_output(models, inputs=FEATURES):
    outputs = [keras.tree.flatten(model(inputs)) for model in models]
    return [np.mean([numpy(output) for output in parts], 0) for parts in zip(*outputs, strict=True)]


def seeded(build):
    return [randomised(build(), seed) for seed in range(2)]


@pytest.mark.one_backend
class TestWhatOnceCouldNotBeFused:
    """Operations that need the sources apart are computed for each of them, and joined."""

    @pytest.mark.parametrize(
        ("build", "inputs"),
        [
            (lambda: of(FusableDense(4), layers.Dense(3), FusableDense(2)), (2, 5)),
            (
                lambda: of(FusableDense(4), layers.Flatten(), FusableDense(2), inputs=(3, 5)),
                (2, 3, 5),
            ),
            (lambda: of(FusableDense(4, activation="softmax"), FusableDense(2)), (2, 5)),
            (lambda: of(FusableDense(4), layers.Activation("softmax"), FusableDense(2)), (2, 5)),
            (lambda: of(FusableDense(4), FusableLayerNorm()), (2, 5)),
            (lambda: of(FusableLayerNorm(), FusableDense(4), FusableDense(2)), (2, 5)),
        ],
    )
    def test_a_layer_in_any_place(self, build, inputs):
        sources, values = seeded(build), random_inputs([inputs])[0]
        for output, mean in zip(
            fused_output(sources, values), mean_output(sources, values), strict=True
        ):
            np.testing.assert_allclose(output, mean, atol=1e-5)

    def test_a_shared_tensor_joined_to_a_widened_one(self):
        def build():
            inputs = keras.Input((5,))
            x = layers.Add()([inputs, FusableDense(5)(inputs)])
            return keras.Model(inputs, FusableDense(2)(x))

        sources = seeded(build)
        np.testing.assert_allclose(fused_output(sources)[0], mean_output(sources)[0], atol=1e-5)

    @pytest.mark.parametrize("depth", [1, 2])
    def test_an_output_that_is_used_inside(self, depth):
        def build():
            inputs = keras.Input((5,))
            x = y = FusableDense(4)(inputs)
            for _ in range(depth):
                y = FusableDense(2)(y)
            return keras.Model(inputs, [x, y])

        sources = seeded(build)
        for output, mean in zip(fused_output(sources), mean_output(sources), strict=True):
            np.testing.assert_allclose(output, mean, atol=1e-5)

    @pytest.mark.parametrize("join", [layers.Multiply, layers.Maximum, layers.Minimum])
    def test_outputs_joined_by_more_than_a_sum(self, join):
        def build():
            inputs = keras.Input((5,))
            return keras.Model(inputs, join()([FusableDense(3)(inputs) for _ in range(2)]))

        sources = seeded(build)
        np.testing.assert_allclose(fused_output(sources)[0], mean_output(sources)[0], atol=1e-5)


@pytest.mark.one_backend
class TestWhatCannotBeFused:
    def test_depths_that_differ(self):
        a = of(FusableDense(4), FusableDense(2))
        with pytest.raises(FusionError, match="number of layers: 2 vs 3"):
            kf.fuse([a, perceptron()])

    def test_layers_that_differ(self):
        a = of(FusableDense(4), FusableRMSNorm(), FusableDense(2))
        b = of(FusableDense(4), FusableLayerNorm(), FusableDense(2))
        with pytest.raises(
            FusionError,
            match=r"structure: layer `\w+` \(FusableRMSNorm\) vs layer `\w+` \(FusableLayerNorm\)",
        ):
            kf.fuse([a, b])

    def test_a_model_that_is_not_built(self):
        raw = keras.Sequential([FusableDense(4), FusableDense(2)], name="raw")
        with pytest.raises(FusionError, match=r"source 1 \(`raw`\) is not built"):
            kf.fuse([of(FusableDense(4), FusableDense(2)), raw])

    def test_too_few_and_other_things(self):
        with pytest.raises(FusionError, match="at least two networks, received 0"):
            kf.fuse([])
        with pytest.raises(FusionError, match="at least two networks, received 1"):
            kf.fuse([perceptron()])
        for n in (1, 2.0, True, "2", 10**9):
            with pytest.raises(FusionError, match=f"from 2 to 1,000. Received: n={n!r}"):
                kf.self_fuse(perceptron(), n)
        with pytest.raises(FusionError, match="source 1 is a Dense; fusing takes kf.models"):
            kf.fuse([perceptron(), layers.Dense(2)])

    def test_an_unknown_norm(self):
        with pytest.raises(FusionError, match="norm='batch'"):
            kf.fuse([perceptron(), perceptron()], norm="batch")

    def test_everything_is_named_at_once_and_nothing_is_made(self, monkeypatch):
        def build(seed, activation, epsilon, classes):
            return of(
                FusableDense(4, activation=activation, name="first"),
                FusableRMSNorm(epsilon=epsilon, name="second"),
                layers.Dense(4, name="third"),
                FusableDense(classes, name="fourth"),
            )

        a, b = build(0, "relu", 1e-6, 2), build(1, "tanh", 1e-3, 3)
        weights = b.get_weights()
        weights[0][0, 0] = np.nan
        b.set_weights(weights)

        def refuse(*args, **kwargs):
            raise AssertionError("A target was made.")

        monkeypatch.setattr("keras_fusion.graph.fusing.Builder", refuse)
        with pytest.raises(FusionError) as error:
            kf.fuse([a, b])
        for expected in (
            "`first` (FusableDense): activation: relu vs tanh",
            "weight `kernel` of `first` holds 1 NaN",
            "`second` (FusableRMSNorm): epsilon: 1e-06 vs 0.001",
        ):
            assert expected in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.one_backend
class TestSymmetryWarning:
    def test_equal_sources(self):
        with pytest.warns(SymmetryWarning, match="never part") as caught:
            kf.fuse([perceptron(), perceptron()])
        # Other warnings may come from the backend.
        assert sum(warning.category is SymmetryWarning for warning in caught) == 1

    def test_not_for_others(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", SymmetryWarning)
            kf.fuse([perceptron(0), perceptron(1)])
            kf.fuse([perceptron(0), perceptron(0)], noise=0.1)
            kf.fuse([residual(0), residual(0)])  # it has dropout


@pytest.mark.one_backend
def test_a_saved_model_of_stock_layers_loads_without_the_library(tmp_path):
    def network(seed):
        inputs = keras.Input((5,))
        x = layers.Dense(4, activation="softmax")(inputs)
        x = layers.BatchNormalization()(x * layers.Dense(1)(x))
        return randomised(keras.Model(inputs, layers.Dense(2)(x)), seed)

    fused = kf.fuse([network(0), network(1)])
    fused.save(tmp_path / "fused.keras")
    np.save(tmp_path / "x.npy", FEATURES)
    program = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "assert 'keras_fusion' not in sys.modules\n"
        "np.save(sys.argv[3], keras.ops.convert_to_numpy(model(np.load(sys.argv[2]))))\n"
    )
    names = [str(tmp_path / name) for name in ("fused.keras", "x.npy", "y.npy")]
    # Another backend than this one's: Keras is imported anew, and the library is not.
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    forks.run([sys.executable, "-c", program, *names], env=environment, check=True)
    np.testing.assert_allclose(np.load(names[2]), numpy(fused(FEATURES)), atol=1e-6)
