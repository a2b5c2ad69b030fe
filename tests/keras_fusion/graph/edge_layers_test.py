"""Layers for which a plausible rule gives a wrong network, each against the mean."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fusion as kf
from keras_fusion.layers import FusableMultiHeadAttention
from tests.keras_fusion.fusion_contract import numpy
from tests.keras_fusion.graph.networks import check_mean, graph, pair, stacked


class TestWhatLayersLearnedFromData:
    def network(self, values, seed):
        normalization = layers.Normalization()
        normalization.adapt(np.asarray(values, "float32").reshape(-1, 4))
        inputs = keras.Input((4,))
        x = layers.Dense(3, activation="tanh")(normalization(inputs))
        model = keras.Model(inputs, layers.Dense(2)(x))
        for variable in model.trainable_variables:
            variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
        return model

    @pytest.mark.one_backend
    def test_a_normalization_that_all_share(self):
        check_mean([self.network(np.arange(20), seed) for seed in range(2)])

    @pytest.mark.one_backend
    def test_normalizations_that_differ(self):
        with pytest.raises(kf.FusionError, match="layer `normalization.*must be equal in every"):
            kf.fuse([self.network(np.arange(20), 0), self.network(np.arange(20) ** 2, 1)])

    def words(self, words, seed):
        lookup = layers.StringLookup()
        lookup.adapt(words)
        inputs = keras.Input((3,), dtype="string")
        x = layers.Flatten()(layers.Embedding(8, 4)(lookup(inputs)))
        model = keras.Model(inputs, layers.Dense(2)(x))
        for variable in model.trainable_variables:
            variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
        return model

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings are TensorFlow's")
    def test_vocabularies(self):
        import tensorflow as tf

        a, b = (self.words(["a", "b", "c"], seed) for seed in range(2))
        x = tf.constant([["a", "c", "?"], ["b", "b", "a"]])
        np.testing.assert_allclose(
            numpy(kf.fuse([a, b])(x)), (numpy(a(x)) + numpy(b(x))) / 2, atol=1e-5
        )
        with pytest.raises(kf.FusionError, match="vocabulary: other words"):
            kf.fuse([a, self.words(["x", "y"], 1)])


class TestEinsumDense:
    @pytest.mark.one_backend
    def test_a_letter_in_input_kernel_and_output_on_a_shared_input(self):
        def function(width):
            return lambda x: layers.Dense(3)(ops.tanh(layers.EinsumDense("ab,b->ab", (5,))(x)))

        check_mean(pair(function, (5,)))

    @pytest.mark.one_backend
    def test_a_letter_that_is_summed_without_a_weight(self):
        def function(width):
            def network(x):
                x = layers.Permute((2, 1))(layers.Dense(width, activation="tanh")(x))
                return layers.Dense(2)(layers.EinsumDense("abc,cd->ad", (4,))(x))

            return network

        with pytest.raises(kf.FusionError, match="sums over `b`, which grew, without a weight"):
            kf.fuse(pair(function, (3, 5)))


@pytest.mark.parametrize(
    "make",
    [
        lambda width: layers.LSTM(width, recurrent_activation="softmax", return_sequences=True),
        lambda width: layers.RNN(
            layers.SimpleRNNCell(width, activation="softmax"), return_sequences=True
        ),
        lambda width: layers.Bidirectional(
            layers.LSTM(width, activation="softmax", return_sequences=True)
        ),
        lambda width: layers.TimeDistributed(layers.Dense(width, activation="softmax")),
    ],
)
@pytest.mark.one_backend
def test_activations_inside_that_join_units_are_refused(make):
    def function(width):
        return lambda x: layers.Dense(2)(make(width)(x))

    with pytest.raises(kf.FusionError, match="an activation inside it joins units"):
        kf.fuse(pair(function, (3, 5)))


def test_grouped_convolutions():
    def function(width):
        return lambda x: layers.Dense(2)(
            layers.Flatten()(layers.Conv1D(width, 2, groups=2, activation="relu")(x))
        )

    check_mean(pair(function, (6, 4), widths=(4, 4)))
    with pytest.raises(kf.FusionError, match=r"filters of a group.*\[2, 4\]"):
        kf.fuse(pair(function, (6, 4), widths=(4, 8)))


@pytest.mark.one_backend
def test_groups_of_a_norm_that_all_sources_read_are_compared():
    def network(groups):
        return stacked(
            layers.GroupNormalization(groups), layers.Flatten(), layers.Dense(2), inputs=(3, 8)
        )

    with pytest.raises(kf.FusionError, match="group"):
        kf.fuse([network(2), network(4)])


@pytest.mark.one_backend
def test_a_flatten_of_channels_that_come_first():
    def function(width):
        def network(x):
            x = layers.Permute((2, 1))(layers.Dense(width, activation="relu")(x))
            return layers.Dense(2)(layers.Flatten(data_format="channels_first")(x))

        return network

    check_mean(pair(function, (3, 5)))


@pytest.mark.one_backend
def test_cells_that_keras_numbered():
    def function(width):
        def network(x):
            cells = [layers.LSTMCell(width + 1), layers.GRUCell(width)]
            return layers.Dense(2)(layers.RNN(cells)(x))

        return network

    check_mean(pair(function, (3, 5)))


@pytest.mark.one_backend
def test_an_activation_over_another_dimension():
    def function(width):
        def network(x):
            y = layers.Dense(width, activation=lambda z: ops.softmax(z, axis=1))(x)
            return layers.Dense(2)(y)

        return network

    check_mean(pair(function, (3, 5), widths=(4, 4)))


@pytest.mark.one_backend
def test_states_of_recurrent_layers():
    def network(seed, stateful=False, given=False):
        inputs = [keras.Input(batch_shape=(3, 4, 2)), keras.Input(batch_shape=(3, 4))]
        state = [inputs[1], inputs[1]] if given else None
        x = layers.LSTM(4, stateful=stateful)(inputs[0], initial_state=state)
        return keras.Model(inputs, layers.Dense(2)(x + layers.Dense(4)(inputs[1])))

    with pytest.raises(kf.FusionError, match="stateful=False"):
        kf.fuse([network(0, stateful=True), network(1, stateful=True)])
    with pytest.raises(kf.FusionError, match="initial state must come from layers that grow"):
        kf.fuse([network(0, given=True), network(1, given=True)])


@pytest.mark.one_backend
def test_grouped_queries_of_what_all_sources_read():
    def function(width):
        return lambda x: layers.Dense(2)(layers.GroupQueryAttention(4, 2 * width, width)(x, x))

    check_mean(pair(function, (5, 6), widths=(2, 1)))


@pytest.mark.one_backend
def test_scores_of_an_attention_as_an_output():
    def function(width):
        def network(x):
            return list(
                layers.MultiHeadAttention(2, 3, output_shape=3)(x, x, return_attention_scores=True)
            )

        return network

    with pytest.warns(kf.SymmetryWarning):
        model = pair(function, (5, 6))[0]
        fused = kf.fuse([model, model], average="outputs")
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
    for output, expected in zip(fused(x), model(x), strict=True):
        np.testing.assert_allclose(numpy(output), numpy(expected), atol=1e-5)


@pytest.mark.parametrize("axis", [2, -1])
@pytest.mark.one_backend
def test_norms_of_channels_on_what_all_sources_read(axis):
    def function(width):
        return lambda x: layers.Dense(2)(
            layers.Flatten()(layers.GroupNormalization(2, axis=axis)(x))
        )

    check_mean(pair(function, (3, 4, 6)))


@pytest.mark.one_backend
def test_an_equation_with_dimensions_behind_its_letters():
    def function(width):
        return lambda x: layers.Dense(2)(layers.EinsumDense("ab...,bc->ac...", 3)(x))

    with pytest.raises(kf.FusionError, match="declares no axes"):
        kf.fuse(pair(function, (5, 3)))


@pytest.mark.parametrize("kind", [layers.MultiHeadAttention, FusableMultiHeadAttention])
@pytest.mark.one_backend
def test_an_attention_whose_output_is_the_model_s(kind):
    def function(width):
        return lambda x: kind(width, 3, output_shape=2)(x, x)

    fused = check_mean(pair(function, (5, 6), widths=(2, 3)))
    assert fused.layers[-1].get_config()["num_heads"] == 5


@pytest.mark.one_backend
def test_the_size_of_a_head_that_an_equation_makes_stays():
    def projected(x):
        heads = layers.EinsumDense("abc,cde->abde", (None, 2, 4))(x)
        return layers.EinsumDense("abde,dec->abc", (None, 3))(heads)

    sources = [graph(projected, (3, 5), seed=seed) for seed in range(2)]
    check_mean(sources)
    shapes = [tuple(weight.shape) for weight in kf.fuse(sources).weights]
    assert shapes == [(5, 4, 4), (4, 4, 3)]
