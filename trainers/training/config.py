"""Arguments and result of the training loop."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trainers.checkpoints import Keep
from trainers.engines.base import Engine
from trainers.programs import check_options, option
from trainers.training.hparams import HParams
from trainers.training.profile import ProfileWindow

ON_NAN = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Tokens and FLOPs per step, counted from the model (`trainers.engines.flops`)."""

    tokens_per_step: int
    flops_per_step: float


@dataclasses.dataclass(frozen=True)
class StageJob:
    """A model to train, with its engine and data."""

    engine: Engine  # model and optimizer were built inside its scope
    model: object  # maps a batch's inputs to logits
    optimizer: object  # of Keras
    batches: object  # for training: `.batch(i)`, and `.from_step(start)` iterates from any step
    validation: object  # `.batch(i)` for i in range(eval_batches)
    costs: StepCosts
    # Further ones to evaluate on, by name.
    validations: Mapping[str, object] = dataclasses.field(default_factory=dict)
    # What is written into each checkpoint (model, data, …).
    settings: Mapping = dataclasses.field(default_factory=dict)
    # State that a new run begins with, as `Engine.load_state` takes it; None for what model and
    # optimizer have, which is that of all variables that a partial one does not name.
    initial: Mapping[str, np.ndarray] | None = None
    initial_is_partial: bool = False


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of a training, and the periods in steps of what happens on the way; checks itself."""

    steps: int = option(at_least=0)
    eval_every: int = option(500, at_least=1)  # one at step 0 and one at the end come on top
    eval_batches: int = option(8, at_least=1)  # validation batches of an evaluation
    checkpoint_every: int = option(1000, at_least=1)  # one at the end comes on top
    # Minutes between checkpoints, besides those by the step.
    checkpoint_minutes: float | None = option(None, above=0)
    log_every: int = option(100, at_least=1)  # training lines are means over these steps
    # Most steps in one call of the engine: the host waits once per call, and a signal or a loss
    # that is not finite is seen after one.
    steps_per_call: int = option(20, at_least=1)
    keep: Keep = Keep()
    goal: float | None = None  # accuracy, in per cent, at which an evaluation ends the run early
    # At a loss that is not finite "stop" ends the run; "skip" goes back to the newest checkpoint
    # and leaves out the batch.
    on_nan: str = option("stop", choices=ON_NAN)

    def __post_init__(self):
        check_options(self)

    def boundary_after(self, step: int, *more: int) -> int:
        """Returns where the call that begins at `step` ends, with periods besides its own.

        Boundaries are multiples counted from 0, so a resumed run has those of the one that ran
        through.
        """
        periods = (self.eval_every, self.checkpoint_every, self.log_every, self.steps_per_call)
        return min(self.steps, *((step // period + 1) * period for period in (*periods, *more)))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A measurement of a model on the way, with a period of its own: it may cost much.

    Its lines in metrics.jsonl hold the numbers, their cost in `seconds` of wall time, and that of
    all so far, `total_seconds`. Like evaluations it is no part of `device_seconds`.

    """

    kind: str  # of the lines; in TensorBoard the group of the numbers
    every: int  # steps between two; one at step 0 and one at the end come on top
    measure: Callable[[object], Mapping[str, float]]  # of the model, as it is then


@dataclasses.dataclass(frozen=True)
class Watch:
    """Everything that is shown and measured on the way; none of it changes the training."""

    # Functions of the model by name, called and logged at every evaluation.
    monitors: Mapping[str, Callable[[object], float]] = dataclasses.field(default_factory=dict)
    measurements: Sequence[Measurement] = ()  # on one device
    label: str = ""  # of the progress bar; by default the folder's name
    progress: bool = True  # show the bar
    hparams: HParams | None = None  # settings for TensorBoard's HPARAMS page
    profile: ProfileWindow | None = None  # steps whose profile goes to TensorBoard's folder
    started: Callable[[], None] | None = None  # called once the engine has model and optimizer
    # Called after each call of the engine with the step that is reached, and the steps and seconds
    # of the call: returns the seconds that the whole command has left, and a line to print, or "".
    outlook: Callable[[int, int, float], tuple[float, str]] | None = None


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Results and costs of a stage, all its resumes together."""

    steps: int  # that were taken
    # Wall time of the training calls, times the number of devices; compilation, evaluation and
    # checkpoints are not in it, nor steps that a resume took again.
    device_seconds: float
    # Validation points {step, tokens, flops, device_seconds, loss, loss_per_token, accuracy}, from
    # step 0 to the end; with "validations" the last three of the job's further ones, by name.
    curve: list[dict]
    checkpoint: pathlib.Path  # folder of the last one
    skipped_batches: tuple[int, ...] = ()  # indices of those that `on_nan="skip"` left out
