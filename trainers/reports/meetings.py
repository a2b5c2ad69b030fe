"""Where a baseline that went on past its end is as accurate as a fused stage, as in Table 2."""

import dataclasses

from trainers.reports.comparisons import (
    BASELINE,
    CONTINUED,
    Cost,
    Crossing,
    cost_before,
    first_crossing,
    own_cost,
)
from trainers.runs.history import after


@dataclasses.dataclass(frozen=True)
class Meeting:
    """The baseline, which went on past its end, and the accuracy of a fused stage at its end.

    Args:
        accuracy: the fused stage's, in per cent.
        fused: what that has cost, all stages counted.
        crossing: where the baseline first had it, counted from its start; None if it has not.
        steps: how many steps the baseline has taken in all.
    """

    accuracy: float
    fused: Cost
    crossing: Crossing | None
    steps: int


def meetings(run, fused, baseline=BASELINE):
    """How far the baseline had to go to be as accurate as a fused stage, one a repeat.

    Args:
        run: a `RunHistory`.
        fused: name of the fused stage.
        baseline: of the baseline.

    Returns:
        A list of `Meeting`; without a stage that goes on from the baseline, empty.
    """
    found = []
    arms = {stage.repeat: stage for stage in run.repeats_of(fused)}
    for stage in run.stages.values():
        first = run.stages.get(stage.sources[0]) if stage.init == CONTINUED else None
        arm = arms.get(stage.repeat)
        if first is None or arm is None or first.base != baseline:
            continue
        before, own = cost_before(run, arm.name), own_cost(arm)
        if before is None or own is None or arm.accuracy is None or own_cost(first) is None:
            continue
        curve = (*first.curve, *(after(first, point) for point in stage.curve[1:]))
        crossing = first_crossing(curve, arm.accuracy)
        found.append(Meeting(arm.accuracy, before + own, crossing, first.steps + stage.steps))
    return found
