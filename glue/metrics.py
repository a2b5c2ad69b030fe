"""Scores of predicted texts, as T5 computes them, and the paper's average.

A prediction is a text that the model has generated. It counts if it is a label to the letter;
anything else is no class and so wrong:

    accuracy, Matthews   class -1, which no example has
    F1                   the class that the example has not
    Pearson, Spearman    -1.0

All scores are times 100. scikit-learn and SciPy do the computing.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
import sklearn.metrics

from glue import tasks
from glue.tasks import MIXTURE, Task
from trainers.errors import UserError

NO_CLASS = -1
NO_NUMBER = -1.0


def accuracy(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Per cent of the predictions that are right."""
    return 100 * float(sklearn.metrics.accuracy_score(targets, predictions))


def f1(targets: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of class 1, times 100; 0 where neither has class 1."""
    predictions = valid_or_wrong(targets, predictions)
    return 100 * float(sklearn.metrics.f1_score(targets, predictions, zero_division=0.0))


def matthews(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Matthews' correlation coefficient, times 100; 0 where all predictions are the same."""
    with warnings.catch_warnings():
        # It warns where there is only one class; the answer, 0, is what is wanted.
        warnings.filterwarnings("ignore", message="A single label was found")
        return 100 * float(sklearn.metrics.matthews_corrcoef(targets, predictions))


def pearson(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's correlation, times 100; NaN where all targets or predictions are the same."""
    return _correlation(scipy.stats.pearsonr, targets, predictions)


def spearman(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Spearman's rank correlation, times 100; NaN where all targets or predictions are the same."""
    return _correlation(scipy.stats.spearmanr, targets, predictions)


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
"""Functions from targets and predictions, both decoded by `decode`, to a number."""


def valid_or_wrong(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Predictions of two classes, with what is no class turned into the wrong one."""
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    return np.where((predictions == 0) | (predictions == 1), predictions, 1 - targets)


def _correlation(function, targets, predictions):
    with warnings.catch_warnings():
        # Both warn where one side is constant or nearly so; NaN, or a number that is uncertain.
        warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
        warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
        return 100 * float(function(targets, predictions)[0])


def decode(task: Task, texts: Sequence[str]) -> np.ndarray:
    """Turns texts into what the metrics take.

    Args:
        task: whose labels they should be.
        texts: generated texts, or targets.

    Returns:
        Classes, -1 for what is no label to the letter; for a task whose label is a number, numbers,
        -1.0 for what Python's `float` does not read as a finite one.
    """
    if not task.labels:
        return np.array([_number(text) for text in texts], np.float64)
    classes = {label: index for index, label in enumerate(task.labels)}
    return np.array([classes.get(text, NO_CLASS) for text in texts], np.int64)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return NO_NUMBER
    # T5 keeps "nan" and "inf"; one such text would make the score of all the others NaN.
    return value if math.isfinite(value) else NO_NUMBER


def score(
    task: str, split: str, targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
    """Computes the scores of a task that a split gives.

    Args:
        task: name of the task.
        split: that the examples are of; MNLI's two give a score each.
        targets: target texts, as `glue.data.load_examples` gives them.
        predictions: generated texts, in the same order.

    Returns:
        Scores by key, as "mrpc_f1" and "mrpc_accuracy", times 100. A correlation with predictions
        that are all the same is NaN.

    Raises:
        UserError: an unknown task, a split that gives no score, no examples, not as many
            predictions as targets, or a target that is no label.

    Example:
        >>> score("rte", "validation", ["entailment", "not_entailment"], ["entailment", "yes"])
        {'rte': 50.0}
    """
    found = tasks.find(task)
    wanted = [item for item in found.scores if item.split == split]
    if not wanted:
        raise UserError(
            f"Expected a split that {task} is judged by: {', '.join(found.evaluated)}. "
            f"Received: split={split!r}."
        )
    if not targets or len(targets) != len(predictions):
        raise UserError(
            f"Expected a prediction for each example of {task}. Received: "
            f"predictions={len(predictions)}, targets={len(targets)}."
        )
    true = decode(found, targets)
    hidden = np.flatnonzero(true == NO_CLASS)
    if hidden.size:
        raise UserError(
            f"Expected targets of {task} that are labels. Received: target="
            f"{targets[hidden[0]]!r} of example {hidden[0]}. A test set has no labels."
        )
    predicted = decode(found, predictions)
    return {item.key: METRICS[item.metric](true, predicted) for item in wanted}


def groups(scores: Mapping[str, float]) -> tuple[str, ...]:
    """The groups of the average that have all their scores, by name of task.

    Args:
        scores: by key; those of WNLI and of the synthetic tasks are in no group.

    Raises:
        UserError: a key that no task has.
    """
    known = tasks.scores(tasks.TASKS)
    for key in scores:
        if key not in known:
            raise UserError(
                f"Expected scores of {', '.join(tasks.scores(MIXTURE))}. Received: score={key!r}."
            )
    return tuple(
        name for name in MIXTURE if all(item.key in scores for item in tasks.TASKS[name].scores)
    )


def average(scores: Mapping[str, float]) -> float:
    """The paper's average: the mean over eight groups, a group being the mean of a task's scores.

    Args:
        scores: `cola`, `sst2`, `mrpc_f1`, `mrpc_accuracy`, `stsb_pearson`, `stsb_spearman`,
            `qqp_accuracy`, `qqp_f1`, `mnli_m`, `mnli_mm`, `qnli`, `rte`, times 100. Of fewer tasks
            it is the mean of the groups that are there, and `groups` says which to name beside it.
            Other tasks' scores do not count.

    Returns:
        The mean, not truncated; NaN if a score is.

    Raises:
        UserError: no group is complete, or a key that no task has.

    Example:
        >>> average({"cola": 10.0, "mrpc_f1": 80.0, "mrpc_accuracy": 70.0})
        42.5
    """
    found = groups(scores)
    if not found:
        raise UserError(
            f"Expected all scores of at least one task of {', '.join(MIXTURE)}. "
            f"Received: scores={', '.join(scores) or 'none'}."
        )
    means = [np.mean([scores[item.key] for item in tasks.TASKS[name].scores]) for name in found]
    return float(np.mean(means))
