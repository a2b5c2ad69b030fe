"""Start of a stage: the step of its data, optimizer and schedule, and the state it takes over.

The optimizer counts its steps from `iterations`, which is not 0 where it has the state of one that
ran before. The schedule reads that count; where it restarts, or continues that of a source whose
count is another one, its offset makes up for the difference.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_fusion.schedules import InverseSquareRoot, LinearDecay, LinearWarmup
from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER, models
from trainers.plans.counts import check_equal
from trainers.plans.graph import Stage
from trainers.plans.settings import OPTIMIZER_STATES, StageSettings
from trainers.runs.sources import checkpoint_folder
from trainers.runs.state import RunState
from trainers.training.optimizers import OPTIMIZERS
from trainers.training.progress import Progress


@dataclasses.dataclass(frozen=True)
class Start:
    """Start of a stage."""

    first_batch: int = 0  # index of its first batch
    iterations: int = 0  # the optimizer's step count
    # Steps of the schedule that count as taken, besides the settings' offset.
    schedule_step: int = 0
    # Other state of model and optimizer, if any; a partial one names some of the variables.
    state: Mapping[str, np.ndarray] | None = None
    is_partial: bool = False

    def to_dict(self) -> dict:
        """The counts, as stage.json holds them."""
        return {name: getattr(self, name) for name in _COUNTS}


_COUNTS = ("first_batch", "iterations", "schedule_step")


def start_of(stage: Stage, settings: StageSettings, workdir: RunState) -> Start:
    """The start of a stage; one that has checkpoints began as its stage.json says.

    Raises:
        UserError: sources whose optimizers or schedules are at different steps.
    """
    if checkpoints.steps(workdir.stage_dir(stage.name) / CHECKPOINT_FOLDER):
        return _recorded(stage.name, workdir)
    if stage.is_continued:
        return _continued(stage, workdir)
    blocks = OPTIMIZER_STATES[settings.optimizer_state or "fresh"]
    continues = settings.schedule == "continue"
    if not blocks and not continues:
        return Start()
    sources = {
        name: models.find_checkpoint(checkpoint_folder(stage, name, workdir))
        for name in stage.sources
    }
    counts = {name: _counts(name, checkpoint, workdir) for name, checkpoint in sources.items()}
    check_equal(stage, counts)
    (iterations, schedule_step), *_ = counts.values()
    start = Start(schedule_step=schedule_step if continues else 0)
    if not blocks:
        return start
    limit = getattr(OPTIMIZERS[settings.optimizer](0.1), "min_dim_size_to_factor", 128)
    parents = [sources[name] for name in stage.parents]
    state = models.grown_slots(parents, settings.growing, blocks, limit)
    state[models.ITERATIONS] = np.asarray(iterations)
    return dataclasses.replace(start, iterations=iterations, state=state, is_partial=True)


def learning_rate(settings: StageSettings, start: Start):
    """The learning-rate schedule of a stage, of its optimizer's step count."""
    schedule = InverseSquareRoot(
        warmup_steps=settings.warmup_steps,
        offset=settings.learning_rate_offset + start.schedule_step - start.iterations,
        scale=settings.learning_rate_scale,
    )
    if settings.rewarmup_steps:
        schedule = LinearWarmup(schedule, settings.rewarmup_steps, start.iterations)
    if settings.decay_steps:
        end = start.iterations + settings.steps
        schedule = LinearDecay(schedule, settings.decay_steps, end)
    return schedule


def _continued(stage: Stage, workdir: RunState) -> Start:
    """All of its source's last checkpoint, on the source's own schedule."""
    (source,) = stage.sources
    checkpoint = models.find_checkpoint(workdir.stage_dir(source))
    reached = Progress.from_dict(checkpoint.step, checkpoint.config["progress"])
    before = _recorded(source, workdir)
    first = before.first_batch + reached.batch_index(checkpoint.step)
    return dataclasses.replace(before, first_batch=first, state=checkpoint.state())


def _counts(name: str, checkpoint: checkpoints.Checkpoint, workdir: RunState) -> tuple[int, int]:
    """Steps of the optimizer and of the schedule that a source's checkpoint has reached."""
    before, iterations = _recorded(name, workdir), models.optimizer_steps(checkpoint)
    offset = workdir.record(name)["settings"]["learning_rate_offset"]
    return iterations, offset + before.schedule_step + iterations - before.iterations


def _recorded(name: str, workdir: RunState) -> Start:
    """The counts with which a stage began."""
    stage = workdir.stage(name)
    return Start(**{count: stage[count] for count in _COUNTS})
