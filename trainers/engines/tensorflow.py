"""Engine on `tf.distribute`: one loop of steps in one `tf.function`, for every strategy.

What each line below is careful about was measured; see the comments.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_fusion.layers.dropout import fold_seed
from trainers.engines.base import Batch, StepSums, check_state, state_variables
from trainers.engines.feeds import Feed, stack
from trainers.errors import UserError
from trainers.losses import LossSums, loss_sums

_SEED_SHIFT = 2654435761


class TensorFlowEngine:
    """Data-parallel training steps under a `tf.distribute` strategy.

    Args:
        strategy: a `tf.distribute.Strategy`; None takes the default one (a single device).

    Example:
        engine = TensorFlowEngine(tf.distribute.MirroredStrategy())
        with engine.scope():
            model = kf.models.T5(config, seed=0)
            optimizer = kf.optimizers.Adafactor(learning_rate)
        engine.compile(model, optimizer)
        sums = engine.train(batches.from_step(0), num_steps=100)
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        if keras.backend.backend() != "tensorflow":
            raise UserError(
                "Expected Keras on its tensorflow backend for a tf.distribute strategy. "
                f"Received: KERAS_BACKEND={keras.backend.backend()}. "
                "Set KERAS_BACKEND=tensorflow before Keras is imported."
            )
        self.strategy = strategy or tf.distribute.get_strategy()
        self._model = None
        self._optimizer = None
        self._feed: Feed | None = None
        self._capacity = 0

    @property
    def num_replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def num_devices(self) -> int:
        """Devices of all hosts; each holds one replica."""
        return self.num_replicas

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files."""
        return True

    def agree(self, flag: bool) -> bool:
        """Returns whether `flag` is set on any host."""
        return flag

    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which model and optimizer must be built, so that they are mirrored."""
        return self.strategy.scope()

    def compile(self, model, optimizer) -> None:
        """Takes model and optimizer, builds the slots and traces nothing yet.

        Raises:
            UserError: where they would train wrong without a word: built outside `scope()`, or
                with an optimizer option that is wrong inside this loop.
        """
        self._check(model, optimizer)
        with self.scope():
            optimizer.build(model.trainable_variables)
        self._model, self._optimizer = model, optimizer
        self._variables = state_variables(model, optimizer)
        self._feed, self._capacity = None, 0
        # Not jit_compile: on the CPU XLA is slower, under MirroredStrategy it fails, on a TPU it
        # is implied.
        self._train_steps = tf.function(self._loop_of_training)
        self._evaluation_steps = tf.function(self._loop_of_evaluation)

    def _check(self, model, optimizer) -> None:
        if not model.built or not model.variables:
            raise UserError(
                f"Expected a built model. Received: model={model.name} without variables. "
                "Call it on a batch first."
            )
        if self.num_replicas > 1:
            mirrored = {id(v) for v in model.variables if hasattr(v.value, "_values")}
            outside = [v.path for v in model.variables if id(v) not in mirrored]
            if outside:
                raise UserError(
                    "Expected the model to be built inside engine.scope(). Received: "
                    f"{len(outside)} variables that are not mirrored, the first {outside[0]}."
                )
            for option in ("clipnorm", "global_clipnorm", "clipvalue"):
                # It would clip each replica's gradient before the sum.
                if getattr(optimizer, option, None) is not None:
                    raise UserError(
                        f"Expected an optimizer without {option} on several replicas. Received: "
                        f"{option}={getattr(optimizer, option)}. Leave it out."
                    )
        for option in ("gradient_accumulation_steps", "use_ema"):
            if getattr(optimizer, option, None):
                raise UserError(
                    f"Expected an optimizer without {option}, which fails in a loop of steps. "
                    f"Received: {option}={getattr(optimizer, option)}. Leave it out."
                )

    # ---- running ----

    def warm_up(self, batches: Iterator[Batch], num_steps: int) -> None:
        """Traces and optimises the graph by a call of no steps; takes no batch of the run."""
        self._take_feed(batches)
        self._capacity = max(self._capacity, num_steps)
        self._call(self._train_steps, [self._feed.peek()], 0, self._capacity)

    def train(self, batches: Iterator[Batch], num_steps: int) -> StepSums:
        """Runs `num_steps` steps on the next batches of an iterator; one wait at the end.

        Args:
            batches: iterator of dicts of int arrays (global batch, length), with "targets". It is
                read ahead; pass the same one in the next call to go on where this one ended.
            num_steps: how many; more than in any call before means a new trace.

        Returns:
            `StepSums` over these steps and all replicas.
        """
        self._take_feed(batches)
        self._capacity = max(self._capacity, num_steps)
        group = self._feed.take(num_steps)
        sums = self._call(self._train_steps, group, num_steps, self._capacity)
        loss, tokens, correct, rate, bad = sums
        return StepSums(num_steps, loss, tokens, correct, rate, int(bad))

    def evaluate(self, batches: Iterable[Batch]) -> StepSums:
        """Sums loss and counts over batches, without dropout.

        Args:
            batches: dicts as in `train`, all of one shape.
        """
        batches = list(batches)
        if not batches:
            raise UserError(
                "Expected at least one batch to evaluate on. Received: batches=[]. Give more data."
            )
        sums = self._call(self._evaluation_steps, batches, len(batches), len(batches))
        loss, tokens, correct, bad = sums
        return StepSums(len(batches), loss, tokens, correct, bad_step=int(bad))

    def _take_feed(self, batches: Iterator[Batch]) -> None:
        if self._feed is None or self._feed.source is not batches:
            self._feed = Feed(batches)

    def _call(self, function, batches: list[Batch], num_steps: int, capacity: int) -> list[float]:
        # A tensor, not an int: no new trace for another number of steps.
        count = tf.constant(num_steps, tf.int32)
        sums = function(self._distribute(stack(batches, capacity)), count)
        # One vector, so that a call waits for the devices and copies from them once.
        return sums.numpy().tolist()

    def _distribute(self, arrays: dict[str, np.ndarray]):
        """Hands each replica of this host its rows of (steps, global batch, length) arrays."""
        size = arrays["targets"].shape[1]
        if size % self.num_replicas:
            raise UserError(
                f"Expected a batch size that {self.num_replicas} replicas divide. Received: "
                f"batch_size={size}. Take a multiple of {self.num_replicas}."
            )
        if self.num_replicas == 1:
            return {name: tf.convert_to_tensor(value) for name, value in arrays.items()}
        rows = size // self.num_replicas

        def rows_of_replica(context):
            start = context.replica_id_in_sync_group * rows
            return {
                name: tf.convert_to_tensor(value[:, start : start + rows])
                for name, value in arrays.items()
            }

        return self.strategy.experimental_distribute_values_from_function(rows_of_replica)

    def _loop_of_training(self, batches, num_steps):
        loss, tokens, correct = _zeros()
        rate, bad = tf.constant(0.0), tf.constant(-1)
        for index in tf.range(num_steps):
            sums, rates = self.strategy.run(self._train_step, (batches, index))
            sums = self._reduce(sums)
            rate = tf.reshape(self.strategy.experimental_local_results(rates)[0], [])
            loss, tokens, correct, bad = _add(index, loss, tokens, correct, bad, sums)
        return _pack(loss, tokens, correct, rate, bad)

    def _loop_of_evaluation(self, batches, num_batches):
        loss, tokens, correct = _zeros()
        bad = tf.constant(-1)
        for index in tf.range(num_batches):
            sums = self._reduce(self.strategy.run(self._evaluation_step, (batches, index)))
            loss, tokens, correct, bad = _add(index, loss, tokens, correct, bad, sums)
        return _pack(loss, tokens, correct, bad)

    def _reduce(self, sums: LossSums) -> LossSums:
        add = tf.distribute.ReduceOp.SUM
        return LossSums(*(self.strategy.reduce(add, value, axis=None) for value in sums))

    def _train_step(self, batches, index):
        """One replica's part of a step: forward, backward, update."""
        model, optimizer = self._model, self._optimizer
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            sums = self._forward(batches, index, training=True)
            # A Keras optimizer adds up the replicas' gradients inside `apply`, so that each
            # divides by the count of all replicas.
            tokens = sums.tokens
            if self.num_replicas > 1:
                replica = tf.distribute.get_replica_context()
                tokens = replica.all_reduce(tf.distribute.ReduceOp.SUM, tokens)
            loss = sums.loss / tf.cast(tf.maximum(tokens, 1), tf.float32)
        gradients = tape.gradient(loss, [v.value for v in weights])
        # A lookup's gradient comes as rows with repeats: summed here, so that every optimizer sees
        # an ordinary array and every strategy reduces it in the same way.
        gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        optimizer.apply(gradients, weights)
        return sums, rate

    def _evaluation_step(self, batches, index) -> LossSums:
        return self._forward(batches, index, training=False)

    def _forward(self, batches, index, training: bool) -> LossSums:
        batch = {name: value[index] for name, value in batches.items()}
        inputs = {name: value for name, value in batch.items() if name != "targets"}
        with self._seeds_of_replica():
            logits = self._model(inputs, training=training)
        return loss_sums(logits, batch["targets"])

    def _seeds_of_replica(self) -> contextlib.AbstractContextManager:
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

    # ---- state ----

    def state(self) -> dict[str, np.ndarray]:
        """Copies weights, slots, iterations and seeds to the host (`state_variables` names)."""
        return {
            name: np.array(keras.ops.convert_to_numpy(variable.value))
            for name, variable in self._variables.items()
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets what `state` returned, here or under another strategy.

        Raises:
            UserError: naming every difference in names and shapes; nothing is set then.
        """
        check_state(
            {name: tuple(variable.shape) for name, variable in self._variables.items()},
            {name: tuple(value.shape) for name, value in state.items()},
            "the state of a run",
        )
        for name, variable in self._variables.items():
            variable.assign(state[name])


def _zeros():
    return tf.constant(0.0), tf.constant(0), tf.constant(0)


def _add(index, loss, tokens, correct, bad, sums: LossSums):
    failed = tf.logical_and(bad < 0, tf.logical_not(tf.math.is_finite(sums.loss)))
    bad = tf.where(failed, index, bad)
    return loss + sums.loss, tokens + sums.tokens, correct + sums.correct, bad


def _pack(*scalars):
    # float64 holds every int32 exactly.
    return tf.stack([tf.cast(value, tf.float64) for value in scalars])
