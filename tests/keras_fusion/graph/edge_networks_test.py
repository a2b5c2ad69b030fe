"""Networks in which a plausible rule gives a wrong result: names, nesting, masks, outputs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fusion as kf
from tests.keras_fusion.fusion_contract import numpy
from tests.keras_fusion.graph.networks import check_mean, graph, pair, randomised, stacked


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

    check_mean(pair(function, (5,)))


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
def test_layers_that_are_told_to_train():
    def function(width):
        def network(x):
            x = layers.RandomFlip()(x)
            x = layers.Dropout(0.5)(layers.Dense(width)(layers.Flatten()(x)), training=True)
            return layers.Dense(2)(x)

        return network

    assert kf.fuse(pair(function, (4, 4, 1)))


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
