"""Lemmas 1 to 3 and Corollary 3 in self-fusion: every weight, every copy, n, version and norm."""

import itertools

import numpy as np
import pytest
from keras import ops

from keras_fusion.theory.bracket import self_fusion_blocks
from keras_fusion.theory.derivatives import combine
from tests.keras_fusion.theory import cases

pytestmark = pytest.mark.one_backend

KINDS = (*cases.VERSIONS, "dense")


def selfs():
    """Kind, n and norm. T5s are slow: modified_test.py compares the modified losses of one."""
    for kind, n, norm in itertools.product(KINDS, (2, 3), ("property", "rule")):
        marks = () if kind == "dense" else pytest.mark.slow
        yield pytest.param((kind, n, norm), marks=marks, id=f"{kind}-{n}-{norm}")


@pytest.fixture(scope="module", params=selfs())
def case(request):
    return cases.self_fused(*request.param)


@pytest.fixture(scope="module")
def small(case):
    """The derivatives of the small network, which know nothing of a fusion."""
    return next(cases.small(kind)[1] for kind in KINDS if cases.small(kind)[0] is case.sources[0])


@pytest.fixture(scope="module")
def small_gradient(small):
    """∇L_S(θ), in the order of the weights."""
    return cases.arrays(small.gradient(small.weights())[1])


@pytest.fixture(scope="module")
def point(case):
    return case.fields.at(case.fields.weights())


def paths(case):
    return [part.path for part in case.fields.partition.parts]


def factor(case, path):
    """c in w_i = c θ_i: AVG in the layer of the outputs, or in the norm below a tied head."""
    n = len(case.sources)
    if case.sources[0] is cases.small("v1.0")[0]:
        return n**-0.5 if path == "decoder/final_norm/scale" else 1.0
    last = "head" if case.sources[0] is cases.small("v1.1")[0] else case.fused.layers[-1].name
    return 1 / n if path == f"{last}/kernel" else 1.0


def blocks(array, shape):
    """The n or n² pieces of a fused array that have the small one's shape."""
    counts = [whole // part for whole, part in zip(array.shape, shape, strict=True)]
    pieces = [array]
    for dim, count in enumerate(counts):
        pieces = [part for piece in pieces for part in np.split(piece, count, axis=dim)]
    return pieces


def test_lemma_1_scaled_gradient(case, point, small_gradient):
    """c ∇_{w_i} L_B = ∇_{θ_i} L_B = ∇L_S / n, and the whole gradient for what is averaged."""
    n = len(case.sources)
    gradient = cases.arrays(case.fields.partition.theta(point.second))
    for path, fused, small in zip(paths(case), gradient, small_gradient, strict=True):
        pieces = blocks(fused, small.shape)
        expected = small if len(pieces) == 1 else small / (n * factor(case, path))
        diagonal = [piece for piece in pieces if len(pieces) <= n or np.any(piece)]
        for piece in diagonal:
            np.testing.assert_allclose(piece, expected, rtol=1e-9, atol=1e-13, err_msg=path)


def test_lemma_2_and_corollary_3_equal_blocks(case, point, small_gradient):
    """With η, all n² blocks have the gradient ∇L_S / n; for n = 2 half of it."""
    n, seen = len(case.sources), 0
    for path, fused, small in zip(
        paths(case), cases.arrays(point.second), small_gradient, strict=True
    ):
        pieces = blocks(fused, small.shape)
        if len(pieces) == n * n:
            seen += 1
            for piece in pieces:
                np.testing.assert_allclose(piece, small / n, rtol=1e-9, atol=1e-13, err_msg=path)
    assert seen == sum(part.has_eta for part in case.fields.partition.parts) > 0


@pytest.fixture(scope="module")
def bracket(case, point):
    return case.fields.bracket(point)


def test_lemma_3_zero_outside_eta(case, bracket):
    partition = case.fields.partition
    theta, eta = (cases.flat(part(bracket)) for part in (partition.theta, partition.eta))
    assert np.abs(theta).max() <= 1e-13 * np.abs(eta).max()
    assert np.abs(eta).max() > 1e-3


def test_lemma_3_factor(case, point, bracket, small_gradient):
    """The bracket is 1/n times the paper's last line (Σ_i ∇_{θ_i} ∇_η L_B) ∇L_S.

    So it is with respect to θ_i, and then for every weight. With respect to what the fused network
    holds, w_i = c θ_i, the factor is 1 / (n c). Derivatives along θ are differences between two
    points of N.
    """
    fields, n, step = case.fields, len(case.sources), 1e-5

    def eta(vector):
        return cases.flat(fields.partition.eta(vector))

    def cross(factors):
        """Σ_i ∇_{w_i} ∇_η L_B times `factors` ∇L_S."""
        along = [
            placed(part, small * scale, weight.shape)
            for part, small, weight, scale in zip(
                fields.partition.parts, small_gradient, point.weights, factors, strict=True
            )
        ]
        there, back = (
            eta(fields.at(combine((1.0, point.weights), (sign * step, along))).second)
            for sign in (1, -1)
        )
        return (there - back) / (2 * step)

    copies = [factor(case, part.path) for part in fields.partition.parts]
    averaged = [not part.positions for part in fields.partition.parts]
    fused = [1.0 if mean else 1 / (n * c) for c, mean in zip(copies, averaged, strict=True)]
    close(eta(bracket), cross(fused), 1e-6)

    # ∇_{θ_i} = c ∇_{w_i}; n copies of an averaged weight w = Σ θ_i / n each have 1/n of it.
    squares = [1 / n if mean else c**2 for c, mean in zip(copies, averaged, strict=True)]
    first = [square * slope for square, slope in zip(squares, point.first, strict=True)]
    close(eta(fields.second_product(point.weights, first)), cross(copies) / n, 1e-6)


def placed(part, array, shape):
    """`array` in every source's block, or as it is."""
    whole = np.zeros(shape)
    for position in part.positions or (...,):
        whole[position] = array
    return ops.convert_to_tensor(whole)


def close(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, atol=tolerance * np.abs(expected).max())


def test_bracket_is_the_small_networks_curvature(case, bracket, small):
    """(1/n) ∇²L_S D ∇L_S in every block of η: found from the small network alone."""
    partition, n = case.fields.partition, len(case.sources)
    predicted = self_fusion_blocks(partition, small)
    eta = partition.by_path(partition.eta(bracket))
    assert set(predicted) == {part.path for part in partition.parts if part.has_eta}
    largest = max(np.abs(block).max() for block in predicted.values())
    for path, block in predicted.items():
        for index, piece in enumerate(blocks(eta[path], block.shape)):
            expected = np.zeros_like(block) if index % (n + 1) == 0 else block
            np.testing.assert_allclose(piece, expected, atol=1e-10 * largest, err_msg=path)
