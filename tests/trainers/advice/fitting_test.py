"""Laws fitted to curves whose law is known."""

import dataclasses

import numpy as np
import pytest

from tests.trainers.advice import truth
from trainers.advice.choice import LEVEL
from trainers.advice.fitting import FEWEST_POINTS, fit_laws
from trainers.errors import UserError


def fit(*curves, **how):
    groups = {}
    for curve in curves:
        groups.setdefault(curve.size, []).append(curve)
    return fit_laws(groups, **how)


def quantiles(draws):
    return np.quantile(draws, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))


def test_what_was_seen_is_fitted_and_what_follows_foreseen():
    fits = fit(*truth.scratch_curves(noise=0.002))
    for size, law in (("S", truth.SMALL), ("M", truth.BIG)):
        seen = 4 * law["leaves"]
        assert fits[size].law.loss(seen) == pytest.approx(truth.loss(law, seen), rel=0.01)
        assert fits[size].law.loss(2 * seen) == pytest.approx(truth.loss(law, 2 * seen), rel=0.03)
        assert fits[size].law.leaves == pytest.approx(law["leaves"], rel=0.05)
        assert fits[size].has_plateau


def test_intervals_of_the_same_run_cover():
    held = []
    for seed in range(12):
        curve = truth.curve(truth.BIG, "M", 20000.0, noise=0.005, seed=seed)
        law = fit(curve)["M"].same[curve.name]
        for later in (25000.0, 40000.0):
            low, _, high = quantiles(law.loss(later))
            held.append(low <= truth.loss(truth.BIG, later) <= high)
    # 0.9 are to; the laws of the priors are wider than this one, so that more may.
    assert np.mean(held) >= 0.85


def test_intervals_of_a_further_run_cover_when_repeats_differ():
    generator = np.random.default_rng(1)
    held = []
    for seed in range(12):
        leaves = truth.BIG["leaves"] * np.exp(0.2 * generator.standard_normal(4))
        *known, new = (
            truth.curve(truth.BIG, "M", 24000.0, seed=9 * seed + i, leaves=start, name=str(i))
            for i, start in enumerate(leaves)
        )
        low, _, high = quantiles(fit(*known)["M"].draws.loss(20000.0))
        held.append(low <= truth.loss({**truth.BIG, "leaves": leaves[3]}, 20000.0) <= high)
        assert new.size == "M"
    assert 0.75 <= np.mean(held)


def test_more_curves_and_more_points_tell_more():
    def width(*curves):
        low, _, high = quantiles(fit(*curves)["M"].draws.loss(1e5))
        return high - low

    short = truth.curve(truth.BIG, "M", 24000.0, seed=1, name="1").until(13000.0)
    long = truth.curve(truth.BIG, "M", 24000.0, seed=1, name="1")
    others = [truth.curve(truth.BIG, "M", 24000.0, seed=s, name=str(s)) for s in (2, 3, 4)]
    assert width(long) < width(short)
    assert width(long, *others) < width(long)


def test_a_power_law_without_a_plateau():
    base = truth.curve(truth.BIG, "M", 1e6, points=30)
    losses = 1.6 + 40 * base.costs**-0.4
    losses *= np.exp(0.003 * np.random.default_rng(3).standard_normal(30))
    found = fit(dataclasses.replace(base, losses=losses))["M"]
    assert not found.has_plateau
    low, middle, high = quantiles(found.draws.loss(4e6))
    assert low <= 1.6 + 40 * 4e6**-0.4 <= high
    assert middle == pytest.approx(1.6 + 40 * 4e6**-0.4, rel=0.02)


def test_one_wild_evaluation_changes_little():
    clean = truth.curve(truth.BIG, "M", 24000.0, noise=0.003)
    losses = clean.losses.copy()
    losses[15] *= 1.3
    wild = dataclasses.replace(clean, losses=losses)
    expected = fit(clean)["M"].law.loss(3e4)
    assert fit(wild)["M"].law.loss(3e4) == pytest.approx(expected, rel=0.03)


def test_the_same_seed_gives_the_same_draws():
    curves = truth.scratch_curves()
    first, second = fit(*curves, seed=4), fit(*curves, seed=4)
    other = fit(*curves, seed=5)
    for size in "SM":
        np.testing.assert_array_equal(first[size].draws.loss(1e5), second[size].draws.loss(1e5))
        assert np.any(first[size].draws.loss(1e5) != other[size].draws.loss(1e5))


@pytest.mark.parametrize("until", [1200.0, 1700.0, 2200.0])
def test_too_little_beyond_the_plateau(until):
    small, big = truth.scratch_curves()
    with pytest.raises(UserError, match=f"size S with at least {FEWEST_POINTS}") as refused:
        fit(small.until(until), big)
    assert "Received: w/S_0 " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_curve_that_stays_on_the_plateau_is_left_out():
    good = truth.curve(truth.BIG, "M", 24000.0)
    stuck = truth.curve(truth.BIG, "M", 24000.0, seed=1, leaves=1e6, name="stuck")
    stuck = dataclasses.replace(stuck, costs=stuck.costs[2:], losses=stuck.losses[2:])
    found = fit(good, stuck)["M"]
    assert list(found.same) == [good.name]
