"""Differences between models, and which of them are more than the noise of the validation sets."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from glue import bootstrap, metrics, tasks
from glue.bootstrap import Difference
from glue.reports import averages
from glue.reports.averages import Key
from glue.results import FineTuning
from trainers.errors import UserError
from trainers.reports import tables
from trainers.reports.tables import Cell, Column, Table


def pairs(keys: Iterable[Key]) -> tuple[tuple[Key, Key], ...]:
    """The pairs that the paper compares.

    - Every other model with the baseline after as many steps.
    - A fused model without a further step with the small model after most steps.

    Example:
        >>> pairs([("baseline", 0), ("self_fusion", 0), ("small", 500), ("small", 1000)])
        ((('self_fusion', 0), ('baseline', 0)), (('self_fusion', 0), ('small', 1000)))
    """
    keys = sorted(set(keys), key=averages.key_order)
    small = [key for key in keys if key[0] == "small"]
    compared = []
    for model, steps in keys:
        if model in ("baseline", "small"):
            continue
        others = [("baseline", steps)] if ("baseline", steps) in keys else []
        others += small[-1:] if steps == 0 else []
        compared += [((model, steps), other) for other in others]
    return tuple(compared)


def compare(
    first: Sequence[FineTuning], second: Sequence[FineTuning], task: str, **options: int
) -> dict[str, Difference]:
    """Compares two models on a task by a paired bootstrap, repeats averaged.

    Returns:
        The difference, first less second, of each score by key; empty where one of the models has
        no predictions for the task.
    """
    differences = {}
    for score in tasks.find(task).scores:
        decoded = [_predictions(runs, task, score.split) for runs in (first, second)]
        if all(decoded):
            targets = _shared_targets(decoded, task)
            models = [np.stack([predicted for _, predicted in runs]) for runs in decoded]
            differences[score.key] = bootstrap.paired_bootstrap(
                metrics.METRICS[score.metric], targets, *models, **options
            )
    return differences


def differences_table(runs: Iterable[FineTuning], **options: int) -> Table | None:
    """The differences of the pairs that the paper compares, one row per pair; None without one."""
    grouped = averages.by_model(runs)
    compared = pairs(grouped)
    if not compared:
        return None
    fine_tuned = {name for repeats in grouped.values() for run in repeats for name in run.results}
    names = [name for name in tasks.MIXTURE if name in fine_tuned]
    rows = []
    for first, second in compared:
        differences = {}
        for name in names:
            differences |= compare(grouped[first], grouped[second], name, **options)
        cells = (_cell(differences.get(key)) for key in tasks.scores(names))
        rows.append((averages.model_label(first), averages.model_label(second), *cells))
    return Table(
        "differences",
        "Differences, and which are more than noise.",
        (Column("first", "Model"), Column("second", "less"), *averages.score_columns(names)),
        tuple(rows),
        "Difference of the scores, its 95 % interval and p by a paired bootstrap over the "
        "validation examples; repeats are averaged. A star: p below 0.05. Of twenty comparisons of "
        "equal models one has a star by chance. The noise between seeds is in it only as far as "
        "the repeats show it.",
    )


def _predictions(
    runs: Sequence[FineTuning], task: str, split: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decoded targets and predictions of each repeat that has them."""
    decode = functools.partial(metrics.decode, tasks.find(task))
    texts = [run.results[task].predictions(split) for run in runs if task in run.results]
    return [tuple(map(decode, pair)) for pair in texts if pair]


def _shared_targets(decoded: Sequence[Sequence[tuple]], task: str) -> np.ndarray:
    first, *others = (targets for runs in decoded for targets, _ in runs)
    for other in others:
        if not np.array_equal(first, other):
            raise UserError(
                f"runs that were evaluated on the same examples of {task}",
                f"{len(first)} and {len(other)} examples, or other targets",
                "Evaluate them on the same data",
            )
    return first


def _cell(difference: Difference | None) -> Cell:
    if difference is None:
        return tables.missing()
    value, low, high, p = dataclasses.astuple(difference)
    if not np.isfinite(value):
        return tables.missing("undefined")
    shown = "< 0.001" if p < 0.001 else f"{p:.3f}"
    star = " *" if difference.beyond_noise else ""
    text = f"{value:+.2f} [{low:+.2f}, {high:+.2f}], p {shown}{star}"
    return Cell(text.replace("-", "−"), value)
