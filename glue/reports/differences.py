"""Which differences between models are more than the noise of their validation sets."""

from collections.abc import Iterable, Sequence

import numpy as np

from glue import bootstrap, metrics, tasks
from glue.bootstrap import Difference
from glue.reports import averages
from glue.results import Result, Run
from trainers.errors import UserError
from trainers.reports import numbers, tables
from trainers.reports.tables import Cell, Column, Table

Key = tuple[str, int]
"""A model and its steps of pretraining."""


def pairs(keys: Iterable[Key]) -> tuple[tuple[Key, Key], ...]:
    """The pairs that the paper compares.

    Every other model with the baseline after as many steps; and a fused model without a further
    step with the small model after most steps.

    Example:
        >>> pairs([("baseline", 0), ("self_fusion", 0), ("small", 500), ("small", 1000)])
        ((('self_fusion', 0), ('baseline', 0)), (('self_fusion', 0), ('small', 1000)))
    """
    keys = sorted(set(keys), key=lambda key: (*averages.model_order(key[0]), key[1]))
    small = [key for key in keys if key[0] == "small"]
    found = []
    for key in keys:
        model, steps = key
        if model in ("baseline", "small"):
            continue
        found += [(key, other) for other in [("baseline", steps)] if other in keys]
        found += [(key, small[-1])] if small and steps == 0 else []
    return tuple(found)


def compare(
    first: Sequence[Run], second: Sequence[Run], task: str, **options: int
) -> dict[str, Difference]:
    """Compares two models on a task by a paired bootstrap, repeats averaged.

    Args:
        first, second: the repeats of either model.
        task: name of the task.
        **options: `samples` and `seed` of `glue.bootstrap.paired_bootstrap`.

    Returns:
        The difference, first less second, of each score by key; empty where one of the models has
        no predictions for the task.

    Raises:
        UserError: the runs have predicted other examples.
    """
    found = {}
    for score in tasks.find(task).scores:
        loaded = [_predictions(runs, task, score.split) for runs in (first, second)]
        if all(loaded):
            _same_examples([targets for model in loaded for targets, _ in model], task)
            models = [np.stack([predicted for _, predicted in model]) for model in loaded]
            found[score.key] = bootstrap.paired_bootstrap(
                metrics.METRICS[score.metric], loaded[0][0][0], *models, **options
            )
    return found


def differences_table(runs: Iterable[Run], **options: int) -> Table | None:
    """The differences of the pairs that the paper compares, a row a pair; None without a pair.

    Args:
        runs: fine-tunings.
        **options: as for `compare`.
    """
    grouped = averages.by_model(runs)
    found = pairs(grouped)
    if not found:
        return None
    names = [
        name for name in tasks.MIXTURE if any(name in r.results for r in sum(grouped.values(), ()))
    ]
    columns = (
        Column("first", "Model", align="left"),
        Column("second", "less", align="left"),
        *(
            Column(score.key, score.title, tasks.TASKS[name].title)
            for name in names
            for score in tasks.TASKS[name].scores
        ),
    )
    rows = []
    for one, other in found:
        compared = {}
        for name in names:
            compared |= compare(grouped[one], grouped[other], name, **options)
        rows.append((_label(one), _label(other), *_cells(compared, names)))
    return Table(
        "differences",
        "Differences, and whether they are more than noise.",
        columns,
        tuple(rows),
        "Difference of the scores, its 95 % interval and p by a paired bootstrap over the "
        "validation examples; repeats are averaged. A star: p below 0.05. Of twenty comparisons of "
        "equal models one has a star by chance. The noise between seeds is in it only as far as "
        "the repeats show it.",
    )


def _predictions(runs: Sequence[Run], task: str, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decoded targets and predictions of each repeat that has them."""
    found = []
    for result in (run.results.get(task) for run in runs):
        texts = result and result.predictions(split)
        if texts:
            found.append(_decoded(result, *texts))
    return found


def _decoded(result: Result, targets: list[str], predicted: list[str]):
    task = tasks.find(result.task)
    return metrics.decode(task, targets), metrics.decode(task, predicted)


def _same_examples(targets: Sequence[np.ndarray], task: str) -> None:
    for other in targets[1:]:
        if not np.array_equal(other, targets[0]):
            raise UserError(
                f"Expected runs that were evaluated on the same examples of {task}. Received: "
                f"{len(targets[0])} and {len(other)} examples, or other targets. Evaluate them on "
                "the same data."
            )


def _label(key: Key) -> Cell:
    return tables.label(f"{key[0]}, {numbers.count(key[1])} steps")


def _cells(compared: dict[str, Difference], names: Sequence[str]) -> tuple[Cell, ...]:
    return tuple(_cell(compared.get(key)) for key in tasks.scores(names))


def _cell(found: Difference | None) -> Cell:
    if found is None:
        return tables.missing()
    if not np.isfinite(found.difference):
        return tables.missing("undefined")
    star = " *" if found.beyond_noise else ""
    text = f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}], p {_p(found.p)}{star}"
    return Cell(text.replace("-", "−"), found.difference)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
