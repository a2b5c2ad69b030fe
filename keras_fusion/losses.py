"""Cross-entropy of T5: per token with its gradient written out, and its mean over a batch."""

import keras
from keras import ops


def token_losses(targets, logits, z_loss=0.0):
    """Returns log Z − logits_t + z_loss · (log Z)² of every target t; log Z = log Σ exp(logits).

    Its gradient is (1 + 2 z_loss log Z) softmax − [v = t]: the exponentials of the forward pass
    serve again, half the passes over the logits that automatic differentiation makes.

    Args:
        targets: Int (batch, length).
        logits: Float (batch, length, vocabulary); the result (batch, length) has their dtype.
        z_loss: Factor of (log Z)².
    """
    # Products with a mask, not a gather: what a vocabulary that is split over devices wants.
    is_target = ops.one_hot(targets, logits.shape[-1], dtype=logits.dtype)

    def losses(logits):
        largest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
        shifted = logits - largest
        exponentials = ops.exp(shifted)
        total = ops.sum(exponentials, axis=-1, keepdims=True)
        log_total = ops.log(total)
        log_z = log_total + largest
        target = ops.sum(is_target * shifted, axis=-1, keepdims=True)
        # Not log Z − logit: their common size would take the digits of a small loss.
        loss = (log_total - target) + z_loss * ops.square(log_z)

        def gradient(*args, upstream=None):
            upstream = ops.expand_dims(args[0] if upstream is None else upstream, axis=-1)
            factor = upstream * (1.0 + 2.0 * z_loss * log_z) / total
            return factor * exponentials - upstream * is_target

        return ops.squeeze(loss, axis=-1), gradient

    if keras.backend.backend() == "torch":
        # There a second derivative would take what the forward pass keeps for constants.
        return losses(logits)[0]
    return ops.custom_gradient(losses)(logits)


def mean_cross_entropy(targets, logits):
    """T5's loss: mean cross-entropy over the targets that are not padding, in nats per token.

    Args:
        targets: Int (batch, length); 0 is padding and does not count.
        logits: Float (batch, length, vocabulary); the result has their dtype, or float32 if that
            is narrower: a sum of many losses is beyond float16, and bfloat16 counts to 256.

    Examples:
        >>> float(mean_cross_entropy([[1, 0]], ops.zeros((1, 2, 4))))
        1.3862943611198906
    """
    targets, logits = ops.cast(targets, "int32"), ops.convert_to_tensor(logits)
    logits = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
    losses = token_losses(targets, logits)
    counts = ops.cast(ops.not_equal(targets, 0), losses.dtype)
    return ops.sum(losses * counts) / ops.sum(counts)
