"""Scores of a constant answer: a model that scores below them has learned nothing.

The answer is the label that most validation examples have, so its accuracy is their share, and its
Matthews correlation 0. A task with numbers for labels has none: the correlation is not defined.
"""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence

from glue import metrics, tasks
from glue.results import FineTuning, TaskResult

NAME = "always the commonest label"


def scores(runs: Iterable[FineTuning]) -> dict[str, float]:
    """The scores of the commonest label of each task whose predictions a run has kept."""
    values: dict[str, float] = {}
    for run in runs:
        for name, result in run.results.items():
            if tasks.scores([name]).keys() - values.keys():
                values |= _scores(result)
    return values


def average(runs: Iterable[FineTuning], groups: Sequence[str]) -> float | None:
    """The average of these scores over some groups; None where one of them is not known."""
    values = scores(runs)
    if not groups or not set(groups) <= set(metrics.groups(values)):
        return None
    return metrics.average({key: values[key] for key in tasks.scores(groups)})


def _scores(result: TaskResult) -> Mapping[str, float]:
    values: dict[str, float] = {}
    for split in tasks.TASKS[result.task].evaluated:
        kept = result.predictions(split)
        if kept is None:
            return {}
        targets, _ = kept
        ((answer, _),) = collections.Counter(targets).most_common(1)
        values |= metrics.score(result.task, split, targets, [answer] * len(targets))
    return {key: value for key, value in values.items() if math.isfinite(value)}
