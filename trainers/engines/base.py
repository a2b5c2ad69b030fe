"""What the training loop asks of an engine, and the names under which a run's state is kept."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from trainers.errors import UserError

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class StepSums:
    """Host numbers of several steps (or evaluation batches), summed.

    Attributes:
        steps: how many batches were summed.
        loss_sum: nats, cross-entropy plus z-loss, over all their targets.
        tokens: number of non-pad targets.
        correct: number of them that were predicted.
        learning_rate: the rate of the last step; nan in an evaluation.
        bad_step: index in 0..steps-1 of the first step whose loss was not finite; -1 if none.
        largest_gradient: largest finite |gradient|, after the sum over replicas and before any
            clipping, of the first bad step, else of the last one; nan where it is not known.
    """

    steps: int
    loss_sum: float
    tokens: float
    correct: float
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
    """What a training step does with its gradients, on every engine alike.

    Args:
        clip_norm: largest global norm of the gradients, after the sum over all replicas and
            microbatches; None does not clip.
        microbatches: parts that each replica's rows are cut into; their gradients are added before
            the one update, so that memory holds the activations of one part only.

    Raises:
        UserError: `clip_norm` is not a finite number above 0, or `microbatches` is below 1.
    """

    clip_norm: float | None = None
    microbatches: int = 1

    def __post_init__(self):
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise UserError(
                "Expected clip_norm to be a finite number above 0. "
                f"Received: clip_norm={self.clip_norm}. Leave it out to clip nothing."
            )
        if self.microbatches < 1:
            raise UserError(
                "Expected microbatches to be at least 1. "
                f"Received: microbatches={self.microbatches}. Use 1 for a batch in one piece."
            )

    def rows(self, rows: int) -> int:
        """Rows of a microbatch of a replica that has `rows` of them.

        Raises:
            UserError: they cannot be cut into equal parts.
        """
        if rows % self.microbatches:
            raise UserError(
                f"Expected microbatches to divide the {rows} sequences that a replica has. "
                f"Received: microbatches={self.microbatches}. Take a divisor of {rows}."
            )
        return rows // self.microbatches


@runtime_checkable
class Engine(Protocol):
    """Runs steps of one model and one optimizer on some devices.

    Order of calls: build model and optimizer inside `scope()`, `compile` them, then any of the
    others. Every number that the loop sees is global: summed over all replicas and all hosts.

    Attributes:
        num_devices: devices that the engine uses, those of other hosts included.
        is_chief: whether this process is the one that writes files.
        is_local: whether the model's weights can be used outside the engine as any other tensors:
            one device holds them, which this process drives itself.
    """

    num_devices: int
    is_chief: bool
    is_local: bool

    def agree(self, flag: bool) -> bool:
        """Returns whether `flag` is set on any host; every host has to call it, and waits."""

    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which model and optimizer must be built."""

    def compile(self, model, optimizer) -> None:
        """Takes model and optimizer, builds the slots and the step functions."""

    def warm_up(self, batches: Iterator[Batch], num_steps: int) -> None:
        """Compiles calls of up to `num_steps` steps without changing the state."""

    def train(self, batches: Iterator[Batch], num_steps: int) -> StepSums:
        """Takes `num_steps` batches from `batches`, one step each; waits for the devices once.

        The same iterator is passed again and again: an engine may read ahead of the steps.
        """

    def evaluate(self, batches: Iterable[Batch]) -> StepSums:
        """Sums loss and counts over `batches`, without dropout; the state stays as it is."""

    def state(self) -> dict[str, np.ndarray]:
        """Copies weights, slots, iterations and seeds to the host (`state_variables` names)."""

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets what `state` returned, on any engine and any number of devices.

        Values may be read slice by slice: a memory-mapped file, a lazily fused array.
        """


def check_built(model) -> None:
    """Raises a `UserError` unless a model has its variables."""
    if not model.built or not model.variables:
        raise UserError(
            f"Expected a built model. Received: model={model.name} without variables. "
            "Call it on a batch first."
        )
