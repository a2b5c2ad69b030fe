"""Advice for laws that are known: is the best division found, and do the intervals hold it?"""

import dataclasses
import json

import numpy as np
import pytest

from tests.trainers.advice import truth
from trainers.advice import learn
from trainers.advice.choice import FAR, FUSE, SCRATCH, advise, spend
from trainers.advice.fusions import Effect
from trainers.advice.laws import Law
from trainers.advice.texts import describe

PAIR = ("S", "M")


@pytest.fixture(scope="module")
def known():
    """Fits of three repeats of each size, and what five fused runs of speed 1 taught."""
    curves = [
        truth.curve(law, size, until, noise=0.002, seed=seed, name=f"w/{size}{seed}")
        for size, law, until in (("S", truth.SMALL, 12000.0), ("M", truth.BIG, 48000.0))
        for seed in range(3)
    ]
    merged = [
        truth.fused(truth.SMALL, truth.BIG, first, 20000.0, noise=0.002, seed=seed)
        for seed, first in enumerate((2500.0, 3000.0, 3500.0, 4500.0, 5500.0))
    ]
    return learn([*curves, *merged], PAIR)


@pytest.fixture(scope="module")
def certain(known):
    """The same fits with the true laws in every draw, and fusions that cost nothing."""
    fits = {
        size: dataclasses.replace(
            known[0][size],
            law=Law(**law, slope=truth.PLATEAU_SLOPE),
            draws=_spread(Law(**law, slope=truth.PLATEAU_SLOPE)),
        )
        for size, law in zip(PAIR, (truth.SMALL, truth.BIG), strict=True)
    }
    return fits, effect()


def _spread(law, draws=50):
    return Law(**{name: np.full(draws, value) for name, value in vars(law).items()})


def effect(speed=1.0, penalty=0.0, draws=50):
    return Effect(np.full(draws, penalty), np.full(draws, np.log(speed)), 0.0, ())


@pytest.mark.parametrize("budget", [12000.0, 20000.0, 40000.0])
def test_from_curves_the_best_division_is_found(known, budget):
    found = advise(budget, "flops", PAIR, *known)
    first, least = truth.best_fusion(truth.SMALL, truth.BIG, budget)
    assert found.first_cost.low <= first <= found.first_cost.high
    # What is recommended ends no more than a hundredth above the true optimum.
    assert truth.fused_loss(truth.SMALL, truth.BIG, *found.best.costs) <= 1.01 * least
    assert sum(found.best.costs) == pytest.approx(budget)
    assert found.best.steps[0] == pytest.approx(found.best.costs[0] / truth.STEP["S"], rel=0.01)
    assert found.verdict == FUSE


@pytest.mark.parametrize("budget", [12000.0, 20000.0, 40000.0])
def test_the_intervals_hold_the_truth(known, budget):
    found = advise(budget, "flops", PAIR, *known)
    alone = truth.loss(truth.BIG, budget)
    ends = truth.fused_loss(truth.SMALL, truth.BIG, *found.best.costs)
    assert found.scratch.low <= alone <= found.scratch.high
    assert found.best.loss.low <= ends <= found.best.loss.high
    assert found.best.gain.low <= alone - ends <= found.best.gain.high


@pytest.mark.parametrize("budget", [9000.0, 20000.0, 90000.0])
def test_known_laws_give_the_optimum_to_within_the_grid(certain, budget):
    found = advise(budget, "flops", PAIR, *certain)
    first, least = truth.best_fusion(truth.SMALL, truth.BIG, budget)
    assert found.best.costs[0] == pytest.approx(first, abs=0.02 * budget)
    assert found.best.loss.median == pytest.approx(least, rel=1e-3)
    assert found.best.gain.low == pytest.approx(found.best.gain.high)
    assert {c.loss.median for c in found.line} >= {found.best.loss.median}
    assert min(c.loss.median for c in found.line) == found.best.loss.median


