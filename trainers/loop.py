"""The training loop: steps, evaluations and checkpoints on schedule, exact resume.

It knows no backend. A run's state is weights, optimizer slots, step and dropout seeds, and a batch
is a pure function of (seed, step). So a run that stopped anywhere goes on from its newest
checkpoint as if it had not.
"""

import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from trainers import checkpoints
from trainers.engines.base import Engine, StepSums
from trainers.errors import UserError
from trainers.logs import RunLog

CHECKPOINT_FOLDER = "checkpoints"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long a stage trains and what happens on the way.

    Attributes:
        steps: number of optimizer steps.
        eval_every: steps between evaluations; one at step 0 and one at the end come on top.
        eval_batches: validation batches of an evaluation.
        checkpoint_every: steps between checkpoints; one at the end comes on top.
        log_every: steps between training lines; they are means over these steps.
        steps_per_call: most steps in one call of the engine: the host waits once a call.
        keep_checkpoints: how many of the newest checkpoints stay.

    Raises:
        UserError: on a value that is not a positive integer (`steps` may be 0).
    """

    steps: int
    eval_every: int = 500
    eval_batches: int = 8
    checkpoint_every: int = 1000
    log_every: int = 100
    steps_per_call: int = 20
    keep_checkpoints: int = 2

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "steps" else 1
            if type(value) is not int or value < least:
                raise UserError(
                    f"Expected an integer of at least {least} for {field.name}. "
                    f"Received: {field.name}={value!r}. Give another number."
                )

    def boundary_after(self, step: int) -> int:
        """Returns where the call that begins at `step` ends.

        Boundaries are multiples counted from 0, so a resumed run has those of the one that ran
        through.
        """
        periods = (self.eval_every, self.checkpoint_every, self.log_every, self.steps_per_call)
        return min(self.steps, *((step // period + 1) * period for period in periods))


class Costs(Protocol):
    """What one step costs, counted from the model (see trainers/flops.py)."""

    tokens_per_step: int
    flops_per_step: float


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a stage reached and cost, all its resumes together.

    Attributes:
        steps: steps taken.
        device_seconds: wall time of the training calls; compilation, evaluation and checkpoints
            are not in it.
        curve: validation points {step, tokens, flops, device_seconds, loss, loss_per_token,
            accuracy}, from step 0 to the end.
        checkpoint: folder of the last checkpoint.
    """

    steps: int
    device_seconds: float
    curve: list[dict]
    checkpoint: pathlib.Path


def train(
    *,
    engine: Engine,
    model,
    optimizer,
    batches,
    validation,
    config: TrainConfig,
    folder: str | os.PathLike,
    costs: Costs,
    settings: Mapping | None = None,
    monitors: Mapping[str, Callable[[object], float]] | None = None,
    name: str = "",
    progress: bool = True,
) -> TrainResult:
    """Trains a model, or goes on with it where its folder says that it was.

    Args:
        engine: runs the steps; model and optimizer were built inside its scope.
        model: maps a batch's inputs to logits.
        optimizer: Keras optimizer.
        batches: training batches: `.from_step(start)` iterates from any step.
        validation: validation batches: `.batch(i)` for i in range(eval_batches).
        config: lengths and periods.
        folder: the stage's folder: metrics.jsonl, tensorboard/ and checkpoints/ go there.
        costs: tokens and FLOPs of a step.
        settings: configuration that is written into each checkpoint (model, data, …).
        monitors: name → function of the model, called and logged at every evaluation.
        name: what the progress bar is called; by default the folder's name.
        progress: show the bar.

    Returns:
        `TrainResult`; a folder whose run is finished returns at once with what it reached.

    Raises:
        UserError: a loss that is not finite; checkpoints that are all damaged, or of another
            model.
    """
    run = _Run(
        engine=engine,
        config=config,
        folder=pathlib.Path(folder),
        costs=costs,
        settings=dict(settings or {}),
        measures=lambda: {key: float(f(model)) for key, f in (monitors or {}).items()},
        # Pure functions of their index: made once, used in every evaluation.
        validation=[validation.batch(index) for index in range(config.eval_batches)],
    )
    engine.compile(model, optimizer)
    run.restore()
    with RunLog(folder, run.step, config.steps, name or run.folder.name, progress) as log:
        run.to_end(batches, log)
    checkpoint = run.folder / CHECKPOINT_FOLDER / checkpoints.step_folder(run.step)
    return TrainResult(run.step, run.device_seconds, run.curve, checkpoint)


