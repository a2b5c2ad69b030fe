"""The monitor's numbers against the functions they stand for."""

import numpy as np
import pytest

from keras_fusion import theory
from keras_fusion.theory.monitors import NAMES, eta_share
from tests.keras_fusion.theory import cases


@pytest.fixture(scope="module")
def monitor():
    case = cases.noisy_dense()
    return theory.Monitor(case.sources, case.batch, h=0.1, alpha=2.0, loss=case.loss)


@pytest.mark.one_backend
def test_numbers(monitor):
    case = cases.noisy_dense()
    numbers = monitor(case.fused)
    bracket = theory.lie_bracket(*case.arguments, case.loss)
    result = theory.modified_loss(*case.arguments, h=0.1, alpha=2.0, loss=case.loss)
    assert set(numbers) == set(NAMES)
    assert all(isinstance(value, float) for value in numbers.values())
    assert numbers["bracket"] == pytest.approx(bracket.norm)
    assert numbers["bracket_theta"] == pytest.approx(bracket.theta_norm)
    assert numbers["bracket_eta"] == pytest.approx(bracket.eta_norm)
    for name in ("first_loss", "second_loss", "first_flatness", "second_flatness"):
        assert numbers[name] == pytest.approx(getattr(result.terms, name))
    assert numbers["bound_first_loss"] == pytest.approx(result.bound.first_loss)
    assert numbers["bound_first_flatness"] == pytest.approx(result.bound.first_flatness)
    point = case.fields.at(case.fields.weights())
    speed = np.linalg.norm(cases.flat(point.first) + 2 * cases.flat(point.second))
    assert numbers["bracket_drift"] == pytest.approx(0.1 * bracket.norm / speed)
    assert numbers["seconds"] > 0


@pytest.mark.one_backend
def test_follows_the_weights_and_alpha():
    case = cases.make_case([cases.dense(0), cases.dense(1)], cases.dense_batch(), cases.mean_square)
    alphas = [1.0]
    monitor = theory.Monitor(
        case.sources, case.batch, h=0.1, alpha=lambda: alphas[-1], loss=case.loss
    )
    before = monitor(case.fused)
    alphas.append(3.0)
    assert monitor(case.fused)["second_loss"] == pytest.approx(3 * before["second_loss"])
    case.fused.set_weights([0.5 * weight for weight in case.fused.get_weights()])
    after = monitor(case.fused)
    assert after["first_loss"] != pytest.approx(before["first_loss"])
    assert after["bracket"] != pytest.approx(before["bracket"])


def test_eta_share_by_hand():
    case = cases.noisy_dense()
    # Only the second kernel has two growing axes: blocks 3 × 4 and 2 × 3 of 5 × 7.
    kernel = case.fused.get_weights()[2]
    theta = np.concatenate([kernel[:3, :4].ravel(), kernel[3:, 4:].ravel()])
    eta = np.concatenate([kernel[:3, 4:].ravel(), kernel[3:, :4].ravel()])
    expected = np.sqrt(np.mean(eta**2) / np.mean(theta**2))
    assert eta_share(case.fields.partition, case.fields.weights()) == pytest.approx(expected)
    fields = cases.fused_dense().fields
    assert eta_share(fields.partition, fields.weights()) == 0
