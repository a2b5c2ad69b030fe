"""`kf.grow`: some layers of one model get wider, and the model computes what it did."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fusion as kf
from keras_fusion.errors import FusionError, SymmetryWarning
from tests.keras_fusion.fusion_contract import EAGERLY, numpy, random_inputs
from tests.keras_fusion.graph.networks import randomised

pytestmark = pytest.mark.filterwarnings("ignore::keras_fusion.errors.SymmetryWarning")


def perceptron():
    stack = [
        layers.Dense(4, activation="relu", name="first"),
        layers.Dense(3, activation="tanh", name="second"),
        layers.Dense(2, name="last"),
    ]
    return randomised(keras.Sequential([keras.Input((5,)), *stack]))


def convolutional():
    stack = [
        layers.Conv2D(3, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(),
        layers.DepthwiseConv2D(2, name="depthwise"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(4, activation="relu", name="dense"),
        layers.Dense(2, name="last"),
    ]
    return randomised(keras.Sequential([keras.Input((8, 8, 1)), *stack]))


def transformer():
    """A pre-norm block with a gated MLP, as a nested model, and a head."""
    hidden = keras.Input((None, 6))
    x = layers.LayerNormalization(name="norm")(hidden)
    x = hidden + layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    y = layers.LayerNormalization(name="second_norm")(x)
    y = layers.Dense(5, activation="gelu", name="up")(y) * layers.Dense(5, name="gate")(y)
    block = keras.Model(hidden, x + layers.Dense(6, name="down")(y), name="block")
    tokens = keras.Input((4,), dtype="int32")
    x = block(layers.Embedding(7, 6, name="embedding")(tokens))
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(5, activation="relu", name="pooled")(x)
    return randomised(keras.Model(tokens, layers.Dense(3, name="last")(x)))


def recurrent():
    stack = [
        layers.LSTM(3, name="lstm"),
        layers.Dense(4, name="dense"),
        layers.Dense(2, name="last"),
    ]
    return randomised(keras.Sequential([keras.Input((4, 5)), *stack]))


# Two rows, as in the check of a fusion: JAX then compiles every operation once.
INPUTS = {
    perceptron: random_inputs([(2, 5)])[0],
    convolutional: random_inputs([(2, 8, 8, 1)])[0],
    transformer: np.array([[1, 2, 3, 4], [6, 0, 5, 1]], "int32"),
    recurrent: random_inputs([(2, 4, 5)])[0],
}


# The hidden layers of the transformer, twice as wide.
WIDE = {"up": 10, "gate": 10, "pooled": 10}


def layers_of(model):
    inner = [layer.layers if isinstance(layer, keras.Model) else [layer] for layer in model.layers]
    return {layer.name: layer for part in inner for layer in part}


def sizes(model):
    """Units, filters or heads of every layer that has some."""
    names = ("units", "filters", "num_heads")
    return {
        name: getattr(layer, size)
        for name, layer in layers_of(model).items()
        for size in names
        if hasattr(layer, size)
    }


@pytest.mark.parametrize(
    ("build", "factors", "changed"),
    [
        (perceptron, {"mlp": 2}, {"first": 8, "second": 6}),
        (perceptron, {"second": 3}, {"second": 9}),
        (convolutional, {"mlp": 2}, {"conv": 6, "dense": 8}),
        (convolutional, {"conv": 3, "dense": 2}, {"conv": 9, "dense": 8}),
        (transformer, {"mlp": 2}, WIDE),
        (transformer, {"heads": 3, "mlp": 2}, WIDE | {"attention": 6}),
        (
            transformer,
            {"attention": 2, "block/up": 2, "gate": 2},
            {"attention": 4, "up": 10, "gate": 10},
        ),
        (recurrent, {"lstm": 2}, {"lstm": 6}),
        (recurrent, {"mlp": 2}, {"dense": 8}),
    ],
)
@pytest.mark.one_backend
def test_layers_grow_and_the_function_stays(build, factors, changed):
    model = build()
    grown = kf.grow(model, factors)
    assert type(grown) is type(model)
    assert sizes(grown) == sizes(model) | changed
    assert_same_function(grown, model, build)


@pytest.mark.parametrize(
    "options",
    [
        {"noise": 0.3, "seed": 1},
        pytest.param({"fill": "copies", "asymmetry": 0.2}, marks=pytest.mark.one_backend),
    ],
)
@pytest.mark.parametrize(
    ("build", "factors"),
    [
        (perceptron, {"mlp": 3}),
        pytest.param(transformer, {"heads": 2, "mlp": 2}, marks=pytest.mark.one_backend),
        pytest.param(recurrent, {"lstm": 2}, marks=pytest.mark.one_backend),
    ],
)
def test_copies_that_part_keep_the_function(build, factors, options):
    model = build()
    grown = kf.grow(model, factors, **options)
    assert kf.symmetry(grown) > 0.01
    assert_same_function(grown, model, build)


def assert_same_function(grown, model, build):
    expected = numpy(model(INPUTS[build]))
    np.testing.assert_allclose(numpy(grown(INPUTS[build])), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.one_backend
def test_the_blocks_of_a_copy():
    model = perceptron()
    grown = kf.grow(model, first=2)
    (kernel, bias), (second, unchanged), last = (layer.get_weights() for layer in model.layers)
    wide = [layer.get_weights() for layer in grown.layers]
    np.testing.assert_array_equal(wide[0][0], np.concatenate([kernel, kernel], 1))
    np.testing.assert_array_equal(wide[0][1], np.concatenate([bias, bias]))
    np.testing.assert_array_equal(wide[1][0], np.concatenate([second, second]) / 2)
    np.testing.assert_array_equal(wide[1][1], unchanged)
    np.testing.assert_array_equal(wide[2][0], last[0])


@pytest.mark.one_backend
def test_units_that_are_read_beside_others():
    """Behind a concatenation with the input only the rows of the copies are divided."""
    inputs = keras.Input((2,))
    hidden = layers.Dense(3, name="hidden")(inputs)
    outputs = layers.Dense(1, name="last")(layers.Concatenate()([inputs, hidden]))
    model = randomised(keras.Model(inputs, outputs))
    grown = kf.grow(model, mlp=2)
    rows = layers_of(model)["last"].get_weights()[0]
    expected = np.concatenate([rows[:2], rows[2:] / 2, rows[2:] / 2])
    np.testing.assert_array_equal(layers_of(grown)["last"].get_weights()[0], expected)


@pytest.mark.parametrize(
    ("build", "factors", "message"),
    [
        (perceptron, {"last": 2}, "cannot grow last: its units are those of output 0"),
        (perceptron, {"middle": 2}, "no such layers that grow. Groups: mlp. .*: first, second$"),
        (convolutional, {"norm": 2}, "no such layers that grow.*: conv, dense$"),
        (transformer, {"embedding": 2}, r"layer `norm` \(LayerNormalization\): it normalises over"),
        (transformer, {"up": 2}, "beside others.*can grow: attention, up, gate, pooled$"),
        (transformer, {"down": 2}, "`add_?.*reads units that would grow beside others"),
        (recurrent, {"heads": 2}, "cannot grow heads: the model has no such layers"),
        (perceptron, {"first": 1}, "from 2 to 1,000, such as mlp=2. Received: {'first': 1}"),
        (perceptron, {"first": 10**9}, "from 2 to 1,000.*Received: {'first': 1000000000}"),
        (perceptron, {}, "Received: no names"),
    ],
)  # fmt: skip
@pytest.mark.one_backend
def test_what_cannot_grow(build, factors, message):
    with pytest.raises(FusionError, match=message):
        kf.grow(build(), factors)


@pytest.mark.one_backend
def test_a_factor_without_a_name():
    with pytest.raises(FusionError, match="Received: factors=2; write mlp=2, or a dictionary"):
        kf.grow(perceptron(), 2)


@pytest.mark.one_backend
def test_a_layer_that_declares_no_axes_stays_as_it_is():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.Dense(3)])
    stack = [layers.TimeDistributed(inner), layers.Dense(4, name="hidden"), layers.Dense(2)]
    model = randomised(keras.Sequential([keras.Input((2, 5)), *stack]))
    steps = random_inputs([(2, 2, 5)])[0]
    grown = kf.grow(model, mlp=2)
    assert grown.layers[1].units == 8
    np.testing.assert_allclose(numpy(grown(steps)), numpy(model(steps)), rtol=1e-4, atol=1e-5)


@pytest.mark.one_backend
def test_a_model_without_a_graph():
    with pytest.raises(FusionError, match="growing takes a kf.models.T5, or a built"):
        kf.grow(keras.Sequential([layers.Dense(2)]), mlp=2)


@pytest.mark.one_backend
def test_residual_convolutions_grow_inside_their_branch_only():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    y = layers.Conv2D(5, 3, padding="same", name="inner")(x)
    y = layers.BatchNormalization()(layers.ReLU()(y))
    x = layers.Add()([x, layers.Conv2D(4, 1, name="outer")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    model = randomised(keras.Model(inputs, layers.Dense(2, name="last")(x)))
    assert sizes(kf.grow(model, mlp=2)) == sizes(model) | {"inner": 10}
    # Both ends of the sum may grow where both are named.
    both = kf.grow(model, stem=2, outer=2)
    images = random_inputs([(2, 6, 6, 3)])[0]
    np.testing.assert_allclose(numpy(both(images)), numpy(model(images)), rtol=1e-4, atol=1e-5)


@pytest.mark.one_backend
def test_noise_parts_the_copies_and_without_it_growth_warns():
    with pytest.warns(SymmetryWarning):
        kf.grow(perceptron(), mlp=2)
    assert kf.symmetry(kf.grow(perceptron(), mlp=2, noise=0.3)) > 0.05


@pytest.mark.one_backend
def test_a_report_names_what_grew():
    grown = kf.grow(transformer(), heads=2, pooled=3)
    rows = {row.path: (row.shape, row.factor) for row in kf.report(grown).weights}
    assert rows["pooled/kernel"] == ((6, 15), "1") and rows["last/kernel"] == ((15, 3), "1/n")
    assert rows["attention/attention_output/kernel"] == ((4, 3, 6), "1/n")
    assert "embedding/embeddings" not in rows and "last/bias" not in rows


def test_a_compiled_model_trains_on_with_its_optimizer_grown():
    model = perceptron()
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=EAGERLY)
    targets = np.ones((2, 2), "float32")
    for _ in range(3):
        model.train_on_batch(INPUTS[perceptron], targets)
    grown = kf.grow(model, first=2, optimizer="grow")
    assert int(grown.optimizer.iterations) == 3
    before = float(model.test_on_batch(INPUTS[perceptron], targets))
    first = float(grown.train_on_batch(INPUTS[perceptron], targets))
    assert first == pytest.approx(before, rel=1e-5)
    assert float(grown.test_on_batch(INPUTS[perceptron], targets)) < first


@pytest.mark.one_backend
def test_a_layer_that_a_recurrent_layer_reads_grows_alone():
    for reader in (layers.SimpleRNN(3), layers.LSTM(3), layers.Bidirectional(layers.GRU(2))):
        model = keras.Sequential([keras.Input((5, 8)), layers.Dense(4, name="a"), reader])
        wide = kf.grow(model, a=2)
        assert wide.layers[0].units == 8 and wide.output_shape == model.output_shape
        x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
        np.testing.assert_allclose(numpy(wide(x)), numpy(model(x)), atol=1e-6)


@pytest.mark.one_backend
def test_a_grouped_convolution_grows_with_what_it_reads():
    stem, grouped = layers.Conv2D(4, 3, name="a"), layers.Conv2D(4, 3, groups=2, name="g")
    head = [layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 3)), stem, grouped, *head])
    for name in ("a", "g"):
        with pytest.raises(kf.FusionError, match="name the layers of both"):
            kf.grow(model, {name: 2})
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    wide = kf.grow(model, a=2, g=2)
    np.testing.assert_allclose(numpy(wide(x)), numpy(model(x)), atol=1e-6)


@pytest.mark.one_backend
def test_the_layer_before_a_softmax_is_one_of_the_group():
    dense = [layers.Dense(6, "relu"), layers.Dense(5, "gelu"), layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((8,)), *dense])
    assert [layer.units for layer in kf.grow(model, mlp=2).layers] == [12, 10, 3]


@pytest.mark.parametrize(
    ("factors", "options", "received"),
    [
        ({3: 2}, {}, "{3: 2}"),
        ({"a": 2}, {"a": 3}, r"two factors of \['a'\]"),
        ({"a": 2}, {"seed": "s"}, "seed='s'"),
    ],
)
@pytest.mark.one_backend
def test_bad_factors(factors, options, received):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2)])
    with pytest.raises(kf.FusionError, match=f"Received: {received}"):
        kf.grow(model, factors, **options)
