"""Options of `kf.fuse`: optimizers, copies, inputs, outputs, weights, noise."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_fusion as kf
from keras_fusion import _keras
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.layers import FusableRMSNorm
from tests.keras_fusion.fusion_contract import EAGERLY, numpy, random_inputs
from tests.keras_fusion.graph.networks import FEATURES, graph, perceptron, residual, stacked


class TestOptimizers:
    def compiled(self, seed, optimizer=None):
        model = perceptron(seed)
        model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", run_eagerly=EAGERLY)
        target = np.ones((2, 3), "float32")
        for _ in range(4):
            model.train_on_batch(FEATURES, target)
        return model

    def test_a_grown_state_is_that_of_the_gradients(self):
        """After a self-fusion every block's gradient is the source's, divided by n (Lemma 1)."""
        model = self.compiled(0)
        with pytest.warns(SymmetryWarning):
            fused = kf.self_fuse(model, 2, optimizer="grow")
        assert int(numpy(fused.optimizer.iterations)) == 4
        m, v = _keras.adam_slots(fused.optimizer, fused.layers[1].kernel)
        own_m, own_v = _keras.adam_slots(model.optimizer, model.layers[1].kernel)
        np.testing.assert_allclose(numpy(m), np.tile(numpy(own_m), (2, 2)) / 2, rtol=1e-5)
        np.testing.assert_allclose(numpy(v), np.tile(numpy(own_v), (2, 2)) / 4, rtol=1e-5)
        m, _ = _keras.adam_slots(fused.optimizer, fused.layers[2].kernel)
        own_m, _ = _keras.adam_slots(model.optimizer, model.layers[2].kernel)
        np.testing.assert_allclose(numpy(m), np.tile(numpy(own_m), (2, 1)), rtol=1e-5)

    @pytest.mark.one_backend
    def test_a_fresh_one_starts_anew(self):
        fused = kf.fuse([self.compiled(0), self.compiled(1)])
        assert int(numpy(fused.optimizer.iterations)) == 0
        assert float(numpy(fused.optimizer.learning_rate)) == pytest.approx(0.01)

    @pytest.mark.one_backend
    def test_what_cannot_grow(self):
        with pytest.raises(FusionError, match="needs sources that are compiled with Adam"):
            kf.fuse([perceptron(0), perceptron(1)], optimizer="grow")
        with pytest.raises(FusionError, match="optimizer must be one of"):
            kf.fuse([perceptron(0), perceptron(1)], optimizer="adam")
        sources = [self.compiled(seed, keras.optimizers.SGD(0.1)) for seed in range(2)]
        with pytest.raises(FusionError, match="Received: SGD, SGD"):
            kf.fuse(sources, optimizer="grow")


@pytest.mark.one_backend
class TestCopies:
    @pytest.mark.parametrize("asymmetry", [0.0, 0.3])
    @pytest.mark.parametrize(("build", "inputs"), [(perceptron, FEATURES), (residual, FEATURES)])
    def test_every_block_holds_a_share_and_the_function_stays(self, build, inputs, asymmetry):
        model = build(0)
        fused = kf.self_fuse(model, 3, fill="copies", asymmetry=asymmetry, noise=1e-9)
        np.testing.assert_allclose(numpy(fused(inputs)), numpy(model(inputs)), atol=1e-5)

    def test_the_blocks_by_hand(self):
        model = perceptron(0)
        fused = kf.self_fuse(model, 2, fill="copies", asymmetry=0.5)
        kernel, source = fused.layers[1].get_weights()[0], model.layers[1].get_weights()[0]
        np.testing.assert_allclose(
            kernel,
            np.block([[0.25 * source, 0.25 * source], [0.75 * source, 0.75 * source]]),
            rtol=1e-6,
        )
        head, source = fused.layers[2].get_weights()[0], model.layers[2].get_weights()[0]
        np.testing.assert_allclose(head, np.concatenate([0.25 * source, 0.75 * source]), rtol=1e-6)

    def test_unequal_shares_part_without_noise(self):
        model = perceptron(0)
        equal, unequal = (
            kf.self_fuse(model, 2, fill="copies", asymmetry=asymmetry) for asymmetry in (0.0, 0.3)
        )
        moved = []
        for fused in (equal, unequal):
            first = fused.layers[0]
            fused.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
            for _ in range(3):
                fused.train_on_batch(FEATURES, np.ones((2, 3), "float32"))
            kernel = numpy(first.kernel)
            moved.append(np.abs(kernel[:, :4] - kernel[:, 4:]).max())
        assert moved[0] < 1e-6 < 1e-3 < moved[1]

    def test_what_copies_do_not_take(self):
        with pytest.raises(FusionError, match="takes one network several times. Received: 2"):
            kf.fuse([perceptron(0), perceptron(1)], fill="copies")
        with pytest.raises(FusionError, match="asymmetry is that of copies"):
            kf.self_fuse(perceptron(0), 2, asymmetry=0.1)
        with pytest.raises(FusionError, match="asymmetry must be at least 0 and below 1"):
            kf.self_fuse(perceptron(0), 2, fill="copies", asymmetry=1.0)


@pytest.mark.one_backend
class TestInputsOutputsAndWeights:
    def test_each_source_reads_its_own_input(self):
        sources = [perceptron(0), perceptron(1, 3)]
        fused = kf.fuse(sources, inputs="concat")
        parts = random_inputs([(2, 5), (2, 5)])
        mean = np.mean([numpy(model(x)) for model, x in zip(sources, parts, strict=True)], 0)
        np.testing.assert_allclose(numpy(fused(np.concatenate(parts, -1))), mean, atol=1e-5)

    @pytest.mark.one_backend
    def test_all_outputs_are_kept(self):
        sources = [perceptron(0, activation="softmax"), perceptron(1, 3, activation="softmax")]
        fused = kf.fuse(sources, outputs="concat")
        expected = np.concatenate([numpy(model(FEATURES)) for model in sources], -1)
        np.testing.assert_allclose(numpy(fused(FEATURES)), expected, atol=1e-5)

    @pytest.mark.parametrize("average", ["logits", "outputs"])
    def test_a_weighted_mean(self, average):
        sources = [residual(0, 4, FusableRMSNorm), residual(1, 3, FusableRMSNorm)]
        fused = kf.fuse(sources, weights=[0.7, 0.3], average=average)
        expected = 0.7 * numpy(sources[0](FEATURES)) + 0.3 * numpy(sources[1](FEATURES))
        np.testing.assert_allclose(numpy(fused(FEATURES)), expected, atol=1e-5)

    @pytest.mark.one_backend
    def test_probabilities_are_averaged_on_demand(self):
        sources = [perceptron(seed, activation="softmax") for seed in range(3)]
        fused = kf.fuse(sources, average="outputs")
        mean = np.mean([numpy(model(FEATURES)) for model in sources], 0)
        np.testing.assert_allclose(numpy(fused(FEATURES)), mean, atol=1e-5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weights": [0.5, 0.6]}, "weights must add up to 1"),
            ({"weights": [1.0]}, "weights must be 2 numbers above 0"),
            ({"inputs": "both"}, "inputs must be one of .*inputs='both'"),
            ({"average": "mean"}, "average must be one of .*average='mean'"),
        ],
    )
    @pytest.mark.one_backend
    def test_bad_options(self, options, message):
        with pytest.raises(FusionError, match=message):
            kf.fuse([perceptron(0), perceptron(1)], **options)


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
