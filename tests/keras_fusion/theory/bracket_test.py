"""`lie_bracket`'s result, and Corollary 2."""

import numpy as np
import pytest
from keras import ops

from keras_fusion import theory
from keras_fusion.errors import FusionError
from tests.keras_fusion.theory import cases

pytestmark = pytest.mark.one_backend


class TestLieBracket:
    def test_parts_and_norms(self):
        case = cases.noisy_dense()
        fields = case.fields
        bracket = theory.lie_bracket(*case.arguments, case.loss)
        expected = fields.partition.by_path(fields.bracket(fields.at(fields.weights())))
        assert list(bracket.values) == [part.path for part in fields.partition.parts]
        for path, array in bracket.values.items():
            np.testing.assert_allclose(array, expected[path], rtol=1e-12)
            if path in bracket.eta:
                assert not np.any(bracket.theta[path] * bracket.eta[path])
        whole = np.sqrt(sum(np.sum(array**2) for array in expected.values()))
        assert bracket.norm == pytest.approx(whole)
        assert bracket.eta_share == pytest.approx(bracket.eta_norm**2 / whole**2)
        theta, eta = zip(*bracket.norms.values(), strict=True)
        assert np.linalg.norm(theta) == pytest.approx(bracket.theta_norm)
        assert np.linalg.norm(eta) == pytest.approx(bracket.eta_norm)

    def test_keeps_the_weights(self):
        case = cases.fused_dense()
        before = case.fused.get_weights()
        theory.lie_bracket(*case.arguments, case.loss)
        for old, new in zip(before, case.fused.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_right_after_a_self_fusion(self):
        case = cases.self_fused("dense", 2, "property")
        bracket = theory.lie_bracket(*case.arguments, case.loss)
        assert (bracket.theta_norm, bracket.eta_share) == (pytest.approx(0, abs=1e-13), 1)
        blocks = theory.self_fusion_bracket(*case.arguments, case.loss)
        # Two copies: two blocks of η, both what the small network predicts.
        squares = sum(2 * np.sum(block**2) for block in blocks.values())
        assert bracket.norm == pytest.approx(np.sqrt(squares))

    def test_sources_that_are_not_one_network(self):
        with pytest.raises(FusionError, match="one network, once for every copy. Received: "):
            theory.self_fusion_bracket(*cases.fused_dense().arguments)


class TestCorollary2:
    """Targets that a step of size ε away from the outputs: ∇L_S is in proportion to ε."""

    @pytest.mark.parametrize(("n", "norm"), [(2, "property"), (3, "rule")])
    def test_the_bracket_vanishes_with_the_gradient(self, n, norm):
        small, _ = cases.small("dense")
        inputs, targets = cases.dense_batch()
        outputs = ops.convert_to_numpy(small(inputs))
        gradients, brackets = [], []
        for distance in (0.0, 1e-4, 1e-2):
            near = outputs + distance * (targets - outputs)
            case = cases.make_case([small] * n, (inputs, near), cases.mean_square, norm=norm)
            fields = case.fields
            point = fields.at(fields.weights())
            gradients.append(np.linalg.norm(cases.flat(point.first)))
            brackets.append(np.linalg.norm(cases.flat(fields.bracket(point))))
        assert brackets[0] <= 1e-13
        slopes = np.diff(np.log(brackets[1:])) / np.diff(np.log(gradients[1:]))
        np.testing.assert_allclose(slopes, 1, atol=0.03)

    @pytest.mark.slow
    def test_t5_at_a_minimum(self):
        """Soft targets that are the network's own probabilities: ∇L_S = 0."""
        small, _ = cases.small("v1.0")
        batch = cases.t5_batch()
        inputs = {name: value for name, value in batch.items() if name != "targets"}
        batch["targets"] = ops.convert_to_numpy(ops.softmax(small(inputs)))

        def cross_entropy(targets, logits):
            return -ops.mean(ops.sum(targets * ops.log_softmax(logits), axis=-1))

        case = cases.make_case([small] * 2, batch, cross_entropy)
        assert case.fields.at(case.fields.weights()).first_loss > 1
        assert theory.lie_bracket(*case.arguments, cross_entropy).norm < 1e-12
