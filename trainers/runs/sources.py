"""Sources of a stage: whether they are trained, and their checkpoints."""

import pathlib

from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.runs.state import RunState


def check_sources(stage: Stage, state: RunState) -> None:
    """Checks that everything that the stage starts from, or ends at, is trained."""
    for source in (*stage.sources, *([stage.until] if stage.until else ())):
        if state.record(source) is None:
            raise UserError(
                f"what stage {stage.name!r} needs to be finished",
                f"stage={source!r}, which is not",
                "Run first, with the same other flags: "
                f"python -m trainers.pretrain --stage={source} --workdir={state.path}",
            )


def check_kept(stage: Stage, state: RunState) -> None:
    """Checks that sources that are finished still have the checkpoints that are to be fused."""
    if state.record(stage.name) is not None:
        return
    for source, step in stage.source_steps.items():
        if (
            state.record(source) is not None
            and not checkpoint_folder(stage, source, state).is_dir()
        ):
            raise UserError(
                f"the checkpoint at step {step} of {source!r}, which {stage.name!r} is fused from",
                f"{source!r}, which finished without keeping it",
                "Take another --workdir; the command that trains it needs this plan too, or "
                "--keep_every",
            )


def checkpoint_folder(stage: Stage, source: str, state: RunState) -> pathlib.Path:
    """Returns the folder of a source's checkpoint, or that of the source, whose newest counts."""
    folder = state.stage_dir(source)
    step = stage.source_steps.get(source)
    if step is None:
        return folder
    return folder / CHECKPOINT_FOLDER / checkpoints.step_folder(step)
