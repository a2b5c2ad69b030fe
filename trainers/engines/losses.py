"""Pretraining loss and its counts: cross-entropy with z-loss, summed over the non-pad targets.

Keras operations only, so that every engine (tf.distribute, a JAX mesh) shares this one definition.
"""

from typing import NamedTuple

from keras import ops

from keras_fusion.losses import token_losses
from trainers.data.tokens import PAD_ID

Z_LOSS = 1e-4
_NAN = float("nan")


class LossSums(NamedTuple):
    """Sums over the non-pad targets of one batch; those of two batches add up."""

    loss: object  # float32 scalar, nats: cross-entropy plus z-loss
    tokens: object  # int32 scalar: number of targets that count
    correct: object  # int32 scalar: how many of them have the largest logit


class Totals(NamedTuple):
    """Sums over several steps (or evaluation batches), as scalars on the device."""

    loss_sum: object
    tokens: object
    correct: object
    learning_rate: object  # of the last step; nan in an evaluation
    bad_step: object  # index of the first step whose loss was not finite; -1 if none
    # Largest finite |gradient| of that step, after the sum over replicas and before any clipping;
    # nan where no step was bad.
    largest_gradient: object

    @classmethod
    def zeros(cls) -> "Totals":
        """Returns the sums over no step."""
        floats = [ops.convert_to_tensor(value, "float32") for value in (0.0, _NAN, _NAN)]
        counts = [ops.convert_to_tensor(value, "int32") for value in (0, 0, -1)]
        return cls(floats[0], *counts[:2], floats[1], counts[2], floats[2])

    def add(self, index, sums: LossSums, rate=_NAN, largest=_NAN) -> "Totals":
        """Returns the sums with those of step `index`: its learning rate and largest gradient."""
        was_good = self.bad_step < 0
        failed = ops.logical_and(was_good, ops.logical_not(ops.isfinite(sums.loss)))
        return Totals(
            self.loss_sum + sums.loss,
            self.tokens + sums.tokens,
            self.correct + sums.correct,
            ops.cast(rate, "float32"),
            ops.where(failed, index, self.bad_step),
            ops.where(was_good, ops.cast(largest, "float32"), self.largest_gradient),
        )


def loss_sums(logits, targets, z_loss: float = Z_LOSS) -> LossSums:
    """Returns the sums of T5's pretraining loss over one batch.

    With log Z = log Σ_v exp(logits_v), one target t ≠ 0 adds
    (log Z − logits_t) + z_loss · (log Z)². log Z is computed once and serves both terms. There is
    no label smoothing.

    Args:
        logits: float (batch, length, vocabulary); computed in float32 whatever comes in.
        targets: int (batch, length); 0 is padding and does not count.
        z_loss: factor of (log Z)²; keeps log Z near 0, so that low precision stays accurate.

    Example:
        sums = loss_sums(model(batch), batch["targets"])
        loss_per_token = sums.loss / sums.tokens
    """
    logits = ops.cast(logits, "float32")
    targets = ops.cast(targets, "int32")
    counts = ops.not_equal(targets, PAD_ID)
    loss = token_losses(targets, logits, z_loss)
    hits = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), targets)
    return LossSums(
        loss=ops.sum(ops.where(counts, loss, 0.0)),
        tokens=ops.sum(ops.cast(counts, "int32")),
        correct=ops.sum(ops.cast(ops.logical_and(counts, hits), "int32")),
    )
