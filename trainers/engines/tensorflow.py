"""Engine on `tf.distribute`: one loop of steps in one `tf.function`, for every strategy.

Each precaution below was measured; the comments say against what.
"""

import contextlib
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_fusion import _keras
from trainers.data.tokens import PAD_ID
from trainers.engines.base import Engine, StepOptions, check_backend
from trainers.engines.losses import Totals
from trainers.engines.tensorflow_steps import ReplicaSteps
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


class TensorFlowEngine(Engine):
    """Data-parallel training steps under a `tf.distribute` strategy.

    Args:
        strategy: a `tf.distribute.Strategy`; None takes the default one (a single device).

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
        super().__init__(options)
        check_backend("tensorflow", "a tf.distribute strategy")
        self.strategy = strategy or tf.distribute.get_strategy()
        self._replicas = self.strategy.num_replicas_in_sync
        # Each worker is a process; a TPU's hosts all do what one process says.
        self._of_workers = isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self._sum = tf.function(self._sum_over_replicas)

    @property
    def num_devices(self) -> int:
        return self._replicas

    @property
    def is_local(self) -> bool:
        return self._replicas == 1 and not isinstance(self.strategy, tf.distribute.TPUStrategy)

    @property
    def is_chief(self) -> bool:
        if not self._of_workers:
            return True
        return self.host == 0

    @property
    def num_hosts(self) -> int:
        if not self._of_workers:
            return 1
        cluster = self.strategy.cluster_resolver.cluster_spec()
        return sum(map(cluster.num_tasks, cluster.jobs))

    @property
    def host(self) -> int:
        if not self._of_workers:
            return 0
        # The worker named chief, else the first one.
        resolver = self.strategy.cluster_resolver
        chiefs = "chief" in resolver.cluster_spec().jobs
        return resolver.task_id + (chiefs and resolver.task_type != "chief")

    def agree(self, flag: bool) -> bool:
        if not self._of_workers:
            return flag
        return bool(self._sum(tf.constant(float(flag))) > 0)

    def gather_rows(self, row: np.ndarray) -> np.ndarray:
        if not self._of_workers:
            return super().gather_rows(row)
        rows = np.zeros((self.num_hosts, row.size), np.float32)
        rows[self.host] = row
        # Every replica of a host adds its row.
        replicas = self._replicas // self.num_hosts
        return (self._sum(tf.constant(rows)).numpy() / replicas).astype(row.dtype)

    def _sum_over_replicas(self, value):
        values = self.strategy.run(tf.identity, (value,))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which model and optimizer must be built, so that they are mirrored."""
        return self.strategy.scope()

    def check(self, model, optimizer) -> None:
        mirrored = tf.distribute.DistributedValues
        outside = [v.path for v in model.variables if not isinstance(v.value, mirrored)]
        if self._replicas > 1 and outside:
            raise UserError(
                "the model to be built inside engine.scope()",
                f"{len(outside)} variables that are not mirrored, the first {outside[0]}",
                "Build it there",
            )
        if hasattr(optimizer, "inner_optimizer"):
            raise UserError(
                "an optimizer that scales no loss: an overflow on one replica would turn all "
                "weights into nan",
                f"optimizer={type(optimizer).__name__}",
                "Use bfloat16 without it",
            )
        for option, reason in _REFUSED.items():
            if value := getattr(optimizer, option, None):
                expected = f"an optimizer without {option}, which {reason}"
                raise UserError(expected, f"{option}={value}", "Leave it out")

    def build_steps(self, model, optimizer) -> None:
        if self._replicas > 1:
            _keras.sum_no_gradients(optimizer)
        self._steps = ReplicaSteps(model, optimizer, self.options, self._replicas)
        # Not jit_compile: on the CPU XLA is slower, under MirroredStrategy it fails, on a TPU it
        # is implied.
        self._train_steps = tf.function(self._loop_of_training)
        self._evaluation_steps = tf.function(self._loop_of_evaluation)

    def run_steps(self, arrays: dict[str, np.ndarray], num_steps: int) -> list[float]:
        self.options.rows(self._rows_of_a_replica(arrays))
        tokens = np.count_nonzero(arrays["targets"] != PAD_ID, axis=(1, 2)).astype(np.float32)
        # A tensor, not an int: no new trace for another number of steps.
        steps = tf.constant(num_steps, tf.int32)
        return self._train_steps(_tensors(arrays), tokens, steps).numpy().tolist()

    def run_evaluation(self, arrays: dict[str, np.ndarray], num_batches: int) -> list[float]:
        self._rows_of_a_replica(arrays)
        count = tf.constant(num_batches, tf.int32)
        return self._evaluation_steps(_tensors(arrays), count).numpy().tolist()

    def _rows_of_a_replica(self, arrays) -> int:
        """Rows of each batch that a replica takes, of arrays (steps, global batch, length)."""
        size = arrays["targets"].shape[1]
        if size % self._replicas:
            raise UserError(
                f"a batch size that {self._replicas} replicas divide",
                f"batch_size={size}",
                f"Take a multiple of {self._replicas}",
            )
        return size // self._replicas

    def _batch_of_replicas(self, arrays, index):
        """Hands each replica its rows of step `index`; in a graph.

        Every host has the global batch and takes what its replicas need. Cut on the host: a TPU
        would copy all the steps' batches to its memory in each step.
        """
        rows = self._rows_of_a_replica(arrays)

        def rows_of(context):
            start = context.replica_id_in_sync_group * rows
            # In two cuts: one cut by a tensor and a slice would leave the number of rows unknown.
            return {name: value[index][start : start + rows] for name, value in arrays.items()}

        return self.strategy.experimental_distribute_values_from_function(rows_of)

    def _loop_of_training(self, arrays, tokens, num_steps):
        totals = Totals.zeros()
        for index in tf.range(num_steps):
            batch = self._batch_of_replicas(arrays, index)
            results = self._run(self._steps.train, batch, tokens[index])
            totals = totals.add(index, *results)
        return _pack(totals)

    def _loop_of_evaluation(self, arrays, num_batches):
        totals = Totals.zeros()
        for index in tf.range(num_batches):
            batch = self._batch_of_replicas(arrays, index)
            totals = totals.add(index, *self._run(self._steps.evaluate, batch))
        return _pack(totals)

    def _run(self, step, *arguments):
        """Runs a step on all replicas; returns its values, which are the same on each."""
        local = self.strategy.experimental_local_results
        return tf.nest.map_structure(lambda v: local(v)[0], self.strategy.run(step, arguments))

    def start_profile(self, folder: pathlib.Path) -> None:
        tf.profiler.experimental.start(str(folder))

    def stop_profile(self) -> None:
        tf.profiler.experimental.stop()

    def read(self, name: str) -> np.ndarray:
        return np.array(keras.ops.convert_to_numpy(self.variables[name].value))

    def write(self, name: str, value) -> None:
        self.variables[name].assign(np.asarray(value))


def _pack(totals: Totals):
    # One vector, so that a call waits for the devices and copies from them once; float64 holds
    # every int32 exactly.
    return tf.stack([tf.cast(value, tf.float64) for value in totals])


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    with tf.device("CPU:0"):
        return {name: tf.convert_to_tensor(value) for name, value in arrays.items()}
