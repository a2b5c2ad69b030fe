"""Steps that optimizer and schedule of a plan's stages will have counted, before any is trained.

A stage that takes over optimizer state, or continues a schedule, needs sources that are at one step
of both (`trainers.pretraining.starts`).
"""

from collections.abc import Mapping, Sequence

from trainers.errors import UserError
from trainers.plans.graph import Stage
from trainers.plans.settings import OPTIMIZER_STATES, StageSettings

Counts = tuple[int, int]


def check_counts(stages: Sequence[Stage], settings: Mapping[str, StageSettings]) -> None:
    """Checks that sources whose counts go on in a stage will be at the same steps.

    Args:
        stages: all stages, sources first.
        settings: stage name to its settings.

    Raises:
        UserError: they will not. Sources that may end early are not checked.
    """
    starts: dict[str, Counts | None] = {}
    for stage in stages:
        starts[stage.name] = _start(stage, settings, starts)


def _start(
    stage: Stage, settings: Mapping[str, StageSettings], starts: Mapping[str, Counts | None]
) -> Counts | None:
    """The counts with which a stage starts, settings' offset aside; None if they are not known."""
    reached = {}
    for name in stage.sources:
        if starts[name] is None:
            return None
        source = settings[name]
        taken = stage.source_steps.get(name, source.steps)
        steps, at = starts[name]
        reached[name] = steps + taken, source.learning_rate_offset + at + taken
    if stage.until:
        return None
    if stage.is_continued:
        ((steps, at),) = reached.values()
        return steps, at - settings[stage.name].learning_rate_offset
    own = settings[stage.name]
    takes_state = OPTIMIZER_STATES[own.optimizer_state or "fresh"] is not None
    continues = own.schedule == "continue"
    if not (takes_state or continues):
        return 0, 0
    check_equal(stage, reached)
    ((steps, at), *_) = reached.values()
    return steps if takes_state else 0, at if continues else 0


def check_equal(stage: Stage, counts: Mapping[str, Counts]) -> None:
    """Raises a `UserError` unless all sources are at the same steps of optimizer and schedule."""
    if len(set(counts.values())) > 1:
        raise UserError(
            f"the sources of stage {stage.name!r} at one step of optimizer and schedule",
            ", ".join(f"{name} at {steps}, {at}" for name, (steps, at) in counts.items()),
            "Train them alike, or give --optimizer_state=fresh --schedule=restart",
        )
