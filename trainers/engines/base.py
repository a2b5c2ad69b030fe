"""Interface between the training loop and an engine, and the code that all engines share."""

import abc
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np

from trainers.engines.feeds import Batch, stack, take
from trainers.engines.state import check_state, state_variables
from trainers.errors import UserError
from trainers.programs import check_options, option


@dataclasses.dataclass(frozen=True)
class StepSums:
    """Host numbers of several steps (or evaluation batches), summed; see `Totals`."""

    steps: int = 0
    loss_sum: float = 0.0
    tokens: float = 0.0
    correct: float = 0.0
    learning_rate: float = float("nan")
    bad_step: int = -1
    largest_gradient: float = float("nan")

    @property
    def loss(self) -> float:
        """Loss summed over a batch, mean over the batches (the paper's "Loss")."""
        return self.loss_sum / max(self.steps, 1)

    @property
    def loss_per_token(self) -> float:
        return self.loss_sum / max(self.tokens, 1)

    @property
    def accuracy(self) -> float:
        """Teacher-forced token accuracy, percent."""
        return 100.0 * self.correct / max(self.tokens, 1)

    def means(self) -> dict[str, float]:
        """Returns the three numbers that all logs have."""
        return {name: getattr(self, name) for name in ("loss", "loss_per_token", "accuracy")}

    def __add__(self, other: "StepSums") -> "StepSums":
        bad, gradient = self.bad_step, self.largest_gradient
        if bad < 0:
            gradient = other.largest_gradient
            bad = self.steps + other.bad_step if other.bad_step >= 0 else -1
        return StepSums(
            steps=self.steps + other.steps,
            loss_sum=self.loss_sum + other.loss_sum,
            tokens=self.tokens + other.tokens,
            correct=self.correct + other.correct,
            learning_rate=other.learning_rate,
            bad_step=bad,
            largest_gradient=gradient,
        )


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """Treatment of the gradients in a training step, the same on every engine; checks itself."""

    # Largest global norm of the gradients, after the sum over all replicas and microbatches.
    clip_norm: float | None = option(None, above=0)
    # Parts that each replica's rows are cut into; their gradients are added before the one update,
    # so that memory holds the activations of one part only.
    microbatches: int = option(1, at_least=1)

    def __post_init__(self):
        check_options(self)

    def rows(self, rows: int) -> int:
        """Returns the rows of a microbatch of a replica that has `rows` of them."""
        if rows % self.microbatches:
            raise UserError(
                f"microbatches to divide the {rows} sequences that a replica has",
                f"microbatches={self.microbatches}",
                f"Take a divisor of {rows}",
            )
        return rows // self.microbatches


