"""L1 and L2 of Eq. 8-9, and the bracket away from self-fusion."""

import numpy as np
import pytest
from keras import ops

from keras_fusion.theory.derivatives import Derivatives, combine
from tests.keras_fusion.theory import cases


def loss_of_mean(case):
    """Eq. 8: the loss of the mean of the sources' outputs."""
    inputs, targets = case.batch
    outputs = [ops.convert_to_numpy(source(inputs)) for source in case.sources]
    return float(case.loss(targets, ops.convert_to_tensor(np.mean(outputs, axis=0))))


def moved(weights, direction, by):
    return combine((1.0, weights), (by, direction))


@pytest.mark.one_backend
class TestLosses:
    @pytest.mark.parametrize(
        "make",
        [pytest.param(cases.fused_dense, marks=pytest.mark.one_backend), cases.noisy_dense],
    )
    def test_first_is_the_loss_of_the_mean(self, make):
        case = make()
        point = case.fields.at(case.fields.weights())
        assert point.first_loss == pytest.approx(loss_of_mean(case), rel=1e-12)

    def test_second_is_the_fused_networks(self):
        case = cases.noisy_dense()
        inputs, targets = case.batch
        point = case.fields.at(case.fields.weights())
        expected = float(case.loss(targets, case.fused(inputs)))
        assert point.second_loss == pytest.approx(expected, rel=1e-12)
        assert abs(point.second_loss - point.first_loss) > 1e-3

    def test_first_does_not_see_eta(self):
        case = cases.noisy_dense()
        partition, weights = case.fields.partition, case.fields.weights()
        along = partition.eta(cases.random_like(weights))
        point, moved_point = case.fields.at(weights), case.fields.at(moved(weights, along, 0.5))
        assert moved_point.first_loss == point.first_loss
        assert not cases.flat(partition.eta(point.first)).any()
        assert abs(moved_point.second_loss - point.second_loss) > 1e-3


class TestProducts:
    @pytest.mark.parametrize("which", ["first", "second"])
    def test_against_differences(self, which):
        fields = cases.noisy_dense().fields
        weights, step = fields.weights(), 1e-5
        along = cases.random_like(weights)
        there, back = (
            cases.flat(getattr(fields.at(moved(weights, along, sign * step)), which))
            for sign in (1, -1)
        )
        expected = (there - back) / (2 * step)
        product = cases.flat(getattr(fields, f"{which}_product")(weights, along))
        np.testing.assert_allclose(product, expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.one_backend
class TestBracket:
    def test_by_its_definition(self):
        """(∇G)F − (∇F)G with F = −∇L1 and G = −∇L2, by differences, where η ≠ 0."""
        fields = cases.noisy_dense().fields
        weights, step = fields.weights(), 1e-5
        point = fields.at(weights)

        def derivative(which, along):
            there, back = (
                cases.flat(getattr(fields.at(moved(weights, along, sign * step)), which))
                for sign in (1, -1)
            )
            return -(there - back) / (2 * step)

        negative = combine((-1.0, point.first)), combine((-1.0, point.second))
        expected = derivative("second", negative[0]) - derivative("first", negative[1])
        bracket = cases.flat(fields.bracket(point))
        np.testing.assert_allclose(bracket, expected, atol=1e-7 * np.abs(expected).max())

    def test_zero_outside_eta_for_any_sources(self):
        """Lemma 3 does not need self-fusion: η = 0 is enough."""
        fields = cases.fused_dense().fields
        bracket = fields.bracket(fields.at(fields.weights()))
        theta, eta = (cases.flat(part(bracket)) for part in _parts(fields))
        assert np.abs(theta).max() <= 1e-13 * np.abs(eta).max()

    def test_not_zero_outside_eta_with_noise(self):
        fields = cases.noisy_dense().fields
        bracket = fields.bracket(fields.at(fields.weights()))
        theta, eta = (np.linalg.norm(cases.flat(part(bracket))) for part in _parts(fields))
        assert theta > 0.01 * eta


class TestTheProofsFirstLoss:
    """Lemma 3's proof writes L1 = (1/n) Σ L_S(θ_i), which is not Eq. 8."""

    @pytest.mark.one_backend
    def test_the_same_bracket_in_self_fusion(self):
        case = cases.self_fused("dense", 2, "property")
        fields = case.fields
        bracket = fields.bracket(fields.at(fields.weights()))
        by_hand, expected = (cases.flat(vector) for vector in (self._bracket(fields), bracket))
        np.testing.assert_allclose(by_hand, expected, atol=1e-12 * np.abs(expected).max())

    @pytest.mark.one_backend
    def test_not_zero_outside_eta_for_other_sources(self):
        fields = cases.fused_dense().fields
        theta, eta = (
            np.linalg.norm(cases.flat(part(self._bracket(fields)))) for part in _parts(fields)
        )
        assert theta > 0.01 * eta

    @staticmethod
    def _bracket(fields):
        """∇²L2 ∇L1 − ∇²L1 ∇L2 with that L1, whose Hessian has a block for every source."""
        partition, weights = fields.partition, fields.weights()
        count = partition.num_sources

        def placed(vectors):
            """Σ_i of the sources' vectors / n, with respect to the fused weights w_i = c θ_i."""
            whole = []
            for number, part in enumerate(partition.parts):
                array = np.zeros(weights[number].shape)
                for index, vector in enumerate(vectors):
                    position = part.positions[index] if part.positions else ...
                    scale = part.factors[index] if part.positions else 1.0
                    array[position] += ops.convert_to_numpy(vector[number]) / (count * scale)
                whole.append(ops.convert_to_tensor(array))
            return whole

        second = fields.at(weights).second
        gradients, products = [], []
        for index, source in enumerate(partition.sources):
            at = Derivatives(source, fields.batch, fields.loss)
            theta = partition.source_weights(weights, index)
            gradients.append(at.gradient(theta)[1])
            products.append(at.product(theta, partition.source_weights(second, index)))
        first, curved = placed(gradients), placed(products)
        return combine((1.0, fields.second_product(weights, first)), (-1.0, curved))


def _parts(fields):
    return fields.partition.theta, fields.partition.eta
