"""The paired bootstrap: cases known by hand, and against SciPy's."""

import math

import numpy as np
import pytest
import scipy.stats

from glue import metrics
from glue.bootstrap import paired_bootstrap


def test_equal_predictions_do_not_differ():
    targets = np.array([0, 1, 1, 0, 1])
    difference = paired_bootstrap(metrics.accuracy, targets, 1 - targets, 1 - targets, samples=99)
    assert (difference.difference, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
    assert not difference.beyond_noise


def test_always_right_against_always_wrong():
    targets = np.array([0, 1, 1, 0])
    difference = paired_bootstrap(metrics.accuracy, targets, targets, 1 - targets, samples=99)
    assert (difference.difference, difference.low, difference.high) == (100, 100, 100)
    assert difference.p == 2 / 100 and difference.beyond_noise


def test_the_sign_is_first_less_second():
    targets = np.array([0, 1, 1, 0])
    difference = paired_bootstrap(metrics.accuracy, targets, 1 - targets, targets, samples=99)
    assert (difference.difference, difference.high, difference.p) == (-100, -100, 2 / 100)


def test_the_interval_is_the_one_that_can_be_computed():
    """n = 400; the first alone is right on 40, the second alone on 20. The difference is 5 %, and a
    drawn one is a mean of 400 values of ±1 or 0 with variance 60/400 − 0.05² = 0.1475: standard
    deviation 1.92 %, so 5 ± 3.76 and p = 0.009 in the normal limit."""
    targets = np.ones(400, int)
    first, second = np.ones(400, int), np.ones(400, int)
    second[:40] = 0
    first[40:60] = 0
    difference = paired_bootstrap(metrics.accuracy, targets, first, second, samples=20_000)
    assert difference.difference == pytest.approx(5)
    assert difference.low == pytest.approx(5 - 3.76, abs=0.26)
    assert difference.high == pytest.approx(5 + 3.76, abs=0.26)
    assert difference.p == pytest.approx(0.009, abs=0.005)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_intervals_are_scipys(name):
    metric, rng = metrics.METRICS[name], np.random.default_rng(3)
    if name in ("pearson", "spearman"):
        targets = rng.integers(0, 26, 120) / 5
        first = np.clip(targets + rng.integers(-4, 5, 120) / 5, 0, 5)
        second = np.clip(targets + rng.integers(-9, 10, 120) / 5, 0, 5)
    else:
        targets = rng.integers(0, 2, 120)
        first = np.where(rng.random(120) < 0.8, targets, rng.integers(-1, 2, 120))
        second = np.where(rng.random(120) < 0.6, targets, rng.integers(-1, 2, 120))
    difference = paired_bootstrap(metric, targets, first, second, samples=4000)

    def statistic(t, a, b):
        return metric(t, a) - metric(t, b)

    theirs = scipy.stats.bootstrap(
        (targets, first, second), statistic, paired=True, vectorized=False, n_resamples=400,
        method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert difference.difference == pytest.approx(statistic(targets, first, second))
    assert difference.low == pytest.approx(theirs.confidence_interval.low, abs=0.12 * width)
    assert difference.high == pytest.approx(theirs.confidence_interval.high, abs=0.12 * width)


def test_any_metric_with_weights_serves_and_sees_whole_resamples():
    sizes = []

    def worst(targets, predictions, weights):
        sizes.extend(weights.sum(axis=1))
        return -np.max(np.abs(targets - predictions) * (weights > 0), axis=1)

    targets = np.arange(6.0)
    difference = paired_bootstrap(worst, targets, targets, targets + 2, samples=50)
    assert (difference.difference, difference.low, difference.high) == (2, 2, 2)
    assert set(sizes) == {6}


def test_several_runs_of_a_model_are_averaged():
    targets = np.array([1, 1, 0, 0])
    runs = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    difference = paired_bootstrap(metrics.accuracy, targets, runs, targets, samples=99)
    # In each draw one run has all right and the other none.
    assert (difference.difference, difference.low, difference.high) == (-50, -50, -50)


def test_the_seed_decides():
    rng = np.random.default_rng(7)
    targets, first, second = rng.integers(0, 2, (3, 200))

    def interval(seed):
        return paired_bootstrap(metrics.f1, targets, first, second, samples=200, seed=seed)

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_equal_models_are_beyond_noise_about_as_often_as_said():
    """Two models of equal skill, 200 times: p below 0.05 about 10 times."""
    rng = np.random.default_rng(11)
    beyond_noise = 0
    for _ in range(200):
        targets = rng.integers(0, 2, 150)
        first, second = (np.where(rng.random(150) < 0.7, targets, 1 - targets) for _ in range(2))
        beyond_noise += paired_bootstrap(
            metrics.accuracy, targets, first, second, samples=400
        ).beyond_noise
    assert 2 <= beyond_noise <= 22


def test_undefined_scores():
    constant, varied = np.ones(5), np.arange(5.0)
    difference = paired_bootstrap(metrics.pearson, varied, varied, constant, samples=20)
    assert (
        math.isnan(difference.difference)
        and math.isnan(difference.p)
        and not difference.beyond_noise
    )
    # Of three examples one draw in nine is of one example only, where nothing is defined.
    difference = paired_bootstrap(metrics.pearson, varied[:3], varied[:3], varied[:3], samples=900)
    assert difference.difference == 0 and difference.p == 1


@pytest.mark.parametrize(
    ("targets", "first", "message"),
    [
        ([], [], "one target per example"),
        ([1, 0], [1], r"predictions of 2 examples. Received: shape=\(1, 1\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(targets, first, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(metrics.accuracy, targets, first, targets)
