"""Backtests on curves whose law is known."""

import dataclasses
import json

import numpy as np
import pytest

from tests.trainers.advice import truth
from trainers.advice import backtests

SIZES = ("S", "M")


@pytest.fixture(scope="module")
def scores():
    curves = [
        truth.curve(law, size, until, seed=seed, name=f"w/{size}{seed}")
        for size, law, until in (("S", truth.SMALL, 9000.0), ("M", truth.BIG, 36000.0))
        for seed in range(3)
    ]
    curves += [
        truth.fused(truth.SMALL, truth.BIG, first, 20000.0, seed=seed)
        for seed, first in enumerate((2500.0, 3500.0, 4500.0, 6000.0))
    ]
    found = backtests.backtest(curves, SIZES, shares=(0.1, 0.6))
    return {(score.kind, score.share): score for score in found}


@pytest.mark.parametrize(
    ("kind", "share", "runs"), [("continued", 0.6, 6), ("unseen", 0.0, 6), ("fused", 0.0, 4)]
)
def test_forecasts_of_the_true_law_are_good(scores, kind, share, runs):
    found = scores[kind, share].to_dict()
    assert found["runs"] == runs
    assert found["refused"] == 0
    assert found["error"] < 0.02
    assert found["end_error"] < 0.03
    assert found["coverage"] >= 0.85


def test_what_cannot_be_forecast_is_counted(scores):
    found = scores["continued", 0.1]
    assert found.forecasts == ()
    assert len(found.refused) == 6
    assert found.to_dict()["error"] is None
    json.dumps([score.to_dict() for score in scores.values()], allow_nan=False)


def test_only_what_was_hidden_is_scored(scores):
    assert {len(f.losses) for f in scores["continued", 0.6].forecasts} == {10}


def test_a_law_that_changes_is_found_out():
    """A backtest that praised every forecast would be worth nothing."""
    small, big = truth.scratch_curves(12000.0, 48000.0)
    broken = np.where(big.costs > 0.6 * big.costs[-1], 1.3, 1.0)
    big = dataclasses.replace(big, losses=big.losses * broken)
    found = backtests.continued({"S": [small], "M": [big]}, 0.6)
    by_name = {forecast.name: forecast for forecast in found.forecasts}
    assert by_name[small.name].covered.mean() >= 0.8
    assert by_name[big.name].covered.mean() < 0.2
    assert np.all(by_name[big.name].errors < -0.1)


def test_runs_of_one_source_do_not_help_each_other():
    groups = dict(zip(SIZES, ([c] for c in truth.scratch_curves(9000.0, 36000.0)), strict=True))
    slow = [
        truth.fused(truth.SMALL, truth.BIG, 3000.0, 20000.0, seed=seed, speed=0.3)
        for seed in (0, 1)
    ]
    alone = backtests.fused(groups, slow[:1]).forecasts[0]
    beside = backtests.fused(groups, slow).forecasts[0]
    np.testing.assert_array_equal(alone.medians, beside.medians)
