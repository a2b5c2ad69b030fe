"""The law of a size and its inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.advice import truth
from trainers.advice.laws import Law, predict

laws = st.builds(
    Law,
    level=st.floats(2.0, 8.0),
    floor=st.floats(0.1, 1.9),
    scale=st.floats(1.0, 1e16),
    exponent=st.floats(0.1, 2.0),
    leaves=st.floats(1.0, 1e16),
    slope=st.floats(0.01, 1.0),
)


def test_it_is_the_law_that_its_docstring_states():
    law = Law(**truth.BIG, slope=truth.PLATEAU_SLOPE)
    costs = np.geomspace(10, 1e7, 50)
    np.testing.assert_allclose(law.loss(costs), truth.loss(truth.BIG, costs), rtol=1e-12)


def test_scale_as_large_as_the_beginning_is_the_usual_power_law():
    law = Law(level=5.0, floor=1.5, scale=100.0, exponent=0.4, leaves=100.0, slope=1.4)
    costs = np.array([100.0, 1e3, 1e5])
    np.testing.assert_allclose(law.loss(costs), 1.5 + 3.5 * 100**0.4 * costs**-0.4, rtol=1e-12)


@given(laws, st.floats(1e-3, 1e4), st.floats(1.01, 100.0))
def test_loss_only_falls(law, share, more):
    cost = law.leaves * share
    assert law.loss(cost * more) <= law.loss(cost)


@given(laws, st.floats(1e-3, 1e2))
def test_compute_inverts_loss(law, share):
    cost = law.leaves * share
    loss = law.loss(cost)
    assert law.loss(law.compute(loss)) == pytest.approx(float(loss), rel=1e-6)


def test_a_loss_below_the_floor_is_never_reached():
    law = Law(**truth.BIG, slope=0.2)
    assert np.isinf(law.compute(1.6))
    assert law.loss(np.inf) == pytest.approx(truth.BIG["floor"])


def test_predict_takes_the_default_where_there_is_one_value():
    mean, deviation = predict([2.0], prior=0.1, weight=3.0)
    assert mean == 2.0
    assert deviation == pytest.approx(0.1 * np.sqrt(2))


def test_predict_learns_the_spread_of_many():
    values = np.random.default_rng(0).normal(5.0, 0.4, 2000)
    mean, deviation = predict(values, prior=0.01, weight=3.0)
    assert mean == pytest.approx(5.0, abs=0.03)
    assert deviation == pytest.approx(0.4, rel=0.05)
