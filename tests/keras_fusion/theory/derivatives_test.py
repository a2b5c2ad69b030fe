"""Gradients and Hessian-vector products against closed forms and differences."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.losses import mean_cross_entropy
from keras_fusion.theory.derivatives import (
    Derivatives,
    combine,
    split_batch,
    squared_norm,
)
from tests.keras_fusion.theory import cases


def linear(kernel):
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False, dtype="float64")]
    )
    model.set_weights([kernel])
    return model


def attention():
    """Keras' own attention, which torch computes in a fused kernel."""
    inputs = keras.Input((4, 3), dtype="float64")
    layer = keras.layers.MultiHeadAttention(2, 3, dtype="float64")
    return cases.with_weights(keras.Model(inputs, layer(inputs, inputs)), seed=0, scale=0.8)


INPUTS, TARGETS = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[1.0], [0.5]])


class TestDerivatives:
    def test_linear_regression_by_hand(self):
        kernel, along = np.array([[0.5], [-1.0]]), np.array([[2.0], [1.0]])
        at = Derivatives(linear(kernel), (INPUTS, TARGETS), cases.mean_square)
        weights = at.weights()
        value, (gradient,) = at.gradient(weights)
        (product,) = at.product(weights, [ops.convert_to_tensor(along)])
        residual = INPUTS @ kernel - TARGETS
        assert value == pytest.approx(np.mean(residual**2))
        np.testing.assert_allclose(gradient, INPUTS.T @ residual, rtol=1e-12)
        np.testing.assert_allclose(product, INPUTS.T @ INPUTS @ along, rtol=1e-12)

    def test_at_other_weights_than_the_models(self):
        model = linear(np.array([[0.5], [-1.0]]))
        at = Derivatives(model, (INPUTS, TARGETS), cases.mean_square)
        value, _ = at.gradient([ops.zeros((2, 1), "float64")])
        assert value == pytest.approx(np.mean(TARGETS**2))
        np.testing.assert_array_equal(model.get_weights()[0], [[0.5], [-1.0]])

    @pytest.mark.parametrize(
        "kind",
        [
            # modified_test.py has the second derivatives of a T5, in Theorem 1.
            pytest.param("v1.1", marks=pytest.mark.slow),
            pytest.param("v1.0", marks=pytest.mark.slow),
            "dense",
        ],
    )
    def test_networks_against_differences(self, kind):
        """The dense one has a layer norm, whose curvature TensorFlow's `moments` gets wrong."""
        _, at = cases.small(kind)
        self.assert_like_differences(at)

    @pytest.mark.skipif(
        keras.backend.backend() == "jax", reason="Keras on JAX computes its attention in float32"
    )
    def test_attention_of_keras_against_differences(self):
        batch = np.random.default_rng(0).normal(size=(2, 2, 4, 3))
        self.assert_like_differences(Derivatives(attention(), tuple(batch), cases.mean_square))

    def assert_like_differences(self, at):
        weights = at.weights()
        along, step = cases.random_like(weights), 1e-5
        there, back = (combine((1.0, weights), (sign * step, along)) for sign in (1, -1))
        (up, rising), (down, falling) = at.gradient(there), at.gradient(back)
        _, gradient = at.gradient(weights)
        slope = cases.flat(gradient) @ cases.flat(along)
        assert slope == pytest.approx((up - down) / (2 * step), rel=1e-6)
        expected = (cases.flat(rising) - cases.flat(falling)) / (2 * step)
        product = cases.flat(at.product(weights, along))
        np.testing.assert_allclose(product, expected, atol=1e-6 * np.abs(expected).max())

    def test_a_loss_with_a_gradient_of_its_own(self):
        @ops.custom_gradient
        def cube(x):
            def gradient(*args, upstream=None):
                return 3 * ops.square(x) * (args[0] if upstream is None else upstream)

            return x**3, gradient

        at = Derivatives(
            linear(np.ones((2, 1))),
            (np.array([[1.0, 0.0]]), np.zeros((1, 1))),
            lambda targets, outputs: ops.sum(cube(outputs)),
        )
        weights = at.weights()
        (product,) = at.product(weights, [ops.ones((2, 1), "float64")])
        np.testing.assert_allclose(at.gradient(weights)[1][0], [[3.0], [0.0]])
        np.testing.assert_allclose(product, [[6.0], [0.0]])

    def test_weights_that_the_loss_does_not_see(self):
        at = Derivatives(
            cases.dense(), cases.dense_batch(), lambda _, outputs: ops.cast(0.0, outputs.dtype)
        )
        weights = at.weights()
        assert squared_norm(at.gradient(weights)[1]) == 0
        assert squared_norm(at.product(weights, weights)) == 0

    def test_a_backend_without_support(self, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
        with pytest.raises(ValueError, match="Received: KERAS_BACKEND=numpy"):
            Derivatives(cases.dense(), cases.dense_batch(), cases.mean_square)


class TestLoss:
    def test_mean_over_what_is_not_padding(self):
        logits = np.random.default_rng(0).normal(size=(2, 3, 4))
        targets = np.array([[1, 2, 0], [3, 0, 0]])
        expected = [
            np.log(np.exp(logits[row, column]).sum()) - logits[row, column, targets[row, column]]
            for row, column in ((0, 0), (0, 1), (1, 0))
        ]
        loss = mean_cross_entropy(targets, ops.convert_to_tensor(logits))
        assert float(loss) == pytest.approx(np.mean(expected), rel=1e-12)


class TestBatch:
    def test_forms(self):
        assert split_batch({"a": 1, "targets": 2}) == ({"a": 1}, 2)
        assert split_batch((1, 2)) == (1, 2)

    @pytest.mark.parametrize("batch", [{"a": 1}, (1,), np.ones(2)])
    def test_other_forms(self, batch):
        with pytest.raises(ValueError, match="or a pair .* Received: batch="):
            split_batch(batch)
