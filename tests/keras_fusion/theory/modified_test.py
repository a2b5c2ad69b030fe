"""Theorems 1 and 2 and Corollary 1: the terms, and the orders in which flows meet the steps."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion import theory
from keras_fusion.layers import FusableDense
from keras_fusion.theory.derivatives import combine
from keras_fusion.theory.modified import drift, integrate, modified_loss_at, two_steps_from
from tests.keras_fusion.theory import cases

pytestmark = pytest.mark.one_backend

STEPS = 0.02 * 0.5 ** np.arange(6)


def gaps(fields, alpha, field, steps=STEPS):
    """Distances between the two discrete steps and a flow, for every h; `field(weights, h)`."""
    weights, distances = fields.weights(), []
    for h in steps:
        end = integrate(lambda w, h=h: field(w, h), weights, h, substeps=1)
        distances.append(
            np.linalg.norm(
                cases.flat(combine((1.0, end), (-1.0, two_steps_from(fields, weights, h, alpha))))
            )
        )
    return np.array(distances)


def slope(steps, distances):
    """The exponent of a power law, by least squares."""
    return np.polyfit(np.log(steps), np.log(distances), 1)[0]


def bracket_norm(fields):
    return np.linalg.norm(cases.flat(fields.bracket(fields.at(fields.weights()))))


class TestTheorem2:
    @pytest.mark.parametrize(
        ("make", "options", "largest"),
        [
            (cases.fused_dense, (), 0.02),
            (cases.noisy_dense, (), 0.02),
            pytest.param(cases.self_fused, ("dense", 2, "rule"), 0.02, marks=pytest.mark.slow),
            (cases.self_fused, ("dense", 3, "property"), 0.02),
            *(
                pytest.param(cases.self_fused, options, largest, marks=pytest.mark.slow)
                for options, largest in (
                    (("v1.1", 2, "property"), 0.01),
                    (("v1.1", 3, "rule"), 0.01),
                    (("v1.0", 2, "rule"), 0.0025),
                    (("v1.0", 3, "property"), 0.0025),
                )
            ),
        ],
    )
    def test_third_order_with_the_bracket_second_without(self, make, options, largest):
        fields, alpha, steps = make(*options).fields, 1.5, largest * 0.5 ** np.arange(5)
        with_bracket, without = (
            gaps(fields, alpha, lambda w, h, on=on: drift(fields, w, h, alpha, on), steps)
            for on in (True, False)
        )
        assert slope(steps, with_bracket) == pytest.approx(3, abs=0.1)
        assert slope(steps, without) == pytest.approx(2, abs=0.1)
        # The difference is the bracket itself.
        assert without[-1] / steps[-1] ** 2 == pytest.approx(
            alpha / 2 * bracket_norm(fields), rel=0.1
        )

    def test_the_public_functions(self):
        case = cases.fused_dense()
        h, alpha, fields = 0.02, 1.5, case.fields
        arguments = {"h": h, "alpha": alpha, "loss": case.loss}
        before = case.fused.get_weights()
        steps = theory.two_steps(*case.arguments, **arguments)
        flow = theory.modified_equation_step(*case.arguments, **arguments)
        distance = np.sqrt(sum(np.sum((flow[path] - steps[path]) ** 2) for path in steps))
        (expected,) = gaps(fields, alpha, lambda w, h: drift(fields, w, h, alpha), [h])
        assert distance == pytest.approx(expected, rel=1e-2)
        for old, new in zip(before, case.fused.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_the_steps_by_hand(self):
        """Eq. 6: ∇L1 does not move η. Eq. 7: then ∇L2 does, from there."""
        fields = cases.fused_dense().fields
        weights, h, alpha = fields.weights(), 0.1, 2.0
        middle = combine((1.0, weights), (-h, fields.at(weights).first))
        assert not cases.flat(fields.partition.eta(middle)).any()
        stepped = cases.flat(two_steps_from(fields, weights, h, alpha))
        expected = cases.flat(middle) - alpha * h * cases.flat(fields.at(middle).second)
        np.testing.assert_allclose(stepped, expected, rtol=1e-12)

    @pytest.mark.parametrize("n", [2, 3])
    def test_the_sources_own_step_is_n_times_as_long(self, n):
        """Self-fusing after a step of h_S is Eq. 6 with h = n h_S, where fusing copies."""
        case, (_, small) = cases.self_fused("dense", n, "property"), cases.small("dense")
        fields, source_step = case.fields, 0.1
        weights = fields.weights()
        end = combine((1.0, weights), (-n * source_step, fields.at(weights).first))
        stepped = combine(
            (1.0, small.weights()), (-source_step, small.gradient(small.weights())[1])
        )
        for part, array, expected in zip(
            fields.partition.parts, fields.partition.source_weights(end, 0), stepped, strict=True
        ):
            if set(part.factors) == {1.0}:
                np.testing.assert_allclose(array, expected, rtol=1e-12)

    @pytest.mark.slow
    def test_substeps_are_enough(self):
        fields, h = cases.fused_dense().fields, 0.1
        coarse, fine = (
            cases.flat(integrate(lambda w: drift(fields, w, h, 1.5), fields.weights(), h, substeps))
            for substeps in (4, 16)
        )
        ((gap,),) = [gaps(fields, 1.5, lambda w, h: drift(fields, w, h, 1.5), [h])]
        assert np.linalg.norm(coarse - fine) < 1e-3 * gap


class TestOtherStatements:
    """Statements that the paper prints otherwise than it proves: the order in which they fail."""

    def test_theorem_1_without_alpha(self):
        """L_B instead of α L_B: already the first order is wrong, by |α − 1| ‖∇L_B‖."""
        fields, alpha = cases.fused_dense().fields, 2.0

        def printed(weights, h):
            point = fields.at(weights)
            return combine((1.0, drift(fields, weights, h, alpha)), (alpha - 1, point.second))

        distances = gaps(fields, alpha, printed)
        gradient = np.linalg.norm(cases.flat(fields.at(fields.weights()).second))
        assert slope(STEPS, distances) == pytest.approx(1, abs=0.05)
        assert distances[-1] / STEPS[-1] == pytest.approx((alpha - 1) * gradient, rel=0.02)

    @pytest.mark.parametrize(("flatness", "sign"), [(2.0, -1.0), (1.0, -1.0), (2.0, 1.0)])
    def test_section_4s_quotation(self, flatness, sign):
        """−(h/2)[∇L1, ∇L2] and (h/2) ‖∇L‖²: neither the sign nor the factor gives order 3."""
        fields = cases.fused_dense().fields

        def quoted(weights, h):
            point = fields.at(weights)
            return combine(
                (-1.0, point.first),
                (-1.0, point.second),
                (-h * flatness / 2, fields.first_product(weights, point.first)),
                (-h * flatness / 2, fields.second_product(weights, point.second)),
                (sign * h / 2, fields.bracket(point)),
            )

        assert slope(STEPS, gaps(fields, 1.0, quoted)) == pytest.approx(2, abs=0.1)


class TestCorollary1:
    def test_effect_of_the_bracket_grows_with_alpha(self):
        """In proportion; beside the gradients and the flatness term it does not keep growing."""
        fields, h = cases.fused_dense().fields, 1e-3
        weights, alphas, moves = fields.weights(), (0.5, 1.0, 2.0, 4.0, 8.0), []
        for alpha in alphas:
            ends = [
                integrate(
                    lambda w, a=alpha, on=on: drift(fields, w, h, a, on), weights, h, substeps=1
                )
                for on in (True, False)
            ]
            moves.append(np.linalg.norm(cases.flat(combine((1.0, ends[0]), (-1.0, ends[1])))))
        expected = h**2 / 2 * bracket_norm(fields) * np.array(alphas)
        np.testing.assert_allclose(moves, expected, rtol=0.02)

        point = fields.at(weights)
        flatness = np.linalg.norm(cases.flat(fields.second_product(weights, point.second)))
        beside_flatness = expected / (h**2 / 2 * np.square(alphas) * flatness)
        speeds = [
            np.linalg.norm(cases.flat(combine((1.0, point.first), (alpha, point.second))))
            for alpha in alphas
        ]
        beside_gradients = expected / (h * np.array(speeds))
        assert (np.diff(beside_flatness) < 0).all()
        assert (np.diff(beside_gradients) > 0).all()
        limit = h / 2 * bracket_norm(fields) / np.linalg.norm(cases.flat(point.second))
        assert beside_gradients[-1] < limit


class TestTheorem1:
    @pytest.mark.parametrize(
        ("kind", "n", "norm"),
        [
            ("v1.1", 2, "property"),
            pytest.param("v1.0", 3, "property", marks=pytest.mark.slow),
            ("dense", 2, "rule"),
            ("dense", 3, "rule"),
        ],
    )
    def test_self_fusion(self, kind, n, norm):
        case, (_, small) = cases.self_fused(kind, n, norm), cases.small(kind)
        h, alpha, fields = 0.3, 2.0, case.fields
        point = fields.at(fields.weights())
        result = modified_loss_at(fields, point, h, alpha)
        loss, gradient = small.gradient(small.weights())
        square = np.sum(cases.flat(gradient) ** 2)
        assert result.terms.first_loss == pytest.approx(loss)
        assert result.bound.first_loss == pytest.approx(loss)
        assert result.self_fusion.first_loss == pytest.approx(loss)
        assert result.terms.second_loss == pytest.approx(alpha * result.bound.second_loss)
        # As printed, the special case is n times its own bound.
        assert result.self_fusion.first_flatness == pytest.approx(h / 4 * square)
        assert result.bound.first_flatness == pytest.approx(h / (4 * n) * square)
        # As derived: every weight's square counts 1 / (n c²), and 1 where fusing averages.
        expected = sum(
            np.sum(slopes**2) / (n * part.factors[0] ** 2) if part.positions else np.sum(slopes**2)
            for part, slopes in zip(fields.partition.parts, cases.arrays(gradient), strict=True)
        )
        assert result.terms.first_flatness == pytest.approx(h / 4 * expected)
        second = h * alpha**2 / 4 * np.sum(cases.flat(point.second) ** 2)
        assert result.terms.second_flatness == pytest.approx(second)
        assert result.terms.total == pytest.approx(
            loss * (1 + alpha) + second + result.terms.first_flatness
        )

    def test_its_gradient_is_the_flow(self):
        case = cases.noisy_dense()
        fields, h, alpha, step = case.fields, 0.3, 2.0, 1e-5
        weights = fields.weights()
        along = cases.random_like(weights)
        there, back = (
            modified_loss_at(
                fields, fields.at(combine((1.0, weights), (sign * step, along))), h, alpha
            ).terms.total
            for sign in (1, -1)
        )
        flow = cases.flat(drift(fields, weights, h, alpha, bracket=False))
        assert -flow @ cases.flat(along) == pytest.approx((there - back) / (2 * step), rel=1e-6)

    def test_different_sources(self):
        case = cases.fused_dense()
        result = theory.modified_loss(*case.arguments, h=0.1, alpha=2.0, loss=case.loss)
        inputs, targets = case.batch
        # θ_i is read from the fused network, which holds one bias for all outputs, the mean.
        bias = np.mean([source.get_weights()[-1] for source in case.sources], axis=0)
        losses = [
            float(case.loss(targets, ops.subtract(source(inputs), source.get_weights()[-1] - bias)))
            for source in case.sources
        ]
        assert result.self_fusion is None
        assert result.bound.first_loss == pytest.approx(np.mean(losses))
        assert result.terms.first_loss < result.bound.first_loss  # Jensen

    def test_equation_10_is_no_bound(self):
        """A source that is right on the batch adds to the flow, but not to Eq. 10."""

        def product(first, second):
            """x ↦ first · second · x."""
            layers = [FusableDense(1, use_bias=False, dtype="float64") for _ in range(2)]
            model = keras.Sequential([keras.Input((1,), dtype="float64"), *layers])
            model.set_weights([np.array([[first]]), np.array([[second]])])
            return model

        batch = np.ones((1, 1)), np.ones((1, 1))
        case = cases.make_case([product(4.0, 0.25), product(0.1, 0.1)], batch, cases.mean_square)
        result = theory.modified_loss(*case.arguments, h=1.0, loss=case.loss)
        assert result.terms.first_loss < result.bound.first_loss
        # By hand, with respect to θ_i: (1/4) ((4² + ¼²) + 2 · 0.1²) (2 · 0.495)²; Eq. 10 has
        # (1/4) 2 · 0.1² (2 · 0.99)².
        by_hand = 1 / 4 * (16.0625 + 0.02) * 0.99**2 / 4
        assert by_hand > 100 * result.bound.first_flatness
        assert result.bound.first_flatness == pytest.approx(1 / 4 * 0.02 * 1.98**2 / 4)
        assert result.terms.total > result.bound.total
