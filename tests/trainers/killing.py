"""Runs that are killed after a checkpoint, and started again."""

import contextlib

from trainers import checkpoints, pretrain
from trainers.runs.state import RunState


class Killed(Exception):
    """A process that ends."""


@contextlib.contextmanager
def killed_after_saving(patch, step=None):
    """Runs end as soon as a checkpoint is on the disk: that of a step, or any."""
    save = checkpoints.Writer.save

    def save_and_end(writer, saved_step, *arguments):
        save(writer, saved_step, *arguments)
        writer.wait()
        if step in (None, saved_step):
            raise Killed

    with patch.context() as patches:
        patches.setattr(checkpoints.Writer, "save", save_and_end)
        yield


def train_through_kills(patch, config, stage):
    """Starts a run, killed at each first checkpoint, until a stage ends; returns how many times."""
    starts = 0
    with killed_after_saving(patch):
        while RunState(config.workdir).record(stage) is None:
            with contextlib.suppress(Killed):
                pretrain.pretrain(config)
            starts += 1
    return starts
