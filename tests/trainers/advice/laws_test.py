"""Laws fitted to curves whose law is known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.advice import truth
from trainers.advice.choice import interval
from trainers.advice.laws import FEWEST_POINTS, Law, fit, plateau_end
from trainers.errors import UserError

BIG = Law(**truth.BIG)
laws = st.builds(
    Law,
    level=st.floats(2.0, 8.0),
    floor=st.floats(0.1, 1.9),
    scale=st.floats(1.0, 1e16),
    exponent=st.floats(0.1, 2.0),
    leaves=st.floats(1.0, 1e16),
)


def before(curve, cost):
    return curve.part(curve.costs <= cost)


def holds(draws, value):
    bounds = interval(draws)
    return bounds["low"] <= value <= bounds["high"]


def test_beyond_the_plateau_it_is_a_power_law():
    costs = np.geomspace(truth.BIG["leaves"], 1e7, 50)
    np.testing.assert_allclose(BIG.loss(costs), truth.loss(truth.BIG, costs), rtol=1e-12)
    lost = BIG.leaves - BIG.scale  # on the plateau
    amount = (BIG.level - BIG.floor) * BIG.scale**BIG.exponent
    expected = BIG.floor + amount * (costs - lost) ** -BIG.exponent
    np.testing.assert_allclose(BIG.loss(costs), expected, rtol=1e-12)


@given(laws, st.floats(1e-3, 1e4), st.floats(1.01, 100.0))
def test_loss_only_falls(law, share, more):
    cost = law.leaves * share
    assert law.loss(cost * more) <= law.loss(cost)


@given(laws, st.floats(1e-3, 1e2))
def test_compute_inverts_loss(law, share):
    loss = law.loss(law.leaves + law.scale * share)
    assert law.loss(law.compute(loss)) == pytest.approx(float(loss), rel=1e-6)


def test_a_loss_below_the_floor_is_never_reached():
    assert np.isinf(BIG.compute(1.6))
    assert BIG.follow(1.6, 1e9) == 1.6


def test_a_fused_model_follows_the_law_from_the_equivalent_compute():
    start = truth.loss(truth.SMALL, 3000.0)
    losses = BIG.follow(start, 0.7 * np.array([0.0, 500.0, 9000.0]))
    expected = truth.fused_loss(truth.SMALL, truth.BIG, 3000.0, [0, 500, 9000], speed=0.7)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


@pytest.mark.parametrize(("index", "law"), [(0, truth.SMALL), (1, truth.BIG)])
def test_what_was_seen_is_fitted_and_what_follows_foreseen(index, law):
    fitted = fit([truth.scratch_curves(noise=0.002)[index]]).law
    seen = 4 * law["leaves"]
    assert fitted.loss(seen) == pytest.approx(truth.loss(law, seen), rel=0.01)
    assert fitted.loss(2 * seen) == pytest.approx(truth.loss(law, 2 * seen), rel=0.03)
    assert fitted.leaves == pytest.approx(law["leaves"], rel=0.1)


def test_intervals_of_the_same_run_cover():
    held = []
    for seed in range(12):
        curve = truth.curve(truth.BIG, "M", 20000.0, noise=0.005, seed=seed)
        draws = dataclasses.replace(fit([curve]).draws, leaves=curve.costs[plateau_end(curve)])
        for later in (25000.0, 40000.0):
            held.append(holds(draws.loss(later), truth.loss(truth.BIG, later)))
    # 0.9 are to; the laws of the priors are wider than this one, so that more may.
    assert np.mean(held) >= 0.85


def test_intervals_of_a_further_run_cover_when_repeats_differ():
    generator = np.random.default_rng(1)
    held = []
    for seed in range(12):
        leaves = truth.BIG["leaves"] * np.exp(0.2 * generator.standard_normal(4))
        curves = [
            truth.curve(truth.BIG, "M", 24000.0, seed=9 * seed + i, leaves=start, name=str(i))
            for i, start in enumerate(leaves[:3])
        ]
        expected = truth.loss({**truth.BIG, "leaves": leaves[3]}, 20000.0)
        held.append(holds(fit(curves).draws.loss(20000.0), expected))
    assert 0.75 <= np.mean(held)


def test_more_curves_and_more_points_tell_more():
    def width(*curves):
        bounds = interval(fit(curves).draws.loss(1e5))
        return bounds["high"] - bounds["low"]

    long, *others = (truth.curve(truth.BIG, "M", 24000.0, seed=s, name=str(s)) for s in range(1, 5))
    assert width(long) < width(before(long, 13000.0))
    assert width(long, *others) < width(long)


def power_law(noise=0.0, seed=0):
    curve = truth.curve(truth.BIG, "M", 1e6, points=30)
    ripple = np.random.default_rng(seed).standard_normal(30)
    losses = (1.6 + 40 * curve.costs**-0.4) * np.exp(noise * ripple)
    return dataclasses.replace(curve, losses=losses)


def test_a_power_law_without_a_plateau():
    bounds = interval(fit([power_law(0.003, seed=3)]).draws.loss(4e6))
    expected = 1.6 + 40 * 4e6**-0.4
    assert bounds["low"] <= expected <= bounds["high"]
    assert bounds["median"] == pytest.approx(expected, rel=0.02)


def test_one_wild_evaluation_changes_little():
    clean = truth.curve(truth.BIG, "M", 24000.0, noise=0.003)
    losses = clean.losses.copy()
    losses[15] *= 1.3
    wild = dataclasses.replace(clean, losses=losses)
    assert fit([wild]).law.loss(3e4) == pytest.approx(fit([clean]).law.loss(3e4), rel=0.03)


def test_the_same_seed_gives_the_same_draws():
    curves = truth.scratch_curves()[1:]
    first, second, other = (fit(curves, seed=seed).draws.loss(1e5) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)


@pytest.mark.parametrize("until", [1200.0, 1700.0, 2200.0])
def test_too_little_beyond_the_plateau(until):
    small, _ = truth.scratch_curves()
    with pytest.raises(UserError, match=f"with {FEWEST_POINTS} evaluations") as refused:
        fit([before(small, until)])
    assert "Received: w/S_0 " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_curve_that_stays_on_the_plateau_is_left_out():
    good = truth.curve(truth.BIG, "M", 24000.0)
    stuck = truth.curve(truth.BIG, "M", 24000.0, seed=1, leaves=1e6, name="stuck")
    assert fit([good, stuck.part(slice(2, None))]).curves == (good.name,)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.006])
def test_the_end_of_a_plateau_is_found(noise, seed):
    curve = truth.curve(truth.SMALL, "S", 6000.0, noise=noise, seed=seed)
    assert abs(curve.costs[plateau_end(curve)] - truth.SMALL["leaves"]) <= 250


@pytest.mark.parametrize("points", [12, 13, 15])
def test_three_evaluations_on_the_plateau_suffice(points):
    curve = truth.curve(truth.SMALL, "S", 6000.0, noise=0.003, points=points)
    assert curve.costs[plateau_end(curve)] == pytest.approx(1500, abs=6000 / points)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.01])
def test_a_power_law_has_no_plateau(noise, seed):
    assert plateau_end(power_law(noise, seed=seed)) == 0


@pytest.mark.parametrize("until", [300.0, 700.0, 1400.0])
def test_a_curve_that_ends_on_its_plateau_never_leaves_it(until):
    curve = truth.curve(truth.SMALL, "S", until, noise=0.003)
    assert plateau_end(curve.part(slice(2, None))) is None


def test_a_curve_that_has_just_left_is_not_taken_for_one_without_a_plateau():
    curve = truth.curve(truth.SMALL, "S", 6000.0, noise=0.003)
    for last in (1700, 2000, 2300):
        assert plateau_end(before(curve, last)) != 0


@pytest.mark.parametrize("points", [0, 1])
def test_one_point_tells_nothing(points):
    assert plateau_end(truth.scratch_curves()[0].part(slice(points))) is None


@pytest.mark.parametrize("speed", [0.4, 1.0, 1.8])
def test_the_speed_of_a_fused_model_is_measured(speed):
    curves = [
        truth.curve(truth.BIG, "M", 48000.0, noise=0.001, seed=s, name=str(s)) for s in (0, 1)
    ]
    run = truth.fused(truth.SMALL, truth.BIG, 3000.0, 20000.0, noise=0.001, speed=speed)
    assert fit(curves, [run]).fused[run.name] == pytest.approx(speed, rel=0.1)


def test_without_a_fused_model_its_speed_is_not_known():
    speed = np.log(fit([truth.curve(truth.BIG, "M", 24000.0)]).speed)
    assert abs(speed.mean()) < 0.1
    assert 0.5 < speed.std() < 1.0


def test_fused_models_move_and_narrow_what_is_expected():
    curves = [truth.curve(truth.BIG, "M", 24000.0, noise=0.001)]
    runs = [
        truth.fused(truth.SMALL, truth.BIG, 2500.0 + 200 * seed, 20000.0, speed=0.5, seed=seed)
        for seed in range(6)
    ]
    one, six = (np.log(fit(curves, runs[:count]).speed) for count in (1, 6))
    assert six.std() < one.std() < 0.75
    assert abs(np.median(six) - np.log(0.5)) < 0.2


def test_what_was_fused_into_another_size_is_left_out():
    run = truth.fused(truth.SMALL, truth.BIG, 3000.0, 20000.0)
    curves = [truth.curve(truth.BIG, "M", 24000.0)]
    assert fit(curves, [dataclasses.replace(run, size="L")]).fused == {}
