"""The training loop: steps, evaluations and checkpoints on schedule, exact resume.

It knows no backend. A run's state is weights, optimizer slots, step and dropout seeds, and a batch
is a pure function of (seed, step). So a run that stopped anywhere resumes from its newest
checkpoint as if it had not.

On several hosts each runs this loop and takes the same decisions: all numbers that it sees are
global, and what only one host knows (a signal) they agree on after each call of the engine. Every
host reads checkpoints, and writes its part of them where the engine says so; one, the chief, writes
everything else.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import time
import uuid
from collections.abc import Iterator

import numpy as np

from trainers import checkpoints, stopping
from trainers.checkpoints import CHECKPOINT_FOLDER, Writer
from trainers.engines import hosts
from trainers.engines.base import Batch, StepSums
from trainers.engines.state import state_variables
from trainers.errors import NotFinite, UserError
from trainers.runs.workdir import TENSORBOARD_FOLDER
from trainers.training.config import StageJob, TrainConfig, TrainResult, Watch
from trainers.training.logs import RunLog
from trainers.training.profile import Profiler
from trainers.training.progress import Progress, Window

# Limit of batches skipped since the newest checkpoint: more, and it is not the data.
MAX_SKIPPED = 10


def train(
    job: StageJob, config: TrainConfig, folder: str | os.PathLike, watch: Watch | None = None
) -> TrainResult:
    """Trains a model, or resumes where its folder says that it was.

    Args:
        job: what is trained, and on what.
        config: lengths and periods.
        folder: the stage's folder: metrics.jsonl, tensorboard/ and checkpoints/ go there.
        watch: what is shown and measured on the way.

    Returns:
        `TrainResult`; a folder whose run is finished returns at once with what it reached.

    Raises:
        NotFinite: a loss that is not finite, or weights.
        Stopped: a signal came, inside `stopping.handled`; the state is saved.
        UserError: checkpoints that are all damaged, or of another model.
    """
    watch = watch or Watch()
    job.engine.compile(job.model, job.optimizer)
    if watch.started and job.engine.is_chief:
        watch.started()
    with stopping.postponed() as stop, _Loop(job, config, folder, watch) as loop:
        loop.to_end(stop)
    at = loop.at
    checkpoint = loop.saves / checkpoints.step_folder(at.step)
    return TrainResult(at.step, at.device_seconds, at.curve, checkpoint, tuple(at.skipped))


class _Loop(contextlib.AbstractContextManager):
    """A run at some step; as a context manager it closes its files."""

    def __init__(self, job: StageJob, config: TrainConfig, folder: str | os.PathLike, watch: Watch):
        self.job, self.config, self.watch = job, config, watch
        self.engine = job.engine
        self.folder = pathlib.Path(folder)
        self.saves = self.folder / CHECKPOINT_FOLDER
        # Pure functions of their index: made once, used in every evaluation.
        sets = {"": job.validation, **job.validations}
        self.validations = {
            name: [batches.batch(index) for index in range(config.eval_batches)]
            for name, batches in sets.items()
        }
        self.writer = self.make_writer()
        self.at = Progress()
        self.profiler = Profiler(watch.profile, self.engine, self.folder / TENSORBOARD_FOLDER)
        self.saved, self.saved_at = -1, time.perf_counter()
        self.log: RunLog | None = None
        self.feed: Iterator[Batch] | None = None
        # Batches skipped since the newest checkpoint, and where the loss was not finite last.
        self.tried: set[int] = set()
        self.bad = -1

    def __exit__(self, *error) -> None:
        try:
            self.profiler.close()
            if self.log:
                self.log.close()
        finally:
            if self.writer:
                self.writer.__exit__(*error)

    def make_writer(self) -> Writer | None:
        """The writer of what this host saves; None where that is nothing."""
        if self.engine.saves_shards:
            part = checkpoints.Part(self.engine.host, self.engine.num_hosts)
            return Writer(self.saves, self.config.keep, part)
        return Writer(self.saves, self.config.keep) if self.engine.is_chief else None

    def meet(self) -> None:
        """Has all hosts see the same checkpoints, and know this start by one text."""
        newest = max(checkpoints.steps(self.saves), default=None)
        hosts.check_same(
            self.engine,
            {f"newest step of {self.folder.name}": newest},
            "all hosts to see the same checkpoints",
            "Give all hosts one --workdir, on a file system that they share",
        )
        if self.engine.saves_shards:
            token = self.engine.gather(uuid.uuid4().hex[:12])[0]
            self.writer.part = dataclasses.replace(self.writer.part, token=token)

    def restore(self) -> None:
        """Loads the newest good checkpoint, if there is one, and cuts the logs back to it."""
        variables = state_variables(self.job.model, self.job.optimizer)
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        self.meet()
        checkpoint = checkpoints.latest(self.saves, shapes, self.engine)
        if checkpoint is not None:
            if checkpoint.step > self.config.steps:
                raise UserError(
                    f"a run of at least the {checkpoint.step} steps that were taken",
                    f"steps={self.config.steps}",
                    "Give more steps, or another folder",
                )
            self.engine.load_state(checkpoint.state())
            self.at = Progress.from_dict(checkpoint.step, checkpoint.config.get("progress"))
            self.saved = checkpoint.step
        elif self.job.initial is not None:
            self.engine.load_state(self.job.initial, self.job.initial_is_partial)
        # Nobody writes or removes before all hosts have read.
        self.engine.agree(False)
        if self.engine.is_chief and checkpoint is not None:
            self.writer.tidy(checkpoint.step)
        if self.log:
            self.log.close()
        step = None if checkpoint is None else checkpoint.step
        self.log = RunLog(
            self.folder,
            step,
            self.config.steps,
            self.watch.label or self.folder.name,
            self.watch.progress,
            self.engine.is_chief,
            self.watch.hparams,
        )

    def to_end(self, stop: stopping.Stop) -> None:
        """Trains from the newest checkpoint to the last step."""
        self.restore()
        if not self.at.curve:
            self.evaluate()
            self.measure()
        if self.saved < 0 and (self.config.on_nan == "skip" or self.config.keep.every):
            self.save()  # somewhere to go back to; the multiples of any period begin with 0
        if not self.ended:
            self.feed = self.at.feed(self.job.batches)
            self.engine.warm_up(self.job.batches.batch(0), self.config.steps_per_call)
        while True:
            try:
                self.check_signals(stop)
                if self.ended:
                    break
                self.advance()
            except NotFinite as error:
                self.go_back(error)
        if self.saved != self.at.step:
            self.save()

    @property
    def ended(self) -> bool:
        """True if the last step is taken, or the goal was reached at an evaluation."""
        goal = self.config.goal
        reached = goal is not None and any(point["accuracy"] >= goal for point in self.at.curve)
        return reached or self.at.step == self.config.steps

    def check_signals(self, stop: stopping.Stop) -> None:
        """Saves and raises `Stopped` if a signal has come to any host."""
        if self.engine.agree(stop.requested):
            if self.saved != self.at.step:
                self.save()
            self.wait_for_writers()
            raise stop.stopped_at(self.at.step)

    def wait_for_writers(self) -> None:
        """Waits until what was handed over is on the disk, on every host.

        No host reads before the chief has written, and none ends, which would end the others.
        """
        if self.writer:
            self.writer.wait()
        self.engine.agree(False)

    def advance(self) -> None:
        """One call of the engine, and whatever is due at the step where it ends."""
        at, config = self.at, self.config
        periods = [measurement.every for measurement in self.watch.measurements]
        end = config.boundary_after(at.step, *periods)
        count = self.profiler.end_of_call(at.step, end) - at.step
        self.profiler.before(at.step)
        began = time.perf_counter()
        sums = self.engine.train(self.feed, count)
        seconds = time.perf_counter() - began
        if sums.bad_step >= 0 or not math.isfinite(sums.loss_sum):
            raise self.not_finite(f"loss={sums.loss_sum}", at.step + max(sums.bad_step, 0), sums)
        at.step += count
        at.device_seconds += seconds * self.engine.num_devices
        at.window = at.window.add(sums, seconds)
        self.log.say(self.profiler.after(at.step))
        outlook = self.watch.outlook
        left, news = outlook(at.step, count, seconds) if outlook else (None, "")
        self.log.say(news)
        self.log.advance(count, left)
        if self.due(config.log_every):
            self.log.write("train", self.train_line())
            at.window = Window()
        if self.due(config.eval_every):
            self.evaluate(sums)
        self.measure()
        if self.due(config.checkpoint_every) or self.is_late():
            self.save(sums)

    def is_late(self) -> bool:
        """True where the newest checkpoint is older than `checkpoint_minutes`, on any host."""
        minutes = self.config.checkpoint_minutes
        return minutes is not None and self.engine.agree(
            time.perf_counter() - self.saved_at >= 60 * minutes
        )

    def due(self, period: int) -> bool:
        return self.at.step % period == 0 or self.at.step == self.config.steps

    def train_line(self) -> dict:
        sums = self.at.window.sums
        tokens = sums.steps * self.job.costs.tokens_per_step
        return {
            "step": self.at.step,
            **sums.means(),
            "learning_rate": sums.learning_rate,
            "tokens_per_second": tokens / max(self.at.window.seconds, 1e-9),
            "device_seconds": self.at.device_seconds,
        }

    def evaluate(self, trained: StepSums | None = None) -> None:
        """Adds a point to the curve and logs it."""
        means = {}
        for name, batches in self.validations.items():
            sums = self.engine.evaluate(batches)
            if not math.isfinite(sums.loss_sum):
                cause = f"validation loss={sums.loss_sum}"
                raise self.not_finite(cause, self.at.step - 1, trained)
            means[name] = sums.means()
        point = {
            "step": self.at.step,
            "tokens": self.at.step * self.job.costs.tokens_per_step,
            "flops": self.at.step * self.job.costs.flops_per_step,
            "device_seconds": self.at.device_seconds,
            **means.pop(""),
        }
        if means:
            point["validations"] = means
        self.at.curve.append(point)
        model = self.job.model
        monitored = {name: float(of(model)) for name, of in self.watch.monitors.items()}
        self.log.write("eval", point | monitored)

    def measure(self) -> None:
        """Takes and logs the measurements that are due; a run that meets its goal ends with one."""
        for measurement in self.watch.measurements:
            if not (self.due(measurement.every) or self.ended):
                continue
            began = time.perf_counter()
            numbers = measurement.measure(self.job.model)
            seconds = time.perf_counter() - began
            total = self.at.measured.get(measurement.kind, 0.0) + seconds
            self.at.measured[measurement.kind] = total
            clock = {"seconds": seconds, "total_seconds": total}
            self.log.write(measurement.kind, {"step": self.at.step, **numbers, **clock})

    def save(self, trained: StepSums | None = None) -> None:
        """Hands a checkpoint of this step to the writer, which removes those that are too old."""
        if self.writer:
            self.writer.wait()  # or the host would hold two copies
        state = self.engine.shards()
        # The last update may have made weights infinite, which no loss has shown yet.
        if self.engine.agree(not all(_is_finite(value) for value in state.values())):
            raise self.not_finite("weights that are not finite", self.at.step - 1, trained)
        if self.writer:
            config = {
                "settings": dict(self.job.settings),
                "train": dataclasses.asdict(self.config),
                "progress": self.at.to_dict(),
            }
            last = self.at.curve[-1]
            score = last["loss_per_token"] if last["step"] == self.at.step else None
            # What the checkpoint counts on is on the disk before it.
            self.log.sync()
            self.writer.save(self.at.step, state, config, score)
        self.saved, self.saved_at = self.at.step, time.perf_counter()
        self.tried, self.bad = set(), -1

    def not_finite(self, cause: str, step: int, sums: StepSums | None) -> NotFinite:
        """The error for a step, counted from 0; its message counts from 1, as all logs do."""
        sums = sums or StepSums()
        last = f"the checkpoint of step {self.saved}" if self.saved >= 0 else "no checkpoint"
        skipped = f" {len(self.tried)} batches were skipped since." if self.tried else ""
        return NotFinite(
            "a finite loss",
            f"{cause} at step={step + 1}, learning_rate={sums.learning_rate:.3g}, "
            f"largest_gradient={sums.largest_gradient:.3g}",
            "Lower the learning rate and start again, or skip such batches with --on_nan=skip; "
            f"the folder has {last}.{skipped}",
            step=step,
        )

    def go_back(self, error: NotFinite) -> None:
        """Restores the newest checkpoint and leaves out the batch, or raises the error."""
        if self.engine.saves_shards:
            self.wait_for_writers()
        if self.config.on_nan != "skip" or error.step < self.saved:
            raise error
        indices = {self.at.batch_index(error.step)}
        if error.step == self.bad and error.step > self.saved:
            # Another batch at the same step: the update before it may have done it.
            indices.add(self.at.batch_index(error.step - 1))
        if len(self.tried | indices) > MAX_SKIPPED:
            raise error
        self.tried |= indices
        self.bad = error.step
        self.profiler.close()
        self.wait_for_writers()
        self.restore()
        self.at.skip(self.tried)
        self.feed = self.at.feed(self.job.batches)
        self.log.say(
            f"{self.folder.name}: not finite at step {error.step + 1}; went back to step "
            f"{self.at.step}, skipping batches {', '.join(map(str, sorted(self.tried)))}."
        )


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind in "iub" or bool(np.isfinite(value).all())