def test_a_larger_budget_is_never_worse(known):
    ends, alone = [], []
    for budget in np.geomspace(1700.0, 1e7, 30):
        found = advise(budget, "flops", PAIR, *known)
        alone.append(found.scratch.median)
        if found.best is not None:
            ends.append(np.median(spend(PAIR, np.array([found.best.costs]), *known)))
    assert len(ends) > 25
    assert np.all(np.diff(ends) <= 1e-12)
    assert np.all(np.diff(alone) <= 1e-9)


@pytest.mark.parametrize("harm", [effect(penalty=0.6), effect(speed=1e-3)])
def test_where_fusing_harms_it_is_not_advised(certain, harm):
    fits, _ = certain
    found = advise(300000.0, "flops", PAIR, fits, harm)
    assert found.verdict == SCRATCH
    assert found.best.chance < 0.5
    assert found.best.gain.median < 0


def test_a_budget_that_the_small_model_spends_on_its_plateau(known):
    found = advise(1000.0, "flops", PAIR, *known)
    assert found.verdict == SCRATCH
    assert found.best is None
    assert found.line == ()
    # There are larger budgets at which it pays, and they are named.
    assert found.pays[0] > 1000.0


def test_from_some_budget_on_fusing_gains_nothing(certain):
    found = advise(2e6, "flops", PAIR, *certain)
    assert found.verdict == SCRATCH
    assert found.pays[1] < 2e6
    fits, none = certain
    middle = np.sqrt(found.pays[0] * found.pays[1])
    assert advise(middle, "flops", PAIR, fits, none).best.gain.median > 0


def test_far_from_what_was_seen_nothing_is_sure(certain):
    fits, nothing = certain
    near = advise(20000.0, "flops", PAIR, fits, nothing)
    unseen = {
        size: dataclasses.replace(fit, observed=fit.observed / 20) for size, fit in fits.items()
    }
    far = advise(20000.0, "flops", PAIR, unseen, nothing)
    assert near.verdict == FUSE
    assert far.verdict == "perhaps"
    assert max(near.beyond.values()) <= FAR < max(far.beyond.values())
    assert near.best == far.best
    (said,) = (line for line in describe(far, unseen, nothing) if line.startswith("Advice"))
    assert said.endswith("better, if the laws hold so far beyond what was observed.")


def test_the_best_within_what_was_seen_is_named(certain):
    fits, nothing = certain
    short = {"S": dataclasses.replace(fits["S"], observed=2000.0), "M": fits["M"]}
    found = advise(40000.0, "flops", PAIR, short, nothing)
    assert found.within.costs[0] <= 2000.0 < found.best.costs[0]


def test_three_sizes_are_taken_in_steps_or_at_once(certain):
    fits, nothing = certain
    # The large one costs four times the middle one, and ends a little lower.
    law = Law(**{**truth.BIG, "floor": 1.5, "scale": 14400.0, "leaves": 27000.0}, slope=0.18)
    large = dataclasses.replace(fits["M"], law=law, draws=_spread(law), cost_per_step=16.0)
    three = {**fits, "L": large}
    found = advise(120000.0, "flops", ("S", "M", "L"), three, nothing)
    two = advise(120000.0, "flops", ("M", "L"), {s: three[s] for s in "ML"}, nothing)
    assert found.best.sizes[-1] == "L"
    assert sum(found.best.costs) == pytest.approx(120000.0)
    # More ways can only help, but for the coarser grid of the longer path.
    assert found.best.loss.median <= two.best.loss.median + 1e-9


def test_it_is_json_and_the_same_each_time(known):
    first = advise(20000.0, "flops", PAIR, *known)
    text = json.dumps(first.to_dict(), allow_nan=False)
    assert json.loads(text)["best"]["sizes"] == ["S", "M"]
    assert text == json.dumps(advise(20000.0, "flops", PAIR, *known).to_dict())
