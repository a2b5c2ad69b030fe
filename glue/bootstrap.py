"""Paired bootstrap: is the difference between two models more than noise?

Both models have predicted the same examples. Examples are drawn with replacement, the same for both
models, and the difference of their scores is computed again; the spread of those differences is the
noise that this validation set allows. It knows nothing of the noise between seeds, unless several
runs of each model are given.

    interval  the percentiles of the drawn differences
    p         twice the share of the drawn differences on the other side of zero, each side with
              one added, so that it is never 0: below 0.05 about where the interval leaves out zero

Example:
    >>> targets = metrics.decode(task, ["entailment", "not_entailment"] * 100)
    >>> paired_bootstrap(metrics.accuracy, targets, first, second).difference
    1.5
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import scipy.stats

from glue import metrics

SAMPLES = 10_000
_CHUNK = 1 << 21


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two models' scores.

    Args:
        difference: score of the first less score of the second.
        low, high: ends of the interval of `confidence`.
        p: two-sided.
        samples: how many draws gave a number.
        examples: how many examples were drawn from.
    """

    difference: float
    low: float
    high: float
    p: float
    confidence: float
    samples: int
    examples: int

    @property
    def beyond_noise(self) -> bool:
        """Whether p is below what the confidence leaves."""
        return self.p < 1 - self.confidence


def paired_bootstrap(
    metric: Callable[[np.ndarray, np.ndarray], float],
    targets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    samples: int = SAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
    rowwise: bool = False,
) -> Difference:
    """Compares the predictions of two models for the same examples.

    Args:
        metric: function from targets and predictions, arrays of n, to a score. Those of
            `glue.metrics` are computed for many draws at once.
        targets: array of n.
        first, second: predictions, arrays of n, or of (runs, n): then a model's score is the mean
            over its runs, and the runs need not be as many.
        samples: how many draws.
        confidence: of the interval, between 0 and 1.
        seed: of the draws.
        rowwise: whether `metric` takes arrays of (draws, n) and returns an array of (draws).

    Returns:
        A `Difference`; its numbers are NaN where the score itself is.

    Raises:
        ValueError: arrays of other lengths, no examples, or a confidence that is none.
    """
    targets, first, second = _checked(targets, first, second, samples, confidence)
    many = metric if rowwise else ROWWISE.get(metric) or _one_by_one(metric)

    def difference(rows):
        scores = [
            np.mean([many(targets[rows], run[rows]) for run in model], axis=0)
            for model in (first, second)
        ]
        return scores[0] - scores[1]

    observed = float(difference(np.arange(targets.size)[None])[0])
    drawn = np.concatenate([difference(rows) for rows in _draws(targets.size, samples, seed)])
    # A correlation is undefined where a draw has the same prediction throughout.
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(observed) or not drawn.size:
        return Difference(*[math.nan] * 4, confidence, drawn.size, targets.size)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Summation errors of 1e-14 on one side of zero are no evidence for that side.
    below, above = np.sum(drawn <= 1e-9), np.sum(drawn >= -1e-9)
    p = min(1.0, 2 * (1 + min(below, above)) / (1 + drawn.size))
    return Difference(
        observed, float(low), float(high), float(p), confidence, drawn.size, targets.size
    )


def _checked(targets, first, second, samples, confidence):
    targets = np.asarray(targets)
    models = [np.atleast_2d(np.asarray(model)) for model in (first, second)]
    if targets.ndim != 1 or not targets.size:
        raise ValueError(f"Expected one target an example. Received: shape={targets.shape}.")
    for model in models:
        if model.ndim != 2 or model.shape[1] != targets.size or not model.shape[0]:
            raise ValueError(
                f"Expected predictions of {targets.size} examples. Received: shape={model.shape}."
            )
    if samples < 1 or not 0 < confidence < 1:
        raise ValueError(
            "Expected draws, and a confidence between 0 and 1. "
            f"Received: samples={samples}, confidence={confidence}."
        )
    return targets, *models


def _draws(size: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields arrays of (draws, size) of indices, `samples` draws in all."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // size)
    for start in range(0, samples, step):
        yield rng.integers(0, size, (min(step, samples - start), size), dtype=np.int32)


def _one_by_one(metric):
    def many(targets, predictions):
        return np.array([metric(t, p) for t, p in zip(targets, predictions, strict=True)])

    return many


def _accuracy(targets, predictions):
    return 100 * np.mean(targets == predictions, axis=-1)


def _f1(targets, predictions):
    predictions = metrics.valid_or_wrong(targets, predictions)
    hits = np.sum((targets == 1) & (predictions == 1), axis=-1)
    named = np.sum(targets == 1, axis=-1) + np.sum(predictions == 1, axis=-1)
    return 100 * _divide(2 * hits, named)


def _matthews(targets, predictions):
    # The coefficient of several classes, as class -1 stands for what is no label.
    classes = np.union1d(targets, predictions)
    true = np.stack([np.sum(targets == c, axis=-1) for c in classes]).astype(np.float64)
    said = np.stack([np.sum(predictions == c, axis=-1) for c in classes]).astype(np.float64)
    size = targets.shape[-1]
    right = np.sum(targets == predictions, axis=-1)
    spread = (size**2 - np.sum(said**2, axis=0)) * (size**2 - np.sum(true**2, axis=0))
    return 100 * _divide(right * size - np.sum(true * said, axis=0), np.sqrt(spread))


def _pearson(targets, predictions):
    x = targets - targets.mean(axis=-1, keepdims=True)
    y = predictions - predictions.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.sum(x * x, axis=-1) * np.sum(y * y, axis=-1))
    constant = (np.ptp(targets, axis=-1) == 0) | (np.ptp(predictions, axis=-1) == 0)
    return 100 * np.where(constant, np.nan, _divide(np.sum(x * y, axis=-1), spread))


def _spearman(targets, predictions):
    return _pearson(
        scipy.stats.rankdata(targets, axis=-1), scipy.stats.rankdata(predictions, axis=-1)
    )


def _divide(top, bottom):
    """top / bottom, and 0 where bottom is."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom != 0)


ROWWISE = {
    metrics.accuracy: _accuracy,
    metrics.f1: _f1,
    metrics.matthews: _matthews,
    metrics.pearson: _pearson,
    metrics.spearman: _spearman,
}
"""The metrics of `glue.metrics`, for arrays of (draws, n)."""
