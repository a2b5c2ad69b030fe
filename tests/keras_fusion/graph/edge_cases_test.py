"""Layers and places in which a plausible rule gives a wrong network, each against the mean."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fusion as kf
from keras_fusion.layers import FusableMultiHeadAttention
from tests.keras_fusion.fusion_contract import numpy
from tests.keras_fusion.graph.differences_test import check_mean, graph, randomised, stacked


def pair(function, *shapes, widths=(4, 3)):
    """Two sources of unequal widths: `function` takes a width, and returns one of tensors."""
    return [graph(function(width), *shapes, seed=seed) for seed, width in enumerate(widths)]


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
class TestNamesAndTypes:
    def network(self, seed):
        inputs = keras.Input((5,), name="features")
        x = layers.Dense(4, name="body")(inputs)
        x = layers.Concatenate(name="concatenate")([x, inputs])
        outputs = [
            layers.Dense(3, activation="softmax", name="kind")(x),
            layers.Dense(1, name="size")(x),
        ]
        model = randomised(keras.Model(inputs, outputs), seed)
        losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
        model.compile("sgd", loss=losses, run_eagerly=True)
        return model

    def test_outputs_keep_the_names_that_losses_are_given_by(self):
        fused = kf.fuse([self.network(0), self.network(1)], average="outputs")
        assert fused.output_names == ["kind", "size"] and fused.inputs[0].name == "features"
        x = np.ones((4, 5), "float32")
        fused.fit(x, {"kind": np.zeros(4, int), "size": np.ones(4)}, verbose=0)
        names = {layer.name for layer in fused.layers}
        assert {"features", "body", "concatenate", "kind_sources"} <= names

    def test_models_from_files_in_a_process_that_made_none(self, tmp_path):
        for seed in range(2):
            self.network(seed).save(tmp_path / f"{seed}.keras")
        keras.utils.clear_session()
        sources = [keras.saving.load_model(tmp_path / f"{seed}.keras") for seed in range(2)]
        fused = kf.fuse(sources, average="outputs")
        again = kf.fuse([fused, fused], average="outputs", noise=0.1)
        assert again.output_names == ["kind", "size"]

    def test_what_is_added_computes_in_the_type_of_what_it_joins(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            sources = [
                stacked(
                    layers.Dense(4),
                    layers.Dense(3, activation="softmax", dtype="float32"),
                    seed=seed,
                )
                for seed in range(2)
            ]
            fused = kf.fuse(sources, average="outputs")
        finally:
            keras.config.set_dtype_policy("float32")
        assert keras.backend.standardize_dtype(fused.output.dtype) == "float32"


class TestNestedModels:
    @pytest.mark.one_backend
    def test_called_by_keyword(self):
        def function(width):
            def network(x):
                inner = keras.Input((5,))
                block = keras.Model(inner, layers.Dense(width, activation="relu")(inner))
                return layers.Dense(2)(block(inputs=x))

            return network

        check_mean(pair(function, (5,)))

    @pytest.mark.one_backend
    def test_called_on_more_than_it_reads(self):
        def function(width):
            def network(x):
                inner = {"p": keras.Input((5,), name="p"), "q": keras.Input((5,), name="q")}
                block = keras.Model(inner, layers.Dense(width)(inner["p"] + inner["q"]))
                return layers.Dense(2)(block({"p": x, "q": x * 2, "z": x}))

            return network

        check_mean(pair(function, (5,)))

    @pytest.mark.one_backend
    def test_of_which_one_output_is_read(self):
        def function(width):
            def network(x):
                inner = keras.Input((5,))
                h = layers.Dense(width, activation="relu")(inner)
                block = keras.Model(inner, [h, layers.Dense(7)(h)])
                return layers.Dense(2)(block(x)[0])

            return network

        check_mean(pair(function, (5,)))


@pytest.mark.one_backend
def test_a_lambda_before_anything_grew():
    sources = [
        stacked(layers.Lambda(lambda x: 2 * x), layers.Dense(width), layers.Dense(2), seed=width)
        for width in (2, 3)
    ]
    check_mean(sources)
    other = stacked(layers.Lambda(lambda x: 3 * x), layers.Dense(2), layers.Dense(2))
    with pytest.raises(kf.FusionError, match="functions of one name that compute other things"):
        kf.fuse([sources[0], other])


@pytest.mark.one_backend
def test_a_masked_sequential():
    sources = [
        stacked(layers.Masking(), layers.LSTM(width), layers.Dense(2), inputs=(4, 3), seed=width)
        for width in (2, 3)
    ]
    assert isinstance(check_mean(sources), keras.Sequential)


@pytest.mark.one_backend
def test_a_layer_that_is_computed_apart_and_called_twice():
    def function(width):
        def network(x):
            norm = layers.UnitNormalization()
            return layers.Dense(2)(norm(layers.Dense(width)(x)) + norm(layers.Dense(width)(x)))

        return network

    check_mean(pair(function, (3, 5)))


@pytest.mark.one_backend
def test_outputs_without_a_mean():
    def function(width):
        def network(x):
            h = layers.Dense(width, activation="relu")(x)
            return [h, layers.Dense(2)(h)]

        return network

    with pytest.raises(kf.FusionError, match=r"output 0: .*\(None, 4\) vs \(None, 3\)"):
        kf.fuse(pair(function, (5,)))
    with pytest.raises(kf.FusionError, match="output 0: .* of type bool"):
        kf.fuse(
            pair(lambda width: lambda x: layers.Dense(3)(layers.Dense(width)(x)) > 0, (5,)),
            average="outputs",
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.BatchNormalization(),
        lambda: layers.PReLU(),
        lambda: layers.LayerNormalization(),
    ],
)
@pytest.mark.one_backend
def test_a_layer_of_units_behind_a_skip_from_the_input(make):
    def function(width):
        def network(x):
            x = layers.Concatenate()([x, layers.Dense(width)(x)])
            return layers.Dense(2)(make()(x))

        return network

    sources = pair(function, (5,))
    for source in sources:
        for variable in source.variables:
            if "variance" in variable.path:
                variable.assign(np.abs(numpy(variable)) + 0.1)
    check_mean(sources)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: kf.fuse(a, b), "takes a list of models.*write kf.fuse"),
        (lambda a, b: kf.fuse(a), "takes a list of models"),
        (lambda a, b: kf.fuse([a, b], weights=[float("nan"), 0.5]), "weights must be 2 numbers"),
        (lambda a, b: kf.fuse([a, b], weights=0.5), "weights must be 2 numbers"),
        (lambda a, b: kf.fuse([a, b], weights=["a", "b"]), "weights must be 2 numbers"),
    ],
)
@pytest.mark.one_backend
def test_arguments_of_other_kinds(call, message):
    a, b = (stacked(layers.Dense(2), seed=seed) for seed in range(2))
    with pytest.raises(kf.FusionError, match=message):
        call(a, b)


@pytest.mark.one_backend
def test_functions_that_differ_in_what_they_close_over_or_default_to():
    def closing(scale):
        return lambda x: ops.tanh(x) * scale[2500]

    def defaulting(factor):
        def function(x, *, k=factor):
            return ops.tanh(x * k)

        return function

    arrays = [np.zeros(3000, "float32") for _ in range(2)]
    arrays[1][2500] = 1.0
    for functions in (list(map(closing, arrays)), [defaulting(1.0), defaulting(2.0)]):
        sources = [stacked(layers.Dense(3, activation=f), layers.Dense(2)) for f in functions]
        with pytest.raises(kf.FusionError, match="activation"):
            kf.fuse(sources)


@pytest.mark.one_backend
def test_an_output_that_weighs_the_loss_by_its_mask():
    def network(seed):
        inputs = keras.Input((4,), dtype="int32")
        x = layers.Embedding(5, 4, mask_zero=True)(inputs)
        x = layers.LSTM(3, return_sequences=True)(x)
        return randomised(keras.Model(inputs, layers.Dense(2, activation="softmax")(x)), seed)

    assert kf.fuse([network(0), network(1)])
    with pytest.raises(kf.FusionError, match="output 0: it carries a mask"):
        kf.fuse([network(0), network(1)], average="outputs")


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
def test_layers_that_are_told_to_train():
    def function(width):
        def network(x):
            x = layers.RandomFlip()(x)
            x = layers.Dropout(0.5)(layers.Dense(width)(layers.Flatten()(x)), training=True)
            return layers.Dense(2)(x)

        return network

    assert kf.fuse(pair(function, (4, 4, 1)))


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


@pytest.mark.one_backend
def test_equal_sources_under_the_rule_behind_a_skip_from_the_input():
    def network(x):
        x = layers.Concatenate()([x, layers.Dense(4)(x)])
        return layers.Dense(2)(layers.LayerNormalization()(x))

    model = graph(network, (5,))
    with pytest.warns(kf.SymmetryWarning):
        fused = kf.fuse([model, model], norm="rule")
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    np.testing.assert_allclose(numpy(fused(x)), numpy(model(x)), atol=1e-5)


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


@pytest.mark.one_backend
def test_balanced_noise_with_unequal_widths_is_refused_before_anything_is_built():
    sources = [graph(lambda x, w=w: layers.Dense(2)(layers.Dense(w)(x)), (5,)) for w in (4, 3)]
    with pytest.raises(kf.FusionError, match="layer `dense.*equal widths, axis `input` has .4, 3"):
        kf.fuse(sources, noise=0.1, noise_kind="balanced")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1}, "noise must be a finite number of at least 0. Received: noise=-1"),
        ({"noise": "x"}, "Received: noise='x'"),
        ({"noise": 0.1, "noise_kind": "x"}, "noise_kind must be one of .*Received: noise_kind='x'"),
    ],
)
@pytest.mark.one_backend
def test_noises_that_are_none(options, message):
    with pytest.raises(kf.FusionError, match=message):
        kf.fuse([graph(layers.Dense(2), (5,), seed=seed) for seed in range(2)], **options)


@pytest.mark.one_backend
def test_a_gate_of_shared_and_own_units_makes_them_all_own():
    def source(seed):
        keras.utils.set_random_seed(seed)
        raw, x = keras.Input((2,)), keras.Input((5,))
        units = layers.Concatenate()([raw, layers.Dense(4)(x)])
        gate = layers.Dense(1, activation="sigmoid")(units)
        return keras.Model([raw, x], layers.Dense(3)(layers.Multiply()([units, gate])))

    a, b = source(0), source(1)
    rng = np.random.default_rng(0)
    feed = [rng.normal(size=(4, size)).astype("float32") for size in (2, 5)]
    mean = sum(keras.ops.convert_to_numpy(model(feed)) for model in (a, b)) / 2
    fused = kf.fuse([a, b], check=False)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(fused(feed)), mean, atol=1e-6)
