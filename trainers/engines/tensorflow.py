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
from trainers.errors import UserError
from trainers.losses import LossSums, loss_sums

# Batches that wait on the host while the devices work.
_PREFETCH = 4
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
        self._feed: _Feed | None = None

    @property
    def num_replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

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
        self._feed = None
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

    def warm_up(self, batches: Iterator[Batch]) -> None:
        """Traces and optimises the graph by a call of no steps; takes no batch of the run."""
        self.train(batches, 0)

    def train(self, batches: Iterator[Batch], num_steps: int) -> StepSums:
        """Runs `num_steps` steps on the next batches of an iterator; one wait at the end.

        Args:
            batches: iterator of dicts of int arrays (global batch, length), with "targets". It is
                read ahead; pass the same one in the next call to go on where this one ended.
            num_steps: how many.

        Returns:
            `StepSums` over these steps and all replicas.
        """
        if self._feed is None or self._feed.source is not batches:
            self._feed = _Feed(batches, self.strategy)
        loss, tokens, correct, rate, bad = self._call(self._train_steps, self._feed, num_steps)
        return StepSums(num_steps, loss, tokens, correct, rate, int(bad))

    def evaluate(self, batches: Iterable[Batch]) -> StepSums:
        """Sums loss and counts over batches, without dropout.

        Args:
            batches: dicts as in `train`, all of one shape.
        """
        batches = list(batches)
        feed = _Feed(iter(batches), self.strategy)
        loss, tokens, correct, bad = self._call(self._evaluation_steps, feed, len(batches))
        return StepSums(len(batches), loss, tokens, correct, bad_step=int(bad))

    def _call(self, function, feed: "_Feed", num_steps: int) -> list[float]:
        try:
            # A tensor, not an int: no new trace for another number of steps.
            sums = function(feed.iterator, tf.constant(num_steps, tf.int32))
            # One vector, so that a call waits for the devices and copies from them once.
            return sums.numpy().tolist()
        except tf.errors.OpError:
            if feed.error is not None:
                raise feed.error from None
            raise

    def _loop_of_training(self, iterator, num_steps):
        loss, tokens, correct = _zeros()
        rate, bad = tf.constant(0.0), tf.constant(-1)
        for index in tf.range(num_steps):
            sums, rates = self.strategy.run(self._train_step, (next(iterator),))
            sums = self._reduce(sums)
            rate = tf.reshape(self.strategy.experimental_local_results(rates)[0], [])
            loss, tokens, correct, bad = _add(index, loss, tokens, correct, bad, sums)
        return _pack(loss, tokens, correct, rate, bad)

    def _loop_of_evaluation(self, iterator, num_batches):
        loss, tokens, correct = _zeros()
        bad = tf.constant(-1)
        for index in tf.range(num_batches):
            sums = self._reduce(self.strategy.run(self._evaluation_step, (next(iterator),)))
            loss, tokens, correct, bad = _add(index, loss, tokens, correct, bad, sums)
        return _pack(loss, tokens, correct, bad)

    def _reduce(self, sums: LossSums) -> LossSums:
        add = tf.distribute.ReduceOp.SUM
        return LossSums(*(self.strategy.reduce(add, value, axis=None) for value in sums))

    def _train_step(self, batch):
        """One replica's part of a step: forward, backward, update."""
        model, optimizer = self._model, self._optimizer
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            sums = self._forward(batch, training=True)
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

    def _evaluation_step(self, batch) -> LossSums:
        return self._forward(batch, training=False)

    def _forward(self, batch, training: bool) -> LossSums:
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


class _Feed:
    """A distributed iterator over host batches that keeps the error that ended it.

    tf.data turns an exception of a generator into a text; `error` has the exception itself.
    """

    def __init__(self, source: Iterator[Batch], strategy: tf.distribute.Strategy):
        self.source = source
        self.error: BaseException | None = None
        self._replicas = strategy.num_replicas_in_sync
        self._taken = 0
        self._first = self._take()
        if self._first is None:
            raise self.error
        self._check_sizes()
        signature = {
            name: tf.TensorSpec((value.shape[0] // self._replicas, *value.shape[1:]), value.dtype)
            for name, value in self._first.items()
        }

        def dataset(context) -> tf.data.Dataset:
            # Each host reads every global batch and keeps the rows of its own replicas.
            per_host = self._replicas // context.num_input_pipelines
            first = context.input_pipeline_id * per_host
            rows = tf.data.Dataset.from_generator(
                lambda: self._parts(first, first + per_host), output_signature=signature
            )
            return rows.prefetch(_PREFETCH * per_host)

        self.iterator = iter(strategy.distribute_datasets_from_function(dataset))

    def _check_sizes(self) -> None:
        size = len(self._first["targets"])
        if size % self._replicas:
            raise UserError(
                f"Expected a batch size that {self._replicas} replicas divide. Received: "
                f"batch_size={size}. Take a multiple of {self._replicas}."
            )

    def _take(self) -> Batch | None:
        try:
            batch = next(self.source)
        except StopIteration:
            self.error = UserError(
                "Expected a batch for every step. Received: an iterator that ended after "
                f"{self._taken} batches. Give more data or train fewer steps."
            )
        except BaseException as error:  # also KeyboardInterrupt: this runs in a tf.data thread
            self.error = error
        else:
            self._taken += 1
            return batch
        return None

    def _parts(self, first: int, last: int):
        """Yields one replica's rows at a time, in the order of the replicas."""
        batch, self._first = self._first, None
        while batch is not None:
            rows = len(batch["targets"]) // self._replicas
            for replica in range(first, last):
                start = replica * rows
                yield {name: value[start : start + rows] for name, value in batch.items()}
            batch = self._take()


def _zeros():
    return tf.constant(0.0), tf.constant(0), tf.constant(0)


def _add(index, loss, tokens, correct, bad, sums: LossSums):
    failed = tf.logical_and(bad < 0, tf.logical_not(tf.math.is_finite(sums.loss)))
    bad = tf.where(failed, index, bad)
    return loss + sums.loss, tokens + sums.tokens, correct + sums.correct, bad


def _pack(*scalars):
    # float64 holds every int32 exactly.
    return tf.stack([tf.cast(value, tf.float64) for value in scalars])
