"""Advice for laws that are known: is the best division found, and do the intervals hold it?"""

import dataclasses
import json

import numpy as np
import pytest

from tests.trainers.advice import truth
from trainers.advice.choice import FAR, FUSE, PERHAPS, SCRATCH, advise, backtest
from trainers.advice.laws import DRAWS, Law, fit


@pytest.fixture(scope="module")
def curves():
    """Fits of three repeats of each size, and of five fused runs of speed 1."""
    fused = [
        truth.fused(truth.SMALL, truth.BIG, first, 20000.0, noise=0.002, seed=seed)
        for seed, first in enumerate((2500.0, 3000.0, 3500.0, 4500.0, 5500.0))
    ]
    return {
        size: fit(
            [
                truth.curve(law, size, until, noise=0.002, seed=seed, name=f"w/{size}{seed}")
                for seed in range(3)
            ],
            fused,
        )
        for size, law, until in (("S", truth.SMALL, 12000.0), ("M", truth.BIG, 48000.0))
    }


@pytest.fixture(scope="module")
def certain(curves):
    """The same fits with the true laws in every draw, and a fused model's speed of 1."""
    return {
        size: dataclasses.replace(curves[size], **same_draws(law), speed=np.ones(DRAWS))
        for size, law in (("S", truth.SMALL), ("M", truth.BIG))
    }


def same_draws(law):
    draws = {name: np.full(DRAWS, value) for name, value in law.items()}
    return {"law": Law(**law), "draws": Law(**draws)}


def changed(fits, size, **changes):
    return {**fits, size: dataclasses.replace(fits[size], **changes)}


@pytest.mark.parametrize("budget", [12000.0, 20000.0, 40000.0])
def test_from_curves_the_best_division_is_found(curves, budget):
    advice = advise(budget, "flops", curves)
    first, least = truth.best_fusion(truth.SMALL, truth.BIG, budget)
    assert advice["first_cost"]["low"] <= first <= advice["first_cost"]["high"]
    best = advice["best"]
    # What is recommended ends no more than a hundredth above the true optimum.
    assert truth.fused_loss(truth.SMALL, truth.BIG, *best["costs"]) <= 1.01 * least
    assert sum(best["costs"]) == pytest.approx(budget)
    assert best["sizes"] == ["S", "M"]
    assert best["steps"][0] == pytest.approx(best["costs"][0] / truth.STEP["S"], rel=0.01)
    assert advice["verdict"] == FUSE


@pytest.mark.parametrize("budget", [12000.0, 20000.0, 40000.0])
def test_the_intervals_hold_the_truth(curves, budget):
    advice = advise(budget, "flops", curves)
    alone = truth.loss(truth.BIG, budget)
    ends = truth.fused_loss(truth.SMALL, truth.BIG, *advice["best"]["costs"])
    for bounds, true in (
        (advice["scratch"], alone),
        (advice["best"]["loss"], ends),
        (advice["best"]["gain"], alone - ends),
    ):
        assert bounds["low"] <= true <= bounds["high"]


@pytest.mark.parametrize("budget", [9000.0, 20000.0, 90000.0])
def test_known_laws_give_the_optimum_to_within_the_grid(certain, budget):
    best = advise(budget, "flops", certain)["best"]
    first, least = truth.best_fusion(truth.SMALL, truth.BIG, budget)
    assert best["costs"][0] == pytest.approx(first, abs=0.02 * budget)
    assert best["loss"]["median"] == pytest.approx(least, rel=1e-3)
    assert best["gain"]["low"] == pytest.approx(best["gain"]["high"])


def test_a_larger_budget_is_never_worse(curves):
    advices = [advise(budget, "flops", curves) for budget in np.geomspace(2000.0, 1e7, 30)]
    for losses in (
        [advice["scratch"]["median"] for advice in advices],
        [advice["best"]["loss"]["median"] for advice in advices if advice["best"]],
    ):
        assert len(losses) > 25
        assert np.all(np.diff(losses) <= 1e-9)


def test_where_fusing_harms_it_is_not_advised(certain):
    advice = advise(300000.0, "flops", changed(certain, "M", speed=np.full(DRAWS, 1e-3)))
    assert advice["verdict"] == SCRATCH
    assert advice["best"]["chance"] < 0.5
    assert advice["best"]["gain"]["median"] < 0


def test_a_budget_that_the_small_model_spends_on_its_plateau(curves):
    advice = advise(1000.0, "flops", curves)
    assert advice["verdict"] == SCRATCH
    assert advice["best"] is None


