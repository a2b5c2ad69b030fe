"""A layer in the way is named in a message that says why; what is in no way fuses."""

import types

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fusion as kf
from tests.keras_fusion.graph.networks import check_mean, graph, pair

pytestmark = pytest.mark.one_backend


def hidden(network):
    """Sources of unequal widths: a hidden layer, and a function of it."""
    return pair(lambda width: lambda x: network(layers.Dense(width, "relu")(x), width), (5,))


@pytest.mark.parametrize("average", ["logits", "outputs"])
@pytest.mark.parametrize("reduce", [ops.sum, ops.mean, ops.max])
def test_numbers_of_unequal_last_units(reduce, average):
    sources = hidden(lambda x, width: reduce(layers.Dense(width)(x), axis=-1))
    fused = check_mean(sources, average=average)
    assert fused.output_names == sources[0].output_names
    check_mean(sources, average=average, weights=[0.5, 0.5])


@pytest.mark.one_backend
def test_unequal_numbers_of_classes():
    sources = hidden(lambda x, width: layers.Dense(width, activation="softmax")(x))
    match = r"output 0: .*\(None, 4\) vs \(None, 3\); outputs='concat' keeps all of them"
    with pytest.raises(kf.FusionError, match=match):
        kf.fuse(sources)
    assert kf.fuse(sources, outputs="concat").output_shape == (None, 7)


@pytest.mark.one_backend
def test_groups_of_a_convolution_are_counted_in_whole_filters():
    def function(filters):
        return lambda x: layers.Dense(2)(layers.Flatten()(layers.Conv1D(filters, 2, groups=2)(x)))

    with pytest.raises(kf.FusionError, match=r"layer `conv1d.*received \[2, 4\]$"):
        kf.fuse(pair(function, (6, 4), widths=(4, 8)))


@pytest.mark.one_backend
def test_inputs_in_another_order_name_the_layer_that_reads_them():
    def build(swapped):
        inputs = [keras.Input((4,)), keras.Input((4,))]
        x = layers.Subtract(name="less")(inputs[::-1] if swapped else inputs)
        return keras.Model(inputs, layers.Dense(2)(x))

    with pytest.raises(kf.FusionError, match=r"layer `less` \(Subtract\): it reads input . vs"):
        kf.fuse([build(False), build(True)])


def test_an_input_of_a_nested_model_that_nothing_reads():
    def function(width):
        def network(x):
            both = [keras.Input((5,)), keras.Input((5,))]
            inner = keras.Model(both, layers.Dense(width, activation="relu")(both[0]))
            return layers.Dense(2)(inner([x, x * 2]))

        return network

    check_mean(pair(function, (5,)))


@pytest.mark.one_backend
def test_a_model_over_time():
    def function(width):
        def network(x):
            inner = keras.Sequential([layers.Dense(width), layers.Dense(3)], name="inner")
            return layers.Dense(2)(layers.TimeDistributed(inner)(x))

        return network

    match = "wraps the model `inner`; wrap each layer of that in a TimeDistributed of its own$"
    with pytest.raises(kf.FusionError, match=match):
        kf.fuse(pair(function, (3, 5)))


def activated(functions):
    """Sources, each with a function of its own as an activation."""
    return [
        graph(lambda x, f=f: layers.Dense(2)(layers.Dense(3, f)(x)), (5,), seed=seed)
        for seed, f in enumerate(functions)
    ]


def scaled(factor):
    """A function that reads a global, as one that another module defines."""
    code = compile(
        "def function(x):\n    return ops.multiply(ops.tanh(x), factor)", "module.py", "exec"
    )
    space = {"ops": ops, "factor": factor, "__name__": "module"}
    exec(code, space)
    return space["function"]


@pytest.mark.one_backend
def test_functions_that_read_unequal_globals():
    def sources(*factors):
        return activated(map(scaled, factors))

    check_mean(sources(2.0, 2.0))
    check_mean(sources(np.arange(3.0), np.arange(3.0)), average="outputs")
    with pytest.raises(kf.FusionError, match="activation: functions of one name that compute"):
        kf.fuse(sources(2.0, 3.0))


@pytest.mark.one_backend
def test_functions_that_call_one_another():
    code = "def even(x): return odd(x)\ndef odd(x): return x if x is not None else even(x)"
    spaces = [{"__name__": "module"}, {"__name__": "module"}]
    for space in spaces:
        exec(compile(code, "module.py", "exec"), space)
    functions = [space["even"] for space in spaces]
    assert all(isinstance(function, types.FunctionType) for function in functions)
    check_mean(activated(functions))


@pytest.mark.one_backend
def test_multipliers_of_channels_that_differ():
    def function(multiplier):
        def network(x):
            x = layers.DepthwiseConv1D(2, depth_multiplier=multiplier)(layers.Conv1D(3, 1)(x))
            return layers.Dense(2)(layers.Flatten()(x))

        return network

    with pytest.raises(kf.FusionError, match="layer `depthwise_conv1d.*: depth_multiplier: 1 vs 2"):
        kf.fuse(pair(function, (6, 2), widths=(1, 2)))


@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU])
def test_initial_states_of_both_directions(cell):
    count = 4 if cell is layers.LSTM else 2

    def function(width):
        def network(x, start):
            states = [layers.Dense(width, activation="tanh")(start) for _ in range(count)]
            both = layers.Bidirectional(cell(width, return_sequences=True))
            return layers.Dense(2)(both(x, initial_state=states))

        return network

    check_mean(pair(function, (3, 5), (4,)))


def test_initial_states_of_stacked_cells():
    def function(width):
        def network(x, start):
            cells = [layers.LSTMCell(width + 1), layers.GRUCell(width)]
            states = [layers.Dense(units)(start) for units in (width + 1, width + 1, width)]
            shaped = [states[:2], states[2]]
            return layers.Dense(2)(layers.RNN(cells)(x, initial_state=shaped))

        return network

    check_mean(pair(function, (3, 5), (4,)))


@pytest.mark.one_backend
def test_a_model_and_the_same_from_its_file(tmp_path):
    """Slices and lists of arguments are written down in another form."""
    sources = hidden(lambda x, width: layers.Softmax()(layers.Dense(2)(x[:, ::2])))
    fused = kf.fuse(sources, average="outputs", weights=[0.4, 0.6])
    fused.save(tmp_path / "fused.keras")
    loaded = keras.saving.load_model(tmp_path / "fused.keras")
    with pytest.warns(kf.SymmetryWarning):
        check_mean([fused, loaded])
