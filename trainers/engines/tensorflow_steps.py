"""Computation of one replica in a step, under every strategy of `tf.distribute`.

Shapes are static and nothing here needs the host, so that XLA compiles it as it is: for a TPU this
is the program of a core.
"""

import contextlib
import dataclasses
from collections.abc import Mapping

import keras
import tensorflow as tf

from keras_fusion.layers.dropout import fold_seed
from trainers.engines.base import StepOptions
from trainers.engines.gradients import clip, largest_if_not_finite
from trainers.engines.losses import LossSums, loss_sums

_SEED_SHIFT = 2654435761
_SUM = tf.distribute.ReduceOp.SUM


@dataclasses.dataclass(frozen=True)
class ReplicaSteps:
    """Training and evaluation step of one replica, to be called by `strategy.run`."""

    model: keras.Model  # built
    optimizer: keras.optimizers.Optimizer  # built; with several replicas it sums no gradients
    options: StepOptions
    num_replicas: int  # that share a batch

    def train(
        self, batch: Mapping[str, tf.Tensor], tokens
    ) -> tuple[LossSums, tf.Tensor, tf.Tensor]:
        """Forward, backward, update.

        Args:
            batch: int tensors (rows of this replica, length), with "targets".
            tokens: float32 scalar, targets that count in the global batch: known before the
                forward pass, so that the gradients of replicas and microbatches only add up.

        Returns:
            Sums over the global batch, learning rate, and largest gradient: see `Totals.add`.
        """
        weights = self.model.trainable_variables
        sums, gradients = self._gradients(batch, tf.maximum(tokens, 1.0))
        sums = self._sums_over_replicas(sums)
        gradients = self._over_replicas(gradients)
        largest = largest_if_not_finite(sums.loss, gradients)
        rate = tf.cast(self.optimizer.learning_rate, tf.float32)
        self.optimizer.apply(clip(gradients, self.options.clip_norm), weights)
        return sums, rate, largest

    def evaluate(self, batch: Mapping[str, tf.Tensor]) -> tuple[LossSums]:
        """Returns the sums over the global batch, without dropout."""
        return (self._sums_over_replicas(self._forward(batch, training=False)),)

    def _over_replicas(self, values):
        if self.num_replicas == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(_SUM, values)

    def _sums_over_replicas(self, sums: LossSums) -> LossSums:
        # One vector, hence one small all-reduce; float32 holds counts up to 2^24 exactly.
        vector = self._over_replicas(tf.stack([tf.cast(value, tf.float32) for value in sums]))
        return LossSums(vector[0], tf.cast(vector[1], tf.int32), tf.cast(vector[2], tf.int32))

    def _gradients(self, batch, tokens) -> tuple[LossSums, list[tf.Tensor]]:
        """Sums and gradients of this replica's rows, one microbatch after the other."""
        parts = self.options.microbatches
        if parts == 1:
            return self._gradients_of_part(batch, tokens)
        rows = self.options.rows(batch["targets"].shape[0])
        batch = {
            name: tf.reshape(value, (parts, rows, *value.shape[1:]))
            for name, value in batch.items()
        }

        def add_part(index, total):
            part = {name: value[index] for name, value in batch.items()}
            more = self._gradients_of_part(part, tokens)
            return index + 1, tf.nest.map_structure(_accumulate, total, more)

        # Small floats are added up in float32.
        zeros = [tf.zeros(v.shape, tf.float32) for v in self.model.trainable_variables]
        nothing = LossSums(tf.constant(0.0), tf.constant(0), tf.constant(0))
        # A loop, not unrolled: parts that do not depend on each other would run at the same time,
        # with all their activations.
        _, total = tf.while_loop(
            lambda index, total: index < parts,
            add_part,
            (0, (nothing, zeros)),
            parallel_iterations=1,
            maximum_iterations=parts,
        )
        return total

    def _gradients_of_part(self, batch, tokens) -> tuple[LossSums, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            sums = self._forward(batch, training=True)
            loss = sums.loss / tokens
        gradients = tape.gradient(
            loss,
            [weight.value for weight in self.model.trainable_variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        # A lookup's gradient comes as rows with repeats: summed here, so that every optimizer sees
        # an ordinary array and every strategy reduces it in the same way.
        return sums, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _forward(self, batch, training: bool) -> LossSums:
        inputs = {name: value for name, value in batch.items() if name != "targets"}
        with self.seeds_of_replica():
            logits = self.model(inputs, training=training)
        return loss_sums(logits, batch["targets"])

    def seeds_of_replica(self) -> contextlib.AbstractContextManager:
        """Context in which each replica draws dropout masks of its own.

        Seed generators are mirrored, so all replicas would draw the same mask. Replica 0 keeps the
        seed that a single device has.
        """
        if self.num_replicas == 1:
            return contextlib.nullcontext()
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group

        def fold(seed):
            # Far apart, because the layers' own seeds may be neighbours.
            shift = _SEED_SHIFT * tf.cast(replica, seed.dtype)
            return seed + tf.stack([shift, tf.zeros_like(shift)])

        return fold_seed(fold)


def _accumulate(total, value):
    return total + tf.cast(value, total.dtype)
