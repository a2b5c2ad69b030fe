"""Engine on `tf.distribute`: one loop of steps in one `tf.function`, for every strategy.

What each line below is careful about was measured; see the comments.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from trainers.engines.base import Batch, StepOptions, StepSums, check_built
from trainers.engines.feeds import Calls, at_least_one, stack
from trainers.engines.losses import PAD_ID
from trainers.engines.state import check_state, state_variables
from trainers.engines.tensorflow_steps import ReplicaSteps, sum_no_gradients
from trainers.errors import UserError

_CLIPS = "clips the gradient of one replica: StepOptions(clip_norm=…) clips that of all"
# Options of a Keras optimizer, and why none is taken.
_REFUSED = {
    "clipnorm": _CLIPS,
    "global_clipnorm": _CLIPS,
    "clipvalue": _CLIPS,
    "gradient_accumulation_steps": "fails in a loop of steps: StepOptions(microbatches=…) does not",
    "use_ema": "fails in a loop of steps",
}


class TensorFlowEngine:
    """Data-parallel training steps under a `tf.distribute` strategy.

    Args:
        strategy: a `tf.distribute.Strategy`; None takes the default one (a single device).
        options: clipping and microbatches; None for neither.

    Example:
        engine = TensorFlowEngine(tf.distribute.MirroredStrategy(), StepOptions(clip_norm=1.0))
        with engine.scope():
            model = kf.models.T5(config, seed=0)
            optimizer = kf.optimizers.Adafactor(learning_rate)
        engine.compile(model, optimizer)
        sums = engine.train(batches.from_step(0), num_steps=100)
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy | None = None,
        options: StepOptions | None = None,
    ):
        if keras.backend.backend() != "tensorflow":
            raise UserError(
                "Expected Keras on its tensorflow backend for a tf.distribute strategy. "
                f"Received: KERAS_BACKEND={keras.backend.backend()}. "
                "Set KERAS_BACKEND=tensorflow before Keras is imported."
            )
        self.strategy = strategy or tf.distribute.get_strategy()
        self.options = options or StepOptions()
        # Each worker is a process; a TPU's hosts all do what one process says.
        self._of_workers = isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self._any_worker = tf.function(self._sum_over_replicas)
        self._calls = Calls()

    @property
    def num_replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def num_devices(self) -> int:
        """Devices of all hosts; each holds one replica."""
        return self.num_replicas

    @property
    def is_local(self) -> bool:
        """Whether the model's weights can be used outside the engine as any other tensors."""
        return self.num_devices == 1 and not isinstance(self.strategy, tf.distribute.TPUStrategy)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files: the worker named chief, else the first one."""
        if not self._of_workers:
            return True
        resolver = self.strategy.cluster_resolver
        chiefs = "chief" in resolver.cluster_spec().jobs
        return not resolver.task_id and (resolver.task_type == "chief" or not chiefs)

    def agree(self, flag: bool) -> bool:
        """Returns whether `flag` is set on any host; every host has to call it, and waits."""
        if not self._of_workers:
            return flag
        return bool(self._any_worker(tf.constant(float(flag))) > 0)

    def _sum_over_replicas(self, value):
        values = self.strategy.run(tf.identity, (value,))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

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
        if self.num_replicas > 1:
            sum_no_gradients(optimizer)
        self._steps = ReplicaSteps(model, optimizer, self.options, self.num_replicas)
        self._variables = state_variables(model, optimizer)
        self._calls = Calls()
        # Not jit_compile: on the CPU XLA is slower, under MirroredStrategy it fails, on a TPU it
        # is implied.
        self._train_steps = tf.function(self._loop_of_training)
        self._evaluation_steps = tf.function(self._loop_of_evaluation)

    def _check(self, model, optimizer) -> None:
        check_built(model)
        if self.num_replicas > 1:
            mirrored = {id(v) for v in model.variables if hasattr(v.value, "_values")}
            outside = [v.path for v in model.variables if id(v) not in mirrored]
            if outside:
                raise UserError(
                    "Expected the model to be built inside engine.scope(). Received: "
                    f"{len(outside)} variables that are not mirrored, the first {outside[0]}."
                )
        if hasattr(optimizer, "inner_optimizer"):
            raise UserError(
                "Expected an optimizer that scales no loss: an overflow on one replica would turn "
                f"all weights into nan. Received: optimizer={type(optimizer).__name__}. Use "
                "bfloat16 without it."
            )
        for option, reason in _REFUSED.items():
            if getattr(optimizer, option, None):
                raise UserError(
                    f"Expected an optimizer without {option}, which {reason}. "
                    f"Received: {option}={getattr(optimizer, option)}. Leave it out."
                )

    # ---- running ----

    def warm_up(self, batches: Iterator[Batch], num_steps: int) -> None:
        """Traces and optimises the graph by a call of no steps; takes no batch of the run."""
        self._run_steps(self._calls.peek(batches, num_steps), 0)

    def train(self, batches: Iterator[Batch], num_steps: int) -> StepSums:
        """Runs `num_steps` steps on the next batches of an iterator; one wait at the end.

        Args:
            batches: iterator of dicts of int arrays (global batch, length), with "targets"; on
                several hosts the same on each. It is read ahead; pass the same one in the next
                call to go on where this one ended.
            num_steps: how many; more than in any call before means a new trace.

        Returns:
            `StepSums` over these steps and all replicas.
        """
        taken = self._calls.take(batches, num_steps)
        loss, tokens, correct, bad, rate, largest = self._run_steps(taken, num_steps)
        return StepSums(num_steps, loss, tokens, correct, rate, int(bad), largest)

    def _run_steps(self, batches: list[Batch], num_steps: int) -> list[float]:
        arrays = self._stack(batches, self._calls.length)
        self.options.rows(arrays["targets"].shape[1] // self.num_replicas)
        tokens = np.count_nonzero(arrays["targets"] != PAD_ID, axis=(1, 2)).astype(np.float32)
        # A tensor, not an int: no new trace for another number of steps.
        steps = tf.constant(num_steps, tf.int32)
        return self._train_steps(_tensors(arrays), tokens, steps).numpy().tolist()

    def evaluate(self, batches: Iterable[Batch]) -> StepSums:
        """Sums loss and counts over batches, without dropout.

        Args:
            batches: dicts as in `train`, all of one shape.
        """
        batches = at_least_one(batches)
        arrays = _tensors(self._stack(batches, len(batches)))
        sums = self._evaluation_steps(arrays, tf.constant(len(batches), tf.int32))
        loss, tokens, correct, bad = sums.numpy().tolist()
        return StepSums(len(batches), loss, tokens, correct, bad_step=int(bad))

    def _stack(self, batches: list[Batch], capacity: int) -> dict[str, np.ndarray]:
        """Arrays (steps, global batch, length) of which each replica can take its rows."""
        arrays = stack(batches, capacity)
        size = arrays["targets"].shape[1]
        if size % self.num_replicas:
            raise UserError(
                f"Expected a batch size that {self.num_replicas} replicas divide. Received: "
                f"batch_size={size}. Take a multiple of {self.num_replicas}."
            )
        return arrays

    def _rows_of_replicas(self, batches, index):
        """Hands each replica its rows of step `index`; in a graph.

        Every host has the global batch and takes what its replicas need. Cut on the host: a TPU
        would copy all the steps' batches to its memory in each step.
        """
        rows = batches["targets"].shape[1] // self.num_replicas

        def rows_of(context):
            start = context.replica_id_in_sync_group * rows
            # In two cuts: one cut by a tensor and a slice would leave the number of rows unknown.
            return {name: value[index][start : start + rows] for name, value in batches.items()}

        return self.strategy.experimental_distribute_values_from_function(rows_of)

    def _loop_of_training(self, batches, tokens, num_steps):
        loss, counts, bad = _zeros()
        rate, largest = tf.constant(0.0), tf.constant(float("nan"))
        for index in tf.range(num_steps):
            batch = self._rows_of_replicas(batches, index)
            result = self.strategy.run(self._steps.train, (batch, tokens[index]))
            sums, rate, found = (self._of_any_replica(value) for value in result)
            largest = tf.where(bad < 0, found, largest)
            loss, counts, bad = _add(index, loss, counts, bad, sums)
        return _pack(loss, *tf.unstack(counts), bad, rate, largest)

    def _loop_of_evaluation(self, batches, num_batches):
        loss, counts, bad = _zeros()
        for index in tf.range(num_batches):
            batch = self._rows_of_replicas(batches, index)
            sums = self._of_any_replica(self.strategy.run(self._steps.evaluate, (batch,)))
            loss, counts, bad = _add(index, loss, counts, bad, sums)
        return _pack(loss, *tf.unstack(counts), bad)

    def _of_any_replica(self, value):
        """A value that is the same on every replica."""
        return self.strategy.experimental_local_results(value)[0]

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
            variable.assign(np.asarray(state[name]))


def _zeros():
    return tf.constant(0.0), tf.constant([0, 0]), tf.constant(-1)


def _add(index, loss, counts, bad, sums):
    failed = tf.logical_and(bad < 0, tf.logical_not(tf.math.is_finite(sums[0])))
    bad = tf.where(failed, index, bad)
    return loss + sums[0], counts + tf.cast(sums[1:], tf.int32), bad


def _pack(*scalars):
    # One vector, so that a call waits for the devices and copies from them once; float64 holds
    # every int32 exactly.
    return tf.stack([tf.cast(value, tf.float64) for value in scalars])


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    with tf.device("CPU:0"):
        return {name: tf.convert_to_tensor(value) for name, value in arrays.items()}
