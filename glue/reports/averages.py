"""The GLUE average of a model after some steps: over its repeats, and over the tasks that it has.

Averages over different tasks are not comparable. So a note names the groups of an average that is
not over all eight, and repeats are averaged over the groups that all of them have.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from glue import metrics, tasks
from glue.reports import published
from glue.results import FineTuning
from trainers.reports import numbers, tables

Key = tuple[str, int]
"""A model and its steps of pretraining."""


@dataclasses.dataclass(frozen=True)
class Average:
    """The average of the repeats of a model."""

    mean: float  # over the repeats, not truncated; NaN where a score is not defined
    deviation: float | None  # population standard deviation over the repeats; None of a single one
    groups: tuple[str, ...]  # names of the tasks whose scores are in it

    @property
    def note(self) -> str:
        """The groups that the average is over; empty for the paper's eight."""
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


def glue_runs(runs: Iterable[FineTuning]) -> tuple[FineTuning, ...]:
    """The runs that have all scores of at least one group, in the order of the paper's models."""
    return tuple(sorted((run for run in runs if metrics.groups(run.scores)), key=run_order))


def run_order(run: FineTuning) -> tuple:
    """Sorts runs by model, steps and repeat."""
    return (*key_order((run.model, run.pretrain_steps)), run.repeat)


def key_order(key: Key) -> tuple[int, str, int]:
    """Sorts models as the paper does, others after them by name, and each by its steps."""
    model, steps = key
    names = list(published.MODELS)
    return (names.index(model) if model in names else len(names), model, steps)


def by_model(runs: Iterable[FineTuning]) -> dict[Key, tuple[FineTuning, ...]]:
    """The repeats of each model after each number of steps."""
    grouped = itertools.groupby(glue_runs(runs), key=lambda run: (run.model, run.pretrain_steps))
    return {key: tuple(repeats) for key, repeats in grouped}


def averages(runs: Iterable[FineTuning]) -> dict[Key, Average]:
    """The average of each model after each number of steps, where its repeats share a group."""
    return {
        key: average
        for key, repeats in by_model(runs).items()
        if (average := average_of([run.scores for run in repeats]))
    }


def average_of(repeats: Sequence[Mapping[str, float]]) -> Average | None:
    """The average of the scores of some repeats over the groups that all have; None without one."""
    shared = set.intersection(*(set(metrics.groups(scores)) for scores in repeats))
    groups = tuple(name for name in tasks.MIXTURE if name in shared)
    if not groups:
        return None
    keys = tasks.scores(groups)
    values = [metrics.average({key: scores[key] for key in keys}) for scores in repeats]
    deviation = float(np.std(values)) if len(values) > 1 else None
    return Average(float(np.mean(values)), deviation, groups)


def main_groups(averages: Mapping[object, Average]) -> tuple[str, ...]:
    """The groups that most of some averages are over; where two sets tie, the larger one."""
    counts = collections.Counter(average.groups for average in averages.values())
    return max(counts, key=lambda groups: (counts[groups], len(groups)), default=())


def truncated(value: float) -> str:
    """Two decimals, the rest cut off, as the paper prints averages: 84.987 → "84.98"."""
    # A sum of two-decimal scores may be stored 1e-14 below its value.
    return f"{math.floor(round(value * 100, 6)) / 100:.2f}"


def model_label(key: Key) -> tables.Cell:
    """A cell that names a model and its steps."""
    return tables.label(f"{key[0]}, {numbers.count(key[1])} steps")


def score_columns(names: Iterable[str]) -> tuple[tables.Column, ...]:
    """One column for each score of some tasks, below the tasks' titles."""
    return tuple(
        tables.Column(score.key, score.title, tasks.TASKS[name].title)
        for name in names
        for score in tasks.TASKS[name].scores
    )


def score_cell(value: float | None) -> tables.Cell:
    """A cell with a task's score, rounded to two decimals as in the paper's Table 7."""
    if value is not None and not math.isfinite(value):
        return _undefined()
    return tables.figure(value, "{:.2f}".format, otherwise=tables.NOT_RUN)


def average_cell(average: Average | None) -> tables.Cell:
    """A cell with an average, mean ± deviation, and a note on its groups."""
    if average is None:
        return tables.missing()
    if not math.isfinite(average.mean):
        return _undefined()
    spread = "" if average.deviation is None else f" ± {average.deviation:.2f}"
    return tables.Cell(truncated(average.mean) + spread, average.mean, note=average.note)


def _undefined() -> tables.Cell:
    note = "All predictions of a task are the same, so their correlation is not defined."
    return tables.Cell("undefined", None, missing=True, note=note)
