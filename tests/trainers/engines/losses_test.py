"""Loss and counts against optax in float64, and what they must not do."""

import jax
import keras
import numpy as np
import optax
import pytest
from keras import ops

from trainers.engines.losses import LossSums, loss_sums


def make_batch(scale=1.0, seed=0, shape=(3, 7), classes=11):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(*shape, classes))).astype(np.float32)
    targets = rng.integers(0, classes, shape).astype(np.int32)
    targets[0, -3:] = 0
    return logits, targets


def oracle(logits, targets, z_loss):
    """optax' cross-entropy and the formula of the z-loss, in float64."""
    with jax.enable_x64(True):
        wide = logits.astype(np.float64)
        entropy = optax.softmax_cross_entropy_with_integer_labels(wide, targets)
        log_z = np.log(np.sum(np.exp(wide), axis=-1))
        terms = np.asarray(entropy, np.float64) + z_loss * log_z**2
    counts = targets != 0
    correct = counts & (logits.argmax(-1) == targets)
    return terms[counts].sum(), counts.sum(), correct.sum()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.1])
def test_equals_optax_in_float64(scale, z_loss):
    logits, targets = make_batch(scale)
    sums = loss_sums(logits, targets, z_loss)
    loss, tokens, correct = oracle(logits, targets, z_loss)
    np.testing.assert_allclose(float(sums.loss), loss, rtol=2e-6)
    assert (int(sums.tokens), int(sums.correct)) == (tokens, correct)


def test_default_z_loss_is_the_recipes():
    logits, targets = make_batch(10.0)
    np.testing.assert_allclose(
        float(loss_sums(logits, targets).loss), oracle(logits, targets, 1e-4)[0], rtol=2e-6
    )


def gradient_of(logits, targets, z_loss):
    def loss(logits):
        return loss_sums(logits, targets, z_loss).loss

    if keras.backend.backend() == "jax":
        return jax.jit(jax.grad(loss))(logits)
    import tensorflow as tf

    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(tf.identity(variable))
    return tape.gradient(value, variable)


def test_gradient_is_softmax_minus_target_plus_z_term():
    logits, targets = make_batch(3.0)
    wide = logits.astype(np.float64)
    log_z = np.log(np.exp(wide).sum(-1, keepdims=True))
    softmax = np.exp(wide - log_z)
    expected = softmax * (1 + 0.2 * log_z) - np.eye(wide.shape[-1])[targets]
    expected[targets == 0] = 0.0
    np.testing.assert_allclose(gradient_of(logits, targets, 0.1), expected, atol=2e-6)


def test_huge_logits_stay_finite_and_exact():
    logits = np.array([[[1e4, -1e4, 1e4 - 1.0]]], np.float32)
    sums = loss_sums(logits, np.array([[2]]), z_loss=0.0)
    np.testing.assert_allclose(float(sums.loss), 1.0 + np.log1p(np.exp(-1.0)), rtol=1e-6)


def test_padding_counts_nowhere():
    logits, targets = make_batch()
    logits[targets == 0] = np.float32(1e30)
    alone = loss_sums(logits[:, :4], targets[:, :4])
    with_padding = np.concatenate([targets[:, :4], np.zeros((3, 3), np.int32)], axis=1)
    padded = loss_sums(logits, with_padding)
    np.testing.assert_allclose(float(alone.loss), float(padded.loss), rtol=1e-6)
    assert int(alone.tokens) == int(padded.tokens)
    assert int(alone.correct) == int(padded.correct)


def test_all_padding_is_zero_not_nan():
    logits, _ = make_batch()
    sums = loss_sums(logits, np.zeros(logits.shape[:2], np.int32))
    assert [float(value) for value in sums] == [0.0, 0.0, 0.0]


def test_low_precision_logits_are_summed_in_float32():
    logits, targets = make_batch()
    low = ops.cast(logits, "bfloat16")
    rounded = ops.convert_to_numpy(ops.cast(low, "float32"))
    assert float(loss_sums(low, targets).loss) == float(loss_sums(rounded, targets).loss)


def test_sums_of_parts_add_up():
    logits, targets = make_batch(shape=(4, 5))
    parts = [loss_sums(logits[i : i + 2], targets[i : i + 2]) for i in (0, 2)]
    whole = loss_sums(logits, targets)
    added = LossSums(*(a + b for a, b in zip(*parts, strict=True)))
    np.testing.assert_allclose([float(v) for v in added], [float(v) for v in whole], rtol=1e-6)
