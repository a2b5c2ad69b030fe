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
from trainers.engines.losses import LossSums, loss_sums


class State(NamedTuple):
    """Values of a run's variables, in the order of model and optimizer.

    Attributes:
        weights: trainable variables of the model.
        others: its other variables, seeds of dropout among them.
        slots: variables of the optimizer.
    """

    weights: list
    others: list
    slots: list


class Totals(NamedTuple):
    """Sums over steps, as scalars on the device; fields as in `StepSums`."""

    loss_sum: jax.Array
    tokens: jax.Array
    correct: jax.Array
    learning_rate: jax.Array
    bad_step: jax.Array
    largest_gradient: jax.Array


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of one model and one optimizer; methods are pure functions to be compiled.

    Batches are dicts of arrays (steps, microbatches, rows, length).

    Args:
        model: a built Keras model; it holds no state here.
        optimizer: its built optimizer; it holds none either.
        options: clipping. The microbatches are those of the batches' second axis.
        keep: constrains a list of arrays like the trainable weights to these' shardings.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    options: StepOptions
    keep: Callable[[list], list]

    def train(self, state: State, batches: Mapping, num_steps) -> tuple[State, Totals]:
        """Runs the first `num_steps` of the batches: a number on the device, so compiled once."""

        def step(index, carry):
            state, totals = carry
            batch = {name: value[index] for name, value in batches.items()}
            state, sums, rate, largest = self._step(state, batch)
            return state, _add(totals, index, sums, rate, largest)

        return jax.lax.fori_loop(0, num_steps, step, (state, _zeros()))

    def evaluate(self, state: State, batches: Mapping, num_batches) -> Totals:
        """Sums over the first `num_batches`, without dropout."""

        def step(index, totals):
            batch = {name: value[index] for name, value in batches.items()}
            parts = batch["targets"].shape[0]
            for part in range(parts):
                one = {name: value[part] for name, value in batch.items()}
                sums, _ = self._forward(state.weights, state.others, one, training=False)
                totals = _add(totals, index, sums)
            return totals

        return jax.lax.fori_loop(0, num_batches, step, _zeros())

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
            only = {name: value[0] for name, value in batch.items()}
            gradients, (others, sums) = gradients_of(state.weights, state.others, only)
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


def _zeros() -> Totals:
    nan = jnp.float32(jnp.nan)
    return Totals(jnp.float32(0), jnp.int32(0), jnp.int32(0), nan, jnp.int32(-1), nan)


def _add(totals: Totals, index, sums: LossSums, rate=jnp.nan, largest=jnp.nan) -> Totals:
    was_good = totals.bad_step < 0
    failed = was_good & ~jnp.isfinite(sums.loss)
    return Totals(
        loss_sum=totals.loss_sum + sums.loss,
        tokens=totals.tokens + sums.tokens,
        correct=totals.correct + sums.correct,
        learning_rate=jnp.asarray(rate, "float32"),
        bad_step=jnp.where(failed, jnp.asarray(index, "int32"), totals.bad_step),
        largest_gradient=jnp.where(was_good, largest, totals.largest_gradient),
    )
