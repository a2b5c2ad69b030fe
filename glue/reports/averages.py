"""The GLUE average of a model after some steps: over its repeats, and over the tasks that it has.

An average over other tasks is another quantity. So what an average is over stands beside it as soon
as it is not all eight groups, and repeats are averaged over the groups that all of them have.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from glue import metrics, tasks
from glue.reports import published
from glue.results import Run
from trainers.reports import tables


@dataclasses.dataclass(frozen=True)
class Average:
    """The average of the repeats of a model.

    Args:
        mean: over the repeats, not truncated; NaN where a score is not defined.
        deviation: population standard deviation over the repeats; None of a single one.
        repeats: how many.
        groups: names of the tasks whose scores are in it.
    """

    mean: float
    deviation: float | None
    repeats: int
    groups: tuple[str, ...]

    @property
    def note(self) -> str:
        """What the average is over, where that is not the paper's eight groups; else empty."""
        return groups_note(self.groups)


def groups_note(groups: Sequence[str]) -> str:
    """Names the groups of an average; empty for all eight."""
    if len(groups) == len(tasks.MIXTURE):
        return ""
    return (
        f"Average over {titles(groups)} only: {len(groups)} of the paper's {len(tasks.MIXTURE)} "
        "groups, so not to be compared with the paper's averages."
    )


def titles(groups: Sequence[str]) -> str:
    """The names of groups as the benchmark writes them."""
    return ", ".join(tasks.TASKS[name].title for name in groups)


def glue_runs(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The runs that have all scores of at least one group, in the order of the paper's models."""
    known = [run for run in runs if metrics.groups(run.scores)]
    return tuple(sorted(known, key=run_order))


def run_order(run: Run) -> tuple:
    """Sorts runs by model, steps and repeat."""
    return (*model_order(run.model), run.pretrain_steps, run.repeat)


def model_order(model: str) -> tuple[int, str]:
    """Sorts the paper's models as it does, and others after them by name."""
    names = list(published.MODELS)
    return (names.index(model) if model in names else len(names), model)


def averages(runs: Iterable[Run]) -> dict[tuple[str, int], Average]:
    """The average of each model after each number of steps.

    Args:
        runs: any; those without a complete group do not count.

    Returns:
        By model and steps. Where repeats have no group in common there is no entry.
    """
    found = {}
    for key, repeats in by_model(runs).items():
        having = [metrics.groups(run.scores) for run in repeats]
        common = tuple(name for name in having[0] if all(name in names for names in having))
        if common:
            found[key] = _average([_only(run.scores, common) for run in repeats], common)
    return found


def main_groups(found: Mapping[object, Average]) -> tuple[str, ...]:
    """The groups that most of some averages are over; where two sets tie, the larger one."""
    counts = collections.Counter(average.groups for average in found.values())
    return max(counts, key=lambda groups: (counts[groups], len(groups)), default=())


def by_model(runs: Iterable[Run]) -> dict[tuple[str, int], tuple[Run, ...]]:
    """The repeats of each model after each number of steps."""
    grouped = itertools.groupby(glue_runs(runs), key=lambda run: (run.model, run.pretrain_steps))
    return {key: tuple(repeats) for key, repeats in grouped}


def _only(scores: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {key: scores[key] for key in tasks.scores(names)}


def _average(repeats: Sequence[Mapping[str, float]], groups: tuple[str, ...]) -> Average:
    values = [metrics.average(scores) for scores in repeats]
    deviation = float(np.std(values)) if len(values) > 1 else None
    return Average(float(np.mean(values)), deviation, len(values), groups)


def truncated(value: float) -> str:
    """Two decimals, the rest cut off, as the paper prints averages: 84.987 → "84.98"."""
    # A sum of two-decimal scores may be stored 1e-14 below what it is.
    return f"{math.floor(round(value * 100, 6)) / 100:.2f}"


def score_cell(value: float | None) -> tables.Cell:
    """A cell with a task's score, rounded to two decimals as in the paper's Table 7."""
    if value is None:
        return tables.missing()
    if not math.isfinite(value):
        return _undefined()
    return tables.figure(value, lambda number: f"{number:.2f}")


def average_cell(average: Average | None) -> tables.Cell:
    """A cell with an average, mean ± deviation, that says what it is over."""
    if average is None:
        return tables.missing()
    if not math.isfinite(average.mean):
        return _undefined()
    spread = "" if average.deviation is None else f" ± {average.deviation:.2f}"
    return tables.Cell(truncated(average.mean) + spread, average.mean, note=average.note)


def _undefined() -> tables.Cell:
    return tables.Cell(
        "undefined",
        None,
        missing=True,
        note="All predictions of a task are the same, so their correlation is not defined.",
    )
