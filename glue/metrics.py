"""Scores of predicted texts, as T5 computes them, and the paper's average.

A prediction is a text that the model has generated. It counts if it is a label to the letter;
anything else is no class and so wrong:

    accuracy, Matthews   class -1, which no example has
    F1                   the class that the example does not have
    Pearson, Spearman    -1.0

All scores are times 100. A metric takes weights, the number of times that each example counts: the
bootstrap computes one metric for thousands of draws at once, one row of weights per draw. Without
weights, or with one row, the scores are those of scikit-learn and SciPy, which the tests compare
them with.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from glue import tasks
from glue.tasks import MIXTURE, Task
from trainers.errors import UserError, check_choice

NO_CLASS = -1
NO_NUMBER = -1.0


def accuracy(targets: np.ndarray, predictions: np.ndarray, weights=None) -> np.ndarray:
    """Percentage of the predictions that are right.

    Args:
        targets, predictions: arrays of n, both decoded by `decode`.
        weights: array of n or of (draws, n), how often each example counts; None counts each once.

    Returns:
        A number, or an array of one per draw.
    """
    weights = _weights(targets, weights)
    return 100 * (weights @ _ones(targets == predictions)) / weights.sum(axis=-1)


def f1(targets: np.ndarray, predictions: np.ndarray, weights=None) -> np.ndarray:
    """F1 of class 1, times 100; 0 where neither side has class 1. Arguments as for `accuracy`."""
    weights = _weights(targets, weights)
    is_class = (predictions == 0) | (predictions == 1)
    predictions = np.where(is_class, predictions, 1 - targets)
    hits = weights @ _ones((targets == 1) & (predictions == 1))
    both = weights @ (_ones(targets == 1) + _ones(predictions == 1))
    return 100 * _divide(2 * hits, both)


def matthews(targets: np.ndarray, predictions: np.ndarray, weights=None) -> np.ndarray:
    """Matthews' correlation coefficient, times 100; 0 where one side is all of one class.

    It is the coefficient of several classes, as class -1 stands for what is no label. Arguments as
    for `accuracy`.
    """
    weights = _weights(targets, weights)
    classes = np.union1d(targets, predictions)
    true = weights @ _ones(targets[:, None] == classes)
    said = weights @ _ones(predictions[:, None] == classes)
    right, size = weights @ _ones(targets == predictions), weights.sum(axis=-1)
    spread = (size**2 - np.sum(said**2, axis=-1)) * (size**2 - np.sum(true**2, axis=-1))
    return 100 * _divide(right * size - np.sum(true * said, axis=-1), np.sqrt(spread))


def pearson(targets: np.ndarray, predictions: np.ndarray, weights=None) -> np.ndarray:
    """Pearson's correlation, times 100; NaN where one side is constant; otherwise as `accuracy`."""
    weights = _weights(targets, weights)
    x, x_spread = _centred(targets, weights)
    y, y_spread = _centred(predictions, weights)
    return 100 * np.sum(weights * x * y, axis=-1) / np.sqrt(x_spread * y_spread)


def spearman(targets: np.ndarray, predictions: np.ndarray, weights=None) -> np.ndarray:
    """Spearman's rank correlation, times 100; otherwise as `pearson`."""
    weights = _weights(targets, weights)
    return pearson(_ranks(targets, weights), _ranks(predictions, weights), weights)


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
"""Functions from targets, predictions and weights to a number or one number per draw."""


def _weights(targets: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(np.shape(targets)) if weights is None else np.asarray(weights, np.float64)


def _ones(mask: np.ndarray) -> np.ndarray:
    """1.0 where a mask is true: products of floats go to BLAS."""
    return mask.astype(np.float64)


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, and 0 where bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom != 0)[()]


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks from 1 in each draw; equal values share the mean of theirs."""
    distinct, places = np.unique(values, return_inverse=True)
    counts = weights @ _ones(places[:, None] == np.arange(distinct.size))
    return (np.cumsum(counts, axis=-1) - counts + (counts + 1) / 2)[..., places]


def _centred(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values less their mean, and the sum of their squares: NaN where all values are the same."""
    size = weights.sum(axis=-1, keepdims=True)
    centred = values - np.sum(weights * values, axis=-1, keepdims=True) / size
    spread = np.sum(weights * centred**2, axis=-1)
    # Rounding leaves 1e-32 of the squares themselves, one value that differs 1e-8 or more.
    constant = spread <= 1e-14 * np.sum(weights * values**2, axis=-1)
    return centred, np.where(constant, np.nan, spread)


def decode(task: Task, texts: Sequence[str]) -> np.ndarray:
    """Turns texts into what the metrics take.

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
    """Scores the predictions for a split.

    Args:
        split: that the examples are of; MNLI's two give a score each.

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
    task = tasks.find(task)
    scores = [score for score in task.scores if score.split == split]
    check_choice(task.evaluated, split=split)
    if not targets or len(targets) != len(predictions):
        raise UserError(
            f"one prediction for each example of {task.name}",
            f"predictions={len(predictions)}, targets={len(targets)}",
            "Evaluate the task again",
        )
    true = decode(task, targets)
    hidden = np.flatnonzero(true == NO_CLASS)
    if hidden.size:
        raise UserError(
            f"targets of {task.name} that are labels",
            f"target={targets[hidden[0]]!r} of example {hidden[0]}",
            "Score a split that has labels; a test set has none",
        )
    predicted = decode(task, predictions)
    return {score.key: float(METRICS[score.metric](true, predicted)) for score in scores}


def groups(scores: Mapping[str, float]) -> tuple[str, ...]:
    """The groups of the average that have all their scores, by name of task.

    WNLI and the synthetic tasks are in no group; a key that no task has is a `UserError`.
    """
    every = tasks.scores(tasks.TASKS)
    for key in scores:
        check_choice(every, score=key)
    return tuple(name for name in MIXTURE if all(key in scores for key in tasks.scores([name])))


def average(scores: Mapping[str, float]) -> float:
    """The paper's average: the mean over eight groups, a group being the mean of a task's scores.

    Args:
        scores: `cola`, `sst2`, `mrpc_f1`, `mrpc_accuracy`, `stsb_pearson`, `stsb_spearman`,
            `qqp_accuracy`, `qqp_f1`, `mnli_m`, `mnli_mm`, `qnli`, `rte`, times 100. Of fewer tasks
            it is the mean of the groups that are complete; `groups` names them. Other tasks' scores
            do not count.

    Returns:
        The mean, not truncated; NaN if a score is.

    Raises:
        UserError: no group is complete, or a key that no task has.

    Example:
        >>> average({"cola": 10.0, "mrpc_f1": 80.0, "mrpc_accuracy": 70.0})
        42.5
    """
    complete = groups(scores)
    if not complete:
        raise UserError(
            f"all scores of at least one task of {', '.join(MIXTURE)}",
            f"scores={', '.join(scores) or 'none'}",
            "Fine-tune one of these tasks",
        )
    means = [np.mean([scores[key] for key in tasks.scores([name])]) for name in complete]
    return float(np.mean(means))