def test_from_some_budget_on_fusing_gains_nothing(certain):
    assert advise(20000.0, "flops", certain)["verdict"] == FUSE
    assert advise(2e6, "flops", certain)["verdict"] == SCRATCH


def test_far_from_what_was_seen_nothing_is_sure(certain):
    near = advise(20000.0, "flops", certain)
    unseen = {
        size: dataclasses.replace(fits, observed=fits.observed / 20)
        for size, fits in certain.items()
    }
    far = advise(20000.0, "flops", unseen)
    assert (near["verdict"], far["verdict"]) == (FUSE, PERHAPS)
    assert max(near["beyond"].values()) <= FAR < max(far["beyond"].values())
    assert near["best"] == far["best"]


def test_the_best_within_what_was_seen_is_named(certain):
    advice = advise(40000.0, "flops", changed(certain, "S", observed=2000.0))
    assert advice["within"]["costs"][0] <= 2000.0 < advice["best"]["costs"][0]


def test_of_two_smaller_sizes_the_better_one_is_fused(certain):
    # The large one costs four times the middle one, and ends a little lower.
    law = {**truth.BIG, "floor": 1.5, "scale": 14400.0, "leaves": 27000.0}
    large = dataclasses.replace(certain["M"], **same_draws(law), cost_per_step=16.0)
    three = {**certain, "L": large}
    chosen = advise(120000.0, "flops", three)["best"]
    pairs = [
        advise(120000.0, "flops", {small: certain[small], "L": large})["best"] for small in "SM"
    ]
    assert chosen == min(pairs, key=lambda best: best["loss"]["median"])


def test_it_is_json_and_the_same_each_time(curves):
    text = json.dumps(advise(20000.0, "flops", curves), allow_nan=False)
    assert text == json.dumps(advise(20000.0, "flops", curves))


@pytest.fixture(scope="module")
def groups():
    return {
        size: [truth.curve(law, size, until, seed=s, name=f"w/{size}{s}") for s in range(3)]
        for size, law, until in (("S", truth.SMALL, 9000.0), ("M", truth.BIG, 36000.0))
    }


@pytest.fixture(scope="module")
def scores(groups):
    fused = [
        truth.fused(truth.SMALL, truth.BIG, first, 20000.0, seed=seed)
        for seed, first in enumerate((2500.0, 3500.0, 4500.0, 6000.0))
    ]
    scores = backtest(groups, fused, shares=(0.1, 0.6))
    return {(score["kind"], score["share"]): score for score in scores}


@pytest.mark.parametrize(
    ("kind", "share", "runs"), [("continued", 0.6, 6), ("unseen", 0.0, 6), ("fused", 0.0, 4)]
)
def test_forecasts_of_the_true_law_are_good(scores, kind, share, runs):
    score = scores[kind, share]
    assert score["runs"] == runs
    assert score["refused"] == 0
    assert score["error"] < 0.02
    assert score["end_error"] < 0.03
    assert score["coverage"] >= 0.85


def test_what_cannot_be_forecast_is_counted(scores):
    score = scores["continued", 0.1]
    assert (score["runs"], score["refused"], score["error"]) == (0, 6, None)
    json.dumps(list(scores.values()), allow_nan=False)


def test_only_what_was_hidden_is_scored(scores):
    assert scores["continued", 0.6]["points"] == 6 * 10


def test_a_law_that_changes_is_found_out():
    """A backtest that praised every forecast would be worth nothing."""
    small, big = truth.scratch_curves(12000.0, 48000.0)
    factors = np.where(big.costs > 0.6 * big.costs[-1], 1.3, 1.0)
    broken = dataclasses.replace(big, losses=big.losses * factors)
    good, bad = (backtest({"S": [small], "M": [m]}, [], (0.6,))[0] for m in (big, broken))
    assert good["coverage"] >= 0.9
    assert bad["coverage"] < 0.6
    assert bad["end_error"] > good["end_error"] + 0.05


def test_runs_of_one_source_do_not_help_each_other(groups):
    slow = [
        truth.fused(truth.SMALL, truth.BIG, 3000.0, 20000.0, seed=seed, speed=0.3)
        for seed in (0, 1)
    ]
    alone, beside = (backtest(groups, slow[:count], ())[-1] for count in (1, 2))
    fast = truth.fused(truth.SMALL, truth.BIG, 4000.0, 20000.0, speed=0.3)
    helped = backtest(groups, [*slow, fast], ())[-1]
    assert abs(beside["bias"]) == pytest.approx(abs(alone["bias"]), rel=0.2)
    assert abs(helped["bias"]) < 0.9 * abs(beside["bias"])
