"""Measures of a fusion: how far copies have parted, and by how much the loss moved."""

import math

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.errors import FusionError
from keras_fusion.layers import FusableDense
from keras_fusion.measures import diagonal_blocks
from tests.keras_fusion.models import tiny


def dense(kernel):
    kernel = np.array(kernel, "float32")
    layer = FusableDense(kernel.shape[1], use_bias=False)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel])
    return layer


@pytest.mark.one_backend
class TestSymmetry:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ([[1.0]], [[1.0]], 0.0),
            ([[1.0]], [[-1.0]], 2.0),
            ([[1.0, 0.0]], [[0.0, 1.0]], math.sqrt(2)),
            # Difference 2; mean square of a block (1 + 9) / 2.
            ([[1.0]], [[3.0]], 2 / math.sqrt(5)),
        ],
    )
    @pytest.mark.filterwarnings("ignore::keras_fusion.errors.SymmetryWarning")
    def test_by_hand(self, a, b, expected):
        assert kf.symmetry(dense(a).fuse(dense(b))) == pytest.approx(expected)

    def test_three_copies_by_hand(self):
        # Squared differences 1, 1 and 4, mean 2; mean square of a block 14 / 3.
        fused = dense([[1.0]]).fuse(dense([[2.0]]), dense([[3.0]]))
        assert kf.symmetry(fused) == pytest.approx(math.sqrt(2 / (14 / 3)))

    def test_zero_blocks_do_not_count(self):
        fused = dense([[1.0]]).fuse(dense([[1.0]]), noise=0.5)
        assert kf.symmetry(fused) == 0

    def test_unrelated_networks(self):
        a, b, rng = tiny.model(0), tiny.model(1), np.random.default_rng(0)
        for weight in (*a.weights, *b.weights):
            if len(weight.shape) == 1:
                weight.assign(rng.normal(size=weight.shape))
        assert kf.symmetry(a.fuse(b)) == pytest.approx(math.sqrt(2), rel=0.1)

    def test_networks_without_copies(self):
        with pytest.raises(FusionError, match="equal widths. Received: `"):
            kf.symmetry(tiny.model(num_layers=1))
        with pytest.raises(FusionError, match="equal widths. Received: `"):
            kf.symmetry(dense([[1.0]]).fuse(dense([[1.0, 2.0], [2.0, 3.0]])))


@pytest.mark.one_backend
def test_diagonal_blocks_are_the_sources():
    a, b = tiny.model(0, num_layers=1), tiny.model(1, num_layers=1, hidden_dim=6)
    blocks = diagonal_blocks(a.fuse(b))
    assert len(blocks) == len(a.weights)
    path = "encoder/block_0/self_attention/query/kernel"
    for block, source in zip(blocks[path], (a, b), strict=True):
        kernel = source.encoder.blocks[0].self_attention.query.kernel
        np.testing.assert_array_equal(block, np.asarray(kernel))


@pytest.mark.one_backend
class TestFusionGap:
    def test_by_hand(self):
        class Constant:
            """Two classes, the logit of class 1 above that of class 0 by a constant."""

            def __init__(self, logit):
                self.logit = logit

            def __call__(self, inputs, training):
                assert training is False and set(inputs) == {"x"}
                return np.full((1, 3, 2), [0.0, self.logit], "float32")

        # The third target is padding.
        batch = {"x": np.zeros((1, 3)), "targets": np.array([[1, 1, 0]])}
        gap = kf.fusion_gap(Constant(3.0), [Constant(0.0), Constant(4.0)], batch)

        def loss(logit):
            return math.log(1 + math.exp(-logit))

        assert gap.sources == pytest.approx((loss(0), loss(4)), rel=1e-5)
        assert gap.mean == pytest.approx(loss(2), rel=1e-5)
        assert gap.fused == pytest.approx(loss(3), rel=1e-5)
        assert gap.logits == pytest.approx(0.5)
        assert str(gap) == (
            "loss 0.1269 as the mean of 2 sources, 0.0486 fused (-0.0783, -61.72 %)"
        )
