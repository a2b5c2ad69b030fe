"""Computation of one call of the JAX engine: several steps, as a pure function of the state."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import keras

from trainers.data.tokens import PAD_ID
from trainers.engines.base import StepOptions
from trainers.engines.gradients import clip, largest_if_not_finite
from trainers.engines.losses import LossSums, Totals, loss_sums


class State(NamedTuple):
    """Values of a run's variables, in the order of model and optimizer."""

    weights: list  # trainable variables of the model
    others: list  # its other variables, seeds of dropout among them
    slots: list  # variables of the optimizer


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of one model and one optimizer; methods are pure functions to be compiled.

    Batches are dicts of arrays (steps, microbatches, rows, length).

    """

    model: keras.Model  # built; it holds no state here
    optimizer: keras.optimizers.Optimizer  # built; it holds none either
    options: StepOptions  # clipping; the microbatches are those of the batches' second axis
    # Constrains a list of arrays like the trainable weights to these' shardings.
    keep: Callable[[list], list]

    def train(self, state: State, batches: Mapping, num_steps) -> tuple[State, Totals]:
        """Runs the first `num_steps` of the batches: a number on the device, so compiled once."""

        def step(index, carry):
            state, totals = carry
            state, *results = self._step(state, _at(batches, index))
            return state, totals.add(index, *results)

        return jax.lax.fori_loop(0, num_steps, step, (state, Totals.zeros()))

    def evaluate(self, state: State, batches: Mapping, num_batches) -> Totals:
        """Sums over the first `num_batches`, without dropout."""

        def step(index, totals):
            batch = _at(batches, index)
            for part in range(batch["targets"].shape[0]):
                part = _at(batch, part)
                sums, _ = self._forward(state.weights, state.others, part, training=False)
                totals = totals.add(index, sums)
            return totals

        return jax.lax.fori_loop(0, num_batches, step, Totals.zeros())

    def _step(self, state: State, batch: Mapping):
        rate = self._learning_rate(state.slots)
        gradients, others, sums = self._gradients(state, batch)
        gradients = self.keep(gradients)
        largest = largest_if_not_finite(sums.loss, gradients)
        gradients = clip(gradients, self.options.clip_norm)
        weights, slots = self.optimizer.stateless_apply(state.slots, gradients, state.weights)
        return State(self.keep(weights), others, slots), sums, rate, largest

    def _gradients(self, state: State, batch: Mapping):
        """Gradients of the loss per token, added up over the microbatches."""
        tokens = jnp.maximum(jnp.sum(batch["targets"] != PAD_ID, dtype="int32"), 1)

        def loss(weights, others, part):
            sums, others = self._forward(weights, others, part, training=True)
            return sums.loss / tokens.astype("float32"), (others, sums)

        gradients_of = jax.grad(loss, has_aux=True)

        def add(carry, part):
            gradients, others, sums = carry
            more, (others, more_sums) = gradients_of(state.weights, others, part)
            added = jax.tree.map(jnp.add, (gradients, sums), (more, more_sums))
            return (self.keep(added[0]), others, added[1]), None

        if batch["targets"].shape[0] == 1:
            gradients, (others, sums) = gradients_of(state.weights, state.others, _at(batch, 0))
            return gradients, others, sums
        zeros = [jnp.zeros_like(weight) for weight in state.weights]
        nothing = LossSums(jnp.float32(0), jnp.int32(0), jnp.int32(0))
        return jax.lax.scan(add, (zeros, state.others, nothing), batch)[0]

    def _forward(self, weights, others, batch: Mapping, training: bool):
        inputs = {name: value for name, value in batch.items() if name != "targets"}
        logits, others = self.model.stateless_call(weights, others, inputs, training=training)
        return loss_sums(logits, batch["targets"]), others

    def _learning_rate(self, slots):
        mapping = list(zip(self.optimizer.variables, slots, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return jnp.asarray(keras.ops.convert_to_tensor(self.optimizer.learning_rate), "float32")


def _at(arrays: Mapping, index) -> dict:
    return {name: value[index] for name, value in arrays.items()}
