"""Refused differences between sources, each once a wrong network or a foreign exception."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_fusion as kf
from keras_fusion.layers import FusableMultiHeadAttention
from tests.keras_fusion.fusion_contract import numpy
from tests.keras_fusion.graph.networks import check_mean, graph, randomised, stacked


@pytest.mark.one_backend
class TestSettings:
    @pytest.mark.parametrize(
        ("layer_class", "settings", "message"),
        [
            (layers.Activation, ("relu", "tanh"), "activation: relu vs tanh"),
            (layers.LeakyReLU, (0.1, 0.5), "negative_slope: 0.1 vs 0.5"),
            (layers.Dropout, (0.1, 0.2), "rate: 0.1 vs 0.2"),
            (layers.Rescaling, (2.0, 3.0), "scale: 2.0 vs 3.0"),
            (layers.ELU, (1.0, 2.0), "alpha: 1.0 vs 2.0"),
        ],
    )
    @pytest.mark.parametrize("before", [True, False])
    def test_of_layers_without_weights(self, layer_class, settings, message, before):
        sources = [
            stacked(
                *([layer] if before else []),
                layers.Dense(4),
                *([] if before else [layer]),
                layers.Dense(2),
            )
            for layer in map(layer_class, settings)
        ]
        with pytest.raises(kf.FusionError, match=message):
            kf.fuse(sources)

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [
            (layers.MaxPooling2D(2), layers.MaxPooling2D(1), "pool_size"),
            (layers.ZeroPadding2D(1), layers.ZeroPadding2D(2), "padding"),
            (layers.UpSampling2D(1), layers.UpSampling2D(2), "size"),
            (layers.MaxPooling2D(), layers.AveragePooling2D(2), "structure: .*Max.* vs .*Average"),
        ],
    )
    def test_of_layers_of_images(self, first, second, message):
        sources = [
            stacked(
                layers.Conv2D(3, 1),
                layer,
                layers.GlobalMaxPooling2D(),
                layers.Dense(2),
                inputs=(4, 4, 2),
            )
            for layer in (first, second)
        ]
        with pytest.raises(kf.FusionError, match=message):
            kf.fuse(sources)

    def test_of_operations(self):
        sources = [
            graph(lambda x, f=factor: layers.Dense(2)(layers.Dense(3)(x) * f), (4,))
            for factor in (0.5, 0.25)
        ]
        with pytest.raises(kf.FusionError, match="an argument of its call is 0.5 vs 0.25"):
            kf.fuse(sources)
        sources = [
            graph(lambda x, a=axis: layers.Dense(2)(ops.mean(layers.Dense(3)(x), a)), (4, 4))
            for axis in (1, 2)
        ]
        with pytest.raises(kf.FusionError, match="axis: "):
            kf.fuse(sources)

    def test_of_calls(self):
        def network(causal):
            def function(x):
                x = layers.Dense(4)(x)
                return layers.Dense(2)(
                    layers.MultiHeadAttention(2, 2)(x, x, use_causal_mask=causal)
                )

            return graph(function, (3, 4))

        with pytest.raises(kf.FusionError, match="an argument of its call is True vs False"):
            kf.fuse([network(True), network(False)])
        assert check_mean([network(True), network(True)])

    def test_of_regularizers_and_own_functions(self):
        sources = [
            stacked(
                layers.Dense(3, kernel_regularizer=keras.regularizers.L2(rate)), layers.Dense(2)
            )
            for rate in (0.1, 0.2)
        ]
        with pytest.raises(kf.FusionError, match="kernel_regularizer.l2: 0.1.* vs 0.2"):
            kf.fuse(sources)

        def own(factor):
            return lambda x: factor * ops.tanh(x)

        sources = [
            stacked(layers.Dense(3, activation=own(factor)), layers.Dense(2)) for factor in (1, 2)
        ]
        with pytest.raises(kf.FusionError, match="functions of one name that compute other things"):
            kf.fuse(sources)
        check_mean([stacked(layers.Dense(3, activation=own(2)), layers.Dense(2)) for _ in "ab"])

    def test_activations_that_are_layers_may_have_any_name(self):
        sources = [
            stacked(layers.Dense(3, activation=layers.LeakyReLU(0.1)), layers.Dense(2), seed=seed)
            for seed in range(2)
        ]
        check_mean(sources)


@pytest.mark.one_backend
class TestWiring:
    def test_a_residual_before_and_after_the_norm(self):
        def before(x):
            x = layers.Dense(4)(x)
            return layers.Dense(2)(
                layers.Add()([x, layers.Dense(4)(layers.LayerNormalization()(x))])
            )

        def after(x):
            x = layers.LayerNormalization()(layers.Dense(4)(x))
            return layers.Dense(2)(layers.Add()([x, layers.Dense(4)(x)]))

        with pytest.raises(kf.FusionError, match="structure: .* vs |where it is read again"):
            kf.fuse([graph(before, (5,)), graph(after, (5,))])

    def test_inputs_in_another_order(self):
        def network(turn):
            a, b = keras.Input((3,)), keras.Input((3,))
            x = layers.Subtract()([b, a] if turn else [a, b])
            return randomised(keras.Model([a, b], layers.Dense(2)(x)), 0)

        with pytest.raises(kf.FusionError, match="input 0 vs input 1"):
            kf.fuse([network(False), network(True)])

    def test_one_layer_called_twice_and_two_layers(self):
        def network(shared):
            a, b = layers.Dense(3), layers.Dense(3)
            return graph(
                lambda x: layers.Dense(2)((a if shared else b)(a(layers.Dense(3)(x)))), (4,)
            )

        with pytest.raises(kf.FusionError, match="number of layers|sharing of layers"):
            kf.fuse([network(True), network(False)])


@pytest.mark.one_backend
class TestWhatIsSupported:
    @pytest.mark.one_backend
    def test_an_activation_that_normalises_over_the_units(self):
        def centred(x):
            return x - ops.mean(x, -1, keepdims=True)

        sources = [
            stacked(
                layers.Dense(4, activation=centred),
                layers.Activation(centred),
                layers.Dense(2),
                seed=seed,
            )
            for seed in range(2)
        ]
        check_mean(sources)

    def test_sums_products_and_slices_without_a_layer(self):
        def function(x):
            a, b = layers.Dense(4)(x), layers.Dense(4)(x)
            return layers.Dense(2)(((a + b) * (a - b) / 2)[:, 0] * 0.5 + ops.relu(a[:, 1]))

        check_mean([graph(function, (3, 5), seed=seed) for seed in range(3)])

    @pytest.mark.one_backend
    def test_anything_before_the_first_layer_with_weights(self):
        stack = [layers.Rescaling(1 / 255), layers.RandomFlip(), layers.Flatten()]
        sources = [
            stacked(
                *(type(x).from_config(x.get_config()) for x in stack),
                layers.Dense(4, "relu"),
                layers.Dense(2),
                inputs=(3, 3, 1),
                seed=seed,
            )
            for seed in range(2)
        ]
        assert isinstance(check_mean(sources), keras.Sequential)

    @pytest.mark.one_backend
    def test_a_sequential_in_a_sequential_stays_one(self):
        def network(seed):
            block = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu")], name="block")
            return stacked(layers.Dense(4), block, layers.Dense(2), seed=seed)

        fused = check_mean([network(0), network(1)])
        assert isinstance(fused, keras.Sequential)
        assert isinstance(fused.get_layer("block"), keras.Sequential)

    @pytest.mark.one_backend
    def test_a_gate_of_one_unit(self):
        def function(x):
            x = layers.Dense(6)(x)
            return layers.Dense(2)(layers.Multiply()([x, layers.Dense(1, "sigmoid")(x)]))

        check_mean([graph(function, (5,), seed=seed) for seed in range(3)])

    @pytest.mark.one_backend
    def test_attention_with_two_outputs(self):
        def function(x):
            x = layers.Dense(4)(x)
            y, scores = FusableMultiHeadAttention(2, 3)(x, x, return_attention_scores=True)
            z, more = layers.MultiHeadAttention(2, 3)(y, y, return_attention_scores=True)
            return layers.Dense(2)(layers.Flatten()(z + ops.mean(scores + more, 1)[..., :1]))

        check_mean([graph(function, (3, 4), seed=seed) for seed in range(2)])

    @pytest.mark.one_backend
    def test_compiled_with_what_is_the_users_own(self):
        class Halving(keras.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step):
                return 0.01 / (1 + ops.cast(step, "float32"))

        def network(seed):
            model = stacked(
                layers.Dense(3, activation=lambda x: ops.tanh(x)), layers.Dense(1), seed=seed
            )
            model.compile(
                keras.optimizers.Adam(Halving()),
                loss=lambda target, output: ops.mean(ops.square(target - output)),
                metrics=[lambda target, output: ops.mean(output), keras.metrics.MeanSquaredError()],
                run_eagerly=True,
            )
            return model

        fused = check_mean([network(0), network(1)])
        losses = fused.fit(
            np.ones((8, 6), "float32"), np.ones((8, 1), "float32"), epochs=3, verbose=0
        ).history["loss"]
        assert losses[-1] < losses[0]


@pytest.mark.one_backend
def test_symmetry_sees_the_projections_of_an_attention():
    def function(x):
        x = layers.Dense(4)(x)
        return layers.Dense(2)(layers.MultiHeadAttention(2, 3, name="attention")(x, x))

    model = graph(function, (3, 4))
    with pytest.warns(kf.SymmetryWarning):
        fused = kf.fuse([model, model])
    assert kf.symmetry(fused) == 0.0
    kernel = next(
        variable
        for variable in fused.get_layer("attention").weights
        if variable.path.endswith("query/kernel")
    )
    value = numpy(kernel).copy()
    value[4:, 2:] += 1.0
    kernel.assign(value)
    assert kf.symmetry(fused) > 0.1


@pytest.mark.one_backend
class TestTheCheck:
    def test_a_wrong_declaration_is_found_and_named(self):
        class Mixing(layers.Layer):
            def build(self, shape):
                self.scale = self.add_weight(name="scale", shape=shape[-1:])

            def call(self, x):
                return self.scale * (x - ops.mean(x, -1, keepdims=True))

        @kf.register_fusion(Mixing)
        def mixing(layer):
            axes = {"scale": kf.Axes(("units",), averages=False)}
            return kf.Declaration(
                axes,
                inputs={0: {-1: "units"}},
                outputs=({-1: "units"},),
                averages=False,
                unitwise=("units",),
            )

        sources = [
            stacked(layers.Dense(4), Mixing(name="mixing"), layers.Dense(2), seed=seed)
            for seed in range(2)
        ]
        with pytest.raises(kf.FusionError, match="layer `mixing` .* on random inputs"):
            kf.fuse(sources)

    def test_a_layer_that_declares_nothing_is_refused_where_its_weights_differ(self):
        class Own(layers.Layer):
            def build(self, shape):
                self.scale = self.add_weight(name="scale", shape=shape[-1:])

            def call(self, x):
                return self.scale * x

        sources = [stacked(Own(name="own"), layers.Dense(2), seed=seed) for seed in range(2)]
        match = "layer `own` .*@kf.register_fusion .docs/plugin.md#layers-of-your-own"
        with pytest.raises(kf.FusionError, match=match):
            kf.fuse(sources)

    def test_sizes_of_a_layer_that_declares_nothing(self):
        sources = [
            stacked(layers.SpectralNormalization(layers.Dense(width), name="own"), layers.Dense(2))
            for width in (4, 6)
        ]
        match = r"layer `own` .*received layer.units: 4 vs 6; declare its axes with @kf\.register"
        with pytest.raises(kf.FusionError, match=match):
            kf.fuse(sources)
