"""What fused runs teach."""

import dataclasses

import numpy as np
import pytest

from tests.trainers.advice import truth
from trainers.advice import fusions
from trainers.advice.curves import Source
from trainers.advice.fitting import fit_laws
from trainers.advice.laws import Law

BIG = Law(**truth.BIG, slope=truth.PLATEAU_SLOPE)


@pytest.mark.parametrize("speed", [0.4, 1.0, 1.8])
@pytest.mark.parametrize("penalty", [0.0, 0.05])
def test_speed_and_penalty_are_measured(speed, penalty):
    run = truth.fused(
        truth.SMALL, truth.BIG, 3000.0, 20000.0, noise=0.001, speed=speed, penalty=penalty
    )
    found = fusions.measure(run, BIG)
    assert found.penalty == pytest.approx(penalty, abs=1e-9)
    assert np.exp(found.log_speed) == pytest.approx(speed, rel=0.05)
    assert found.noise < 0.002


def test_follow_is_the_law_from_the_equivalent_compute():
    start = truth.loss(truth.SMALL, 3000.0)
    found = fusions.follow(BIG, start, 0.7, np.array([0.0, 500.0, 9000.0]))
    expected = truth.fused_loss(truth.SMALL, truth.BIG, 3000.0, [0, 500, 9000], speed=0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_start_below_the_law_stays_where_it_is():
    assert fusions.follow(BIG, 1.6, 1.0, 1e9) == 1.6


def test_without_a_run_the_default_is_wide():
    fits = fit_laws({"M": [truth.curve(truth.BIG, "M", 24000.0)]})
    effect = fusions.learn([], fits)
    assert effect.measured == ()
    assert abs(effect.log_speed.mean()) < 0.1
    assert 0.5 < effect.log_speed.std() < 1.0


def test_runs_move_and_narrow_what_is_expected():
    fits = fit_laws({"M": [truth.curve(truth.BIG, "M", 24000.0, noise=0.001)]})
    runs = [
        truth.fused(truth.SMALL, truth.BIG, 2500.0 + 200 * seed, 20000.0, speed=0.5, seed=seed)
        for seed in range(6)
    ]
    one, six = (fusions.learn(runs[:count], fits) for count in (1, 6))
    assert six.log_speed.std() < one.log_speed.std() < 0.7
    assert abs(np.median(six.log_speed) - np.log(0.5)) < 0.2
    assert len(six.measured) == 6


def test_runs_of_unknown_or_several_sources_and_of_other_sizes_are_left_out():
    fits = fit_laws({"M": [truth.curve(truth.BIG, "M", 24000.0)]})
    run = truth.fused(truth.SMALL, truth.BIG, 3000.0, 20000.0)
    unknown = dataclasses.replace(run, sources=(Source("gone", None, None),))
    pair = dataclasses.replace(run, sources=(Source("a", 2.0, 1.0), Source("b", 2.0, 1.0)))
    other = dataclasses.replace(run, size="L")
    assert fusions.learn([unknown, pair, other], fits).measured == ()
    assert len(fusions.learn([unknown, pair, other, run], fits).measured) == 1
