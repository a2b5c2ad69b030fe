"""The screening of the plan `gains` in the folder of a run: the losses that its arms reached."""

import statistics
from collections.abc import Mapping

from trainers.files import read_json
from trainers.plans import gains
from trainers.plans.graph import repeat_name
from trainers.runs.state import RunState
from trainers.runs.workdir import RUN_FILE


def finalists(state: RunState) -> tuple[str, ...]:
    """Returns the arms of the finals; () where too few have been screened."""
    path = state.path / RUN_FILE
    plans = read_json(path).get("experiments", {}) if path.exists() else {}
    return gains.finalists(_losses(state, plans.get(gains.NAME, {}).get("points", {})))


def _losses(state: RunState, points: Mapping[str, Mapping]) -> dict[str, float]:
    """Arm to its loss at the smallest budget: that of its best candidate, the mean over seeds."""
    candidates = {name: point for name, point in points.items() if "arm" in point}
    smallest = min((point["budget"] for point in candidates.values()), default=None)
    losses = {}
    for name, point in candidates.items():
        if point["budget"] == smallest:
            reached = _over_seeds(state, name)
            losses.setdefault(point["arm"], []).extend([reached] if reached else [])
    # Only the best candidate has all seeds; the lowest loss may be another one's by chance.
    return {
        arm: statistics.fmean(max(reached, key=lambda of: (len(of), -of[0])))
        for arm, reached in losses.items()
        if reached
    }


def _over_seeds(state: RunState, name: str) -> list[float]:
    """Losses of a stage in its repeats, as far as they are finished."""
    losses = []
    while (record := state.record(repeat_name(name, len(losses) + 1))) is not None:
        losses.append(record["loss_per_token"])
    return losses
