"""What answering every example alike is worth: the score below which a model has learned nothing.

The answer is the label that most validation examples have, so its accuracy is their share, and its
Matthews correlation 0. A task with numbers for labels has none: the correlation is not defined.
"""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence

from glue import metrics, tasks
from glue.results import Run

NAME = "always the commonest label"


def scores(runs: Iterable[Run]) -> dict[str, float]:
    """The scores of the commonest label of each task, for the examples that runs have predicted.

    Args:
        runs: fine-tunings.

    Returns:
        By key, of the tasks of which a run has kept its predictions.

    Example:
        >>> scores(runs)["cola"]
        0.0
    """
    found: dict[str, float] = {}
    for run in runs:
        for name in run.results:
            keys = {score.key for score in tasks.TASKS[name].scores}
            if keys - found.keys():
                found |= _scores(run, name)
    return found


def average(runs: Iterable[Run], groups: Sequence[str]) -> float | None:
    """The average of these scores over some groups; None where one of them is not known."""
    values = scores(runs)
    if not groups or any(name not in metrics.groups(values) for name in groups):
        return None
    return metrics.average({key: values[key] for key in tasks.scores(groups)})


def _scores(run: Run, name: str) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for split in tasks.TASKS[name].evaluated:
        kept = run.results[name].predictions(split)
        if kept is None:
            return {}
        targets, _ = kept
        ((answer, _),) = collections.Counter(targets).most_common(1)
        found |= metrics.score(name, split, targets, [answer] * len(targets))
    return {key: value for key, value in found.items() if math.isfinite(value)}
