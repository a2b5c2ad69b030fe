"""What a stage comes from: are its sources there, which checkpoint counts, is it worth training."""

import pathlib

from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.runs.workdir import Workdir


def check_sources(stage: Stage, workdir: Workdir) -> None:
    """Checks that everything that the stage starts from, or ends at, is trained.

    Args:
        stage: node of a plan.
        workdir: the run's folder.

    Raises:
        UserError: it is not; the message has the command that trains it.
    """
    for source in (*stage.sources, *([stage.until] if stage.until else ())):
        if workdir.record(source) is None:
            raise UserError(
                f"Expected what stage {stage.name!r} needs to be finished. Received: "
                f"stage={source!r}, which is not. Run first, with the same other flags: "
                f"python -m trainers.pretrain --stage={source} --workdir={workdir.path}"
            )


def is_promoted(stage: Stage, workdir: Workdir) -> bool:
    """Whether the stage is to be trained, as far as its rivals are finished.

    Args:
        stage: node of a plan, whose rivals that are to be trained at all are trained.
        workdir: the run's folder.

    Returns:
        Whether its source is among the `keep` rivals whose loss is lowest; True without rivals.
        Of equal ones the one that is named first counts as better.
    """
    if not stage.rivals:
        return True
    records = {name: workdir.record(name) for name in stage.rivals}
    found = [name for name, record in records.items() if record is not None]
    best = sorted(found, key=lambda name: records[name]["loss_per_token"])[: stage.keep]
    return set(stage.sources) <= set(best)


def check_kept(stage: Stage, workdir: Workdir) -> None:
    """Checks that sources that are finished still have the checkpoints that are to be fused.

    Args:
        stage: node of a plan.
        workdir: the run's folder.

    Raises:
        UserError: one has not; the message says what would have kept it.
    """
    if workdir.record(stage.name) is not None:
        return
    for source, step in stage.source_steps.items():
        if (
            workdir.record(source) is not None
            and not checkpoint_folder(stage, source, workdir).is_dir()
        ):
            raise UserError(
                f"Expected the checkpoint at step {step} of {source!r}, which {stage.name!r} is "
                f"fused from. Received: {source!r} finished without keeping it. Take another "
                "--workdir; the command that trains it needs this plan too, or --keep_every."
            )


def checkpoint_folder(stage: Stage, source: str, workdir: Workdir) -> pathlib.Path:
    """Where the checkpoint of a source lies that a stage is fused from.

    Args:
        stage: node of a plan.
        source: one of its sources.
        workdir: the run's folder.

    Returns:
        The checkpoint's folder, or that of the source, whose newest one counts.
    """
    folder = workdir.stage_dir(source)
    step = stage.source_steps.get(source)
    if step is None:
        return folder
    return folder / CHECKPOINT_FOLDER / checkpoints.step_folder(step)