@dataclasses.dataclass
class _Run:
    """A run at some step: what a checkpoint's manifest keeps beside the engine's state."""

    engine: Engine
    config: TrainConfig
    folder: pathlib.Path
    costs: Costs
    settings: dict
    measures: Callable[[], dict[str, float]]
    validation: list
    step: int = 0
    device_seconds: float = 0.0
    curve: list[dict] = dataclasses.field(default_factory=list)
    saved: int = -1

    def restore(self) -> None:
        """Takes up the newest good checkpoint, if there is one."""
        found = checkpoints.latest(self.folder / CHECKPOINT_FOLDER)
        if found is None:
            return
        if found.step > self.config.steps:
            raise UserError(
                f"Expected a run of at least the {found.step} steps that were taken. Received: "
                f"steps={self.config.steps}. Give more steps, or another folder."
            )
        self.engine.load_state(found.state())
        progress = found.config["progress"]
        self.step = self.saved = found.step
        self.device_seconds = progress["device_seconds"]
        self.curve = progress["curve"]

    def to_end(self, batches, log: RunLog) -> None:
        """Trains from the current step to the last one."""
        if not self.curve:
            self.evaluate(log)
        if self.step < self.config.steps:
            feed = batches.from_step(self.step)
            self.engine.warm_up(feed, self.config.steps_per_call)
            since = _Window()
            while self.step < self.config.steps:
                since = self.advance(feed, since, log)
        if self.saved != self.step:
            self.save()

    def advance(self, feed, window: "_Window", log: RunLog) -> "_Window":
        """One call of the engine, and whatever is due at the step where it ends."""
        count = self.config.boundary_after(self.step) - self.step
        began = time.perf_counter()
        sums = self.engine.train(feed, count)
        seconds = time.perf_counter() - began
        self.check_finite(sums)
        self.step += count
        self.device_seconds += seconds
        log.advance(count)
        window = window.add(sums, seconds)
        if self.due(self.config.log_every):
            log.train(self.train_line(window))
            window = _Window()
        if self.due(self.config.eval_every):
            self.evaluate(log)
        if self.due(self.config.checkpoint_every):
            self.save()
        return window

    def due(self, period: int) -> bool:
        return self.step % period == 0 or self.step == self.config.steps

    def train_line(self, window: "_Window") -> dict:
        sums = window.sums
        tokens = sums.steps * self.costs.tokens_per_step
        return {
            "step": self.step,
            "loss": sums.loss,
            "loss_per_token": sums.loss_per_token,
            "accuracy": sums.accuracy,
            "learning_rate": sums.learning_rate,
            "tokens_per_second": tokens / max(window.seconds, 1e-9),
            "device_seconds": self.device_seconds,
        }

    def evaluate(self, log: RunLog) -> None:
        """Adds a point to the curve and logs it."""
        sums = self.engine.evaluate(self.validation)
        point = {
            "step": self.step,
            "tokens": self.step * self.costs.tokens_per_step,
            "flops": self.step * self.costs.flops_per_step,
            "device_seconds": self.device_seconds,
            "loss": sums.loss,
            "loss_per_token": sums.loss_per_token,
            "accuracy": sums.accuracy,
        }
        self.curve.append(point)
        log.evaluation(point | self.measures())

    def save(self) -> None:
        """Writes a checkpoint of this step and removes those that are too old."""
        folder = self.folder / CHECKPOINT_FOLDER
        config = {
            "settings": self.settings,
            "train": dataclasses.asdict(self.config),
            "progress": {"device_seconds": self.device_seconds, "curve": self.curve},
        }
        checkpoints.save(folder, self.step, self.engine.state(), config)
        checkpoints.keep_newest(folder, self.config.keep_checkpoints, self.step)
        self.saved = self.step

    def check_finite(self, sums: StepSums) -> None:
        if sums.bad_step < 0 and math.isfinite(sums.loss_sum):
            return
        step = self.step + max(sums.bad_step, 0) + 1
        last = f"the checkpoint of step {self.saved}" if self.saved >= 0 else "no checkpoint"
        raise UserError(
            f"Expected a finite loss. Received: loss={sums.loss_sum} at step={step}, "
            f"learning_rate={sums.learning_rate:.3g}. Lower the learning rate and start again; "
            f"the folder has {last}."
        )


@dataclasses.dataclass(frozen=True)
class _Window:
    """Sums since the last training line."""

    sums: StepSums = StepSums(0, 0.0, 0.0, 0.0)
    seconds: float = 0.0

    def add(self, sums: StepSums, seconds: float) -> "_Window":
        return _Window(self.sums + sums, self.seconds + seconds)