class Engine(abc.ABC):
    """Runs steps of one model and one optimizer on some devices.

    Order of calls: build model and optimizer inside `scope()`, `compile` them, then any of the
    others. Every number that the loop sees is global: summed over all replicas and all hosts.

    """

    num_devices: int  # that the engine uses, those of other hosts included
    # Whether the model's weights can be used outside the engine as any other tensors: one device
    # holds them, which this process drives itself.
    is_local: bool
    is_chief: bool = True  # whether this process is the one that writes files
    num_hosts: int = 1  # processes that run the engine together
    host: int = 0  # number of this one
    # Whether each host saves what `shards` gives it; if not, the chief saves all.
    saves_shards: bool = False

    def __init__(self, options: StepOptions | None = None):
        self.options = options or StepOptions()
        # Name to variable of the run's state, once compiled.
        self.variables: dict[str, keras.Variable] = {}
        # Of the longest call so far, and of all arrays: a longer one means a new compilation.
        self._length = 0

    def agree(self, flag: bool) -> bool:
        """Returns whether `flag` is set on any host; every host has to call it, and waits."""
        return flag

    def gather(self, text: str) -> list[str]:
        """Returns the texts of all hosts, by number; every host has to call it, and waits."""
        content = np.frombuffer(text.encode(), np.uint8)
        sizes = self.gather_rows(np.array([content.size]))[:, 0]
        # A sum over hosts of nothing at all, as of empty texts, ends TensorFlow with SIGSEGV.
        length = max(1, sizes.max())
        rows = self.gather_rows(np.pad(content, (0, length - content.size)))
        return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]

    def gather_rows(self, row: np.ndarray) -> np.ndarray:
        """Returns the rows of all hosts, small integers, one below the other; as `gather`."""
        return row[None]

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of a batch that this host needs.

        From now on `train` and `evaluate` take batches of these rows alone.
        """
        return slice(0, batch_size)

    @abc.abstractmethod
    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which model and optimizer must be built."""

    def compile(self, model, optimizer) -> None:
        """Takes model and optimizer, builds the slots and the step functions.

        Raises:
            UserError: the model is not built, or the engine would train it wrong.
        """
        if not model.built or not model.variables:
            fault = f"model={model.name} without variables"
            raise UserError("a built model", fault, "Call it on a batch first")
        self.check(model, optimizer)
        with self.scope():
            optimizer.build(model.trainable_variables)
        self.variables = state_variables(model, optimizer)
        self._length = 0
        self.build_steps(model, optimizer)

    def warm_up(self, batch: Batch, num_steps: int) -> None:
        """Compiles calls of up to `num_steps` steps by a call of none on batches like this one."""
        self._length = max(self._length, num_steps)
        self.run_steps(stack([batch], self._length), 0)

    def train(self, batches: Iterator[Batch], num_steps: int) -> StepSums:
        """Runs `num_steps` steps on the next batches of an iterator; waits for the devices once.

        Args:
            batches: iterator of dicts of int arrays (global batch, length), with "targets"; on
                several hosts the same on each, or the `rows` that it was told of.
            num_steps: how many; more than in any call before means a new compilation.
        """
        self._length = max(self._length, num_steps)
        arrays = stack(take(batches, num_steps), self._length)
        return _sums(num_steps, self.run_steps(arrays, num_steps))

    def evaluate(self, batches: Iterable[Batch]) -> StepSums:
        """Sums loss and counts over `batches`, without dropout; the state stays as it is.

        Args:
            batches: dicts as in `train`, all of one shape.
        """
        batches = list(batches)
        if not batches:
            raise UserError("at least one batch to evaluate on", "batches=[]", "Give more data")
        arrays = stack(batches, len(batches))
        return _sums(len(batches), self.run_evaluation(arrays, len(batches)))

    def state(self) -> dict[str, np.ndarray]:
        """Copies weights, slots, iterations and seeds to the host (`state_variables` names).

        Of several hosts each has to call it, and gets all of it.
        """
        return {name: self.read(name) for name in self.variables}

    def shards(self) -> dict[str, np.ndarray]:
        """Copies what this host has to save: its own parts, or what `state` returns.

        The names of parts say where they begin (`trainers.engines.state.part_name`), also where the
        part is all of the array.
        """
        return self.state()

    def load_state(self, state: Mapping[str, np.ndarray], partial: bool = False) -> None:
        """Sets what `state` returned, on any engine and any number of devices.

        Args:
            state: arrays, or what can be sliced like them: a memory-mapped file, a lazily fused
                array. Where names or shapes differ, an error names all and nothing is set.
            partial: whether what it does not name keeps its value; else that is an error.
        """
        names = [name for name in self.variables if name in state or not partial]
        check_state(
            {name: tuple(self.variables[name].shape) for name in names},
            {name: tuple(value.shape) for name, value in state.items()},
            "the state of a run",
        )
        for name in names:
            self.write(name, state[name])

    # ---- what is shown of a run ----

    def splits(self, name: str) -> tuple[str | None, ...]:
        """Returns the dimension of the mesh along which each dimension of a variable is split.

        Empty where every device holds all of it.
        """
        return ()

    def parts(self, name: str) -> int:
        """Returns the number of parts that a variable is split into, each on other devices."""
        return 1

    # ---- what an engine adds ----

    def check(self, model, optimizer) -> None:  # noqa: B027 (most need none)
        """Raises a `UserError` for a model or optimizer that this engine would train wrong."""

    @abc.abstractmethod
    def build_steps(self, model, optimizer) -> None:
        """Makes the step functions of a model and an optimizer that have their variables."""

    @abc.abstractmethod
    def run_steps(self, arrays: dict[str, np.ndarray], num_steps: int) -> Sequence[float]:
        """Trains on the first `num_steps` of arrays (steps, global batch, length).

        Returns the fields of `Totals`.
        """

    @abc.abstractmethod
    def run_evaluation(self, arrays: dict[str, np.ndarray], num_batches: int) -> Sequence[float]:
        """Evaluates on such arrays; returns as `run_steps`."""

    @abc.abstractmethod
    def start_profile(self, folder: pathlib.Path) -> None:
        """Starts the backend's profiler; the process has one. TensorBoard reads the folder."""

    @abc.abstractmethod
    def stop_profile(self) -> None:
        """Ends it, and writes what it recorded."""

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Copies one variable to the host."""

    @abc.abstractmethod
    def write(self, name: str, value) -> None:
        """Sets one variable."""


def check_backend(backend: str, purpose: str) -> None:
    """Raises a `UserError` unless Keras runs on the backend that an engine is for."""
    if keras.backend.backend() != backend:
        raise UserError(
            f"Keras on its {backend} backend for {purpose}",
            f"KERAS_BACKEND={keras.backend.backend()}",
            f"Set KERAS_BACKEND={backend} before Keras is imported",
        )


def _sums(steps: int, numbers: Sequence[float]) -> StepSums:
    loss, tokens, correct, rate, bad_step, largest = numbers
    return StepSums(steps, loss, tokens, correct, rate, int(bad_step), largest)
