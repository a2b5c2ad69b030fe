"""θ and η of fused weights: against numpy slices, and what does not fit."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_fusion as kf
from keras_fusion.errors import FusionError
from keras_fusion.layers import FusableDense, FusableEmbedding, FusableMultiHeadAttention
from keras_fusion.measures import diagonal_blocks
from keras_fusion.theory.partition import Partition
from tests.keras_fusion.theory import cases

pytestmark = pytest.mark.one_backend

KERNEL = "encoder/block_0/feed_forward/input_projector/kernel"


def partition_of(case):
    return case.fields.partition


class TestPartition:
    def test_unequal_blocks_by_hand(self):
        case = cases.noisy_dense()
        partition = partition_of(case)
        index = 2  # The second kernel: (3 + 2) inputs, (4 + 3) outputs.
        kernel = case.fused.get_weights()[index]
        expected = np.zeros((5, 7))
        expected[:3, :4], expected[3:, 4:] = kernel[:3, :4], kernel[3:, 4:]
        weights = case.fields.weights()
        np.testing.assert_array_equal(partition.theta(weights)[index], expected)
        np.testing.assert_array_equal(partition.eta(weights)[index], kernel - expected)

    def test_theta_is_what_the_monitor_of_symmetry_compares(self):
        case = cases.self_fused("v1.1", 3, "property")
        ones = [ops.ones_like(weight) for weight in case.fields.weights()]
        theta = case.fields.partition.by_path(partition_of(case).theta(ones))
        blocks = diagonal_blocks(case.fused)
        assert set(blocks) == set(theta)
        for path, sources in blocks.items():
            assert theta[path].sum() == sum(block.size for block in sources)

    @pytest.mark.parametrize("version", cases.VERSIONS)
    def test_sources_are_read_back(self, version):
        sources = [cases.t5(0, version), cases.t5(1, version, hidden_dim=6, num_heads=3)]
        case = cases.make_case(sources, cases.t5_batch(), noise=0.3)
        for index, source in enumerate(sources):
            arrays = partition_of(case).source_weights(case.fields.weights(), index)
            for array, variable in zip(arrays, source.trainable_variables, strict=True):
                np.testing.assert_allclose(array, ops.convert_to_numpy(variable), rtol=1e-12)

    @pytest.mark.parametrize("version", cases.VERSIONS)
    def test_what_fusing_scales(self, version):
        parts = partition_of(cases.self_fused(version, 3, "property")).parts
        scaled = {part.path: part.factors for part in parts if set(part.factors) != {1.0}}
        ((path, factors),) = scaled.items()
        expected = {"v1.1": ("head/kernel", 1 / 3), "v1.0": ("decoder/final_norm/scale", 3**-0.5)}
        assert (path, factors[2]) == (expected[version][0], pytest.approx(expected[version][1]))

    def test_layers_inside_a_layer(self):
        """Attention's projections write down no blocks of their own; the shapes tell."""
        tokens = keras.Input((3,), dtype="int32")
        embedded = FusableEmbedding(5, 4)(tokens)
        attended = FusableMultiHeadAttention(2, 3, use_bias=False)(embedded, embedded)
        small = keras.Model(tokens, FusableDense(2)(attended))
        partition = Partition(kf.fuse([small, small], noise=0.1), [small, small])
        assert [part.has_eta for part in partition.parts] == [False, *[True] * 4, False, False]

    def test_a_mean_has_no_blocks(self):
        bias = partition_of(cases.fused_dense()).parts[-1]
        assert (bias.positions, bias.factors, bias.has_eta) == ((), (), False)


class TestMismatches:
    def test_a_network_that_is_not_fused(self):
        small = cases.t5()
        with pytest.raises(FusionError, match="is about a fused network. Received: `"):
            Partition(small, [small, small])

    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few_sources(self, count):
        case = cases.self_fused("v1.1", 2, "property")
        with pytest.raises(FusionError, match=f"once for every copy. Received: {count} sources"):
            Partition(case.fused, case.sources[:1] * count)

    def test_another_number_of_sources(self):
        case = cases.self_fused("v1.1", 2, "property")
        with pytest.raises(FusionError, match=r"of shape \(16, 8\) was fused from .* Received: "):
            Partition(case.fused, case.sources[:1] * 3)

    def test_sources_in_another_order(self):
        case = cases.fused_dense()
        with pytest.raises(FusionError, match=r"`first/kernel` .*\(3, 2\)}. Received: sources"):
            Partition(case.fused, case.sources[::-1])

    def test_a_source_of_another_depth(self):
        case = cases.self_fused("v1.1", 2, "property")
        with pytest.raises(FusionError, match=r"Received: 2 sources, numbers of weights \[29, 29,"):
            Partition(case.fused, [case.sources[0], cases.t5(num_layers=2)])
