"""Gradients and Hessian-vector products of a loss, on TensorFlow, JAX and torch, at any weights.

The weights are an argument, not what the model holds: Keras' `stateless_call` reads them from a
list of tensors, so one function, compiled where the backend compiles, serves every point of a
trajectory, and the model is never written to. No Hessian is ever made: H v costs about two
gradients, whatever the number of weights.
"""

import keras
from keras import ops


def split_batch(batch):
    """Returns the model's inputs and the targets.

    Args:
        batch: A dictionary of a T5's inputs and `targets`, or a pair (inputs, targets).

    Raises:
        ValueError: Neither of these.
    """
    if isinstance(batch, dict) and "targets" in batch:
        return {name: value for name, value in batch.items() if name != "targets"}, batch["targets"]
    if isinstance(batch, tuple) and len(batch) == 2:
        return batch
    names = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
    raise ValueError(
        "batch must be a dictionary of inputs with `targets`, or a pair (inputs, targets). "
        f"Received: batch={names}"
    )


class Derivatives:
    """A model's loss on one batch as a function of its trainable weights.

    Args:
        model: A built Keras model; called without dropout.
        batch: See `split_batch`.
        loss: `(targets, outputs) → scalar`, as Keras' losses are. One that is meant for double
            precision must compute in it: `keras.losses.MeanSquaredError(dtype="float64")`.

    Raises:
        ValueError: Another backend than TensorFlow, JAX and torch.

    Examples:
        >>> at = Derivatives(model, batch, mean_cross_entropy)
        >>> value, gradient = at.gradient(at.weights())
        >>> curvature = at.product(at.weights(), gradient)   # H ∇L, a list of tensors
    """

    def __init__(self, model, batch, loss):
        backend = keras.backend.backend()
        if backend not in _TRANSFORMS:
            raise ValueError(
                f"keras_fusion.theory differentiates on the backends {tuple(_TRANSFORMS)}. "
                f"Received: KERAS_BACKEND={backend}"
            )
        inputs, targets = split_batch(batch)
        fixed = [ops.convert_to_tensor(variable) for variable in model.non_trainable_variables]
        self._model = model

        def evaluate(weights):
            outputs, _ = model.stateless_call(weights, fixed, inputs, training=False)
            return loss(targets, outputs)

        self._gradient, self._product = _TRANSFORMS[backend](evaluate)

    def weights(self):
        """The model's present weights, a list of tensors that stay as they are."""
        # On torch the tensor of a variable changes with it and collects gradients.
        variables = self._model.trainable_variables
        return [ops.copy(ops.stop_gradient(variable)) for variable in variables]

    def gradient(self, weights):
        """The loss, a float, and its gradient, a list of tensors."""
        value, gradient = self._gradient(weights)
        return float(value), gradient

    def product(self, weights, vector):
        """The Hessian at `weights` times `vector`, both lists of tensors."""
        return self._product(weights, vector)


def _with_tensorflow(function):
    """Compiled gradient and Hessian-vector product; a tape in a tape, H v = ∇(∇L · v).

    Forward over reverse (tf.autodiff) would not see through a `custom_gradient`.
    """
    import tensorflow as tf

    def dense(gradient):
        return [tf.convert_to_tensor(array) for array in gradient]  # An embedding's is sparse.

    def gradient(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = function(weights)
        return value, dense(tape.gradient(value, weights, unconnected_gradients="zero"))

    def product(weights, vector):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            _, slopes = gradient(weights)
            along = tf.add_n(
                [tf.reduce_sum(slope * part) for slope, part in zip(slopes, vector, strict=True)]
            )
        return dense(tape.gradient(along, weights, unconnected_gradients="zero"))

    return tf.function(gradient, autograph=False), tf.function(product, autograph=False)


def _with_jax(function):
    """Compiled gradient and Hessian-vector product; forward over reverse."""
    import jax

    def product(weights, vector):
        return jax.jvp(jax.grad(function), (weights,), (vector,))[1]

    return jax.jit(jax.value_and_grad(function)), jax.jit(product)


def _with_torch(function):
    """Gradient and Hessian-vector product, not compiled; reverse over reverse, H v = ∇(∇L · v).

    Neither torch.func nor a fused attention kernel could be differentiated here: the former does
    not see through a `custom_gradient` of Keras, the latter has no second derivative.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def slopes_of(value, weights, **options):
        if not value.requires_grad:
            return [torch.zeros_like(weight) for weight in weights]
        return torch.autograd.grad(value, weights, materialize_grads=True, **options)

    def tracked(weights):
        return [weight.detach().requires_grad_() for weight in weights]

    def gradient(weights):
        weights = tracked(weights)
        value = function(weights)
        return value.detach(), list(slopes_of(value, weights))

    def product(weights, vector):
        weights = tracked(weights)
        with sdpa_kernel(SDPBackend.MATH):
            slopes = slopes_of(function(weights), weights, create_graph=True)
            along = sum((slope * part).sum() for slope, part in zip(slopes, vector, strict=True))
            return list(slopes_of(along, weights))

    return gradient, product


_TRANSFORMS = {"tensorflow": _with_tensorflow, "jax": _with_jax, "torch": _with_torch}


def combine(*terms):
    """The linear combination Σ factor · vector of lists of tensors.

    Args:
        terms: Pairs (number, list of tensors).

    Examples:
        >>> combine((1.0, [ops.ones(2)]), (-0.5, [ops.ones(2)]))
        [<tf.Tensor: shape=(2,), dtype=float32, numpy=array([0.5, 0.5], dtype=float32)>]
    """
    factors, vectors = zip(*terms, strict=True)
    return [
        sum(factor * part for factor, part in zip(factors, parts, strict=True))
        for parts in zip(*vectors, strict=True)
    ]


def squared_norm(vector):
    """‖v‖² of a list of tensors, a float."""
    return sum(float(ops.sum(ops.square(part))) for part in vector)
