"""Where a curve leaves its plateau."""

import dataclasses

import numpy as np
import pytest

from tests.trainers.advice import truth
from trainers.advice import plateau


def power_law(noise=0.0, floor=1.5, points=25, seed=0):
    found = truth.curve(truth.SMALL, "S", 1000.0, points=points)
    losses = floor + 6.0 * found.costs**-0.3
    ripple = np.random.default_rng(seed).standard_normal(points)
    return dataclasses.replace(found, losses=losses * np.exp(noise * ripple))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.006])
def test_the_turn_is_found(noise, seed):
    found = truth.curve(truth.SMALL, "S", 6000.0, noise=noise, seed=seed)
    assert abs(found.costs[plateau.leaves(found)] - truth.SMALL["leaves"]) <= 250


@pytest.mark.parametrize("points", [12, 13, 15])
def test_three_evaluations_on_the_plateau_suffice(points):
    found = truth.curve(truth.SMALL, "S", 6000.0, noise=0.003, points=points)
    assert found.costs[plateau.leaves(found)] == pytest.approx(1500, abs=6000 / points)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.01])
def test_a_power_law_has_no_plateau(noise, seed):
    assert plateau.leaves(power_law(noise, seed=seed)) == 0


@pytest.mark.parametrize("until", [300.0, 700.0, 1400.0])
def test_a_curve_that_ends_on_its_plateau_never_leaves_it(until):
    found = truth.curve(truth.SMALL, "S", until, noise=0.003)
    found = found.until(until)
    late = dataclasses.replace(found, costs=found.costs[2:], losses=found.losses[2:])
    assert plateau.leaves(late) is None


def test_a_curve_that_has_just_left_is_not_taken_for_one_without_a_plateau():
    found = truth.curve(truth.SMALL, "S", 6000.0, noise=0.003)
    for last in (1700, 2000, 2300):
        assert plateau.leaves(found.until(last)) != 0


@pytest.mark.parametrize("points", [0, 1])
def test_one_point_tells_nothing(points):
    found = truth.curve(truth.SMALL, "S", 6000.0)
    assert plateau.leaves(found.until(found.costs[0] * points)) is None


def test_slope_of_the_plateau():
    found = truth.curve(truth.SMALL, "S", 6000.0, noise=0.0, points=100)
    index = plateau.leaves(found)
    assert plateau.slope(found, index) == pytest.approx(truth.PLATEAU_SLOPE, rel=0.05)
    assert plateau.slope(found, 0) == 0.0
