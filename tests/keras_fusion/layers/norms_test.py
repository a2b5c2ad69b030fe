"""Grouped norms: the fusion property keeps the function, the fusion rule the architecture."""

import keras
import numpy as np
import pytest

from keras_fusion.errors import FusionError
from keras_fusion.layers import FusableLayerNorm, FusableRMSNorm
from tests.keras_fusion.fusion_contract import built, numpy, random_inputs, run_fusion_test

NORMS = [FusableLayerNorm, FusableRMSNorm]
PEERS = {
    FusableLayerNorm: keras.layers.LayerNormalization,
    FusableRMSNorm: keras.layers.RMSNormalization,
}


def by_hand(norm, x, epsilon):
    """The norm's definition, in double precision, without its weights."""
    x = x.astype("float64")
    if isinstance(norm, FusableLayerNorm):
        x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + epsilon)


def pair(norm, widths, **kwargs):
    inputs = [random_inputs([(2, 5, width)], seed=width)[0] * width for width in widths]
    return [built(norm(**kwargs), [x], seed) for seed, x in enumerate(inputs)], inputs


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("widths", [pytest.param((4, 4), marks=pytest.mark.one_backend), (4, 3)])
def test_contract(norm, widths, tmp_path):
    run_fusion_test(
        norm,
        {"epsilon": 1e-5},
        tmp_path=tmp_path,
        input_shapes=[(2, 5, widths[0])],
        other_shapes=[(2, 5, widths[1])],
        keras_class=PEERS[norm],
        mismatch=({"epsilon": 1e-3}, "epsilon: 1e-05 vs 0.001"),
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("groups", [None, (6,), (3, 3), (2, 2, 2), (1, 3, 2)])
def test_groups_are_normalised_apart(norm, groups):
    x = random_inputs([(2, 5, 6)])[0] * np.arange(1, 7, dtype="float32")
    layer = norm(groups=groups, epsilon=1e-6)
    expected, start = [], 0
    for width in groups or (6,):
        expected.append(by_hand(layer, x[..., start : start + width], 1e-6))
        start += width
    np.testing.assert_allclose(numpy(layer(x)), np.concatenate(expected, -1), atol=2e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_property_keeps_the_groups_of_fused_sources(norm):
    (a, b, c), inputs = pair(norm, (4, 3, 2))
    staged = a.fuse(b).fuse(c)
    assert staged.groups == a.fuse(b, c).groups == (4, 3, 2)
    assert staged.blocks == {"input": (7, 2)}
    expected = [numpy(layer(x)) for layer, x in zip((a, b, c), inputs, strict=True)]
    np.testing.assert_allclose(
        numpy(staged(np.concatenate(inputs, -1))), np.concatenate(expected, -1), atol=1e-5
    )


@pytest.mark.parametrize("norm", NORMS)
def test_rule_makes_one_group(norm):
    (a, b), inputs = pair(norm, (4, 3), epsilon=1e-6)
    ruled = a.fuse(b, norm="rule")
    assert ruled.groups is None and a.fuse(b).fuse(b, norm="rule").groups is None
    together = np.concatenate(inputs, -1)
    weights = [weight.astype("float64") for weight in ruled.get_weights()]
    expected = by_hand(ruled, together, 1e-6) * weights[0] + (weights[1] if weights[1:] else 0)
    np.testing.assert_allclose(numpy(ruled(together)), expected, atol=1e-4)
    apart = np.concatenate([numpy(layer(x)) for layer, x in zip((a, b), inputs, strict=True)], -1)
    assert np.abs(numpy(ruled(together)) - apart).max() > 0.1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["rule", "property"])
@pytest.mark.one_backend
def test_equal_sources_keep_the_function_under_both(norm, kind):
    (a,), (x,) = pair(norm, (4,))
    twice = a.fuse(a, norm=kind, noise=0.1)
    np.testing.assert_allclose(numpy(twice(np.tile(x, 2))), np.tile(numpy(a(x)), 2), atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("groups", [None, (2, 2), (1, 3)])
def test_statistics_are_float32_whatever_the_policy(norm, groups):
    # 300² overflows float16, and 1 + 1/512 is lost in bfloat16.
    x = np.array([[300.0, -301.0, 299.0, 302.0]])
    half = norm(groups=groups, dtype="mixed_float16", epsilon=1e-6)
    wide = norm(groups=groups, epsilon=1e-6)
    np.testing.assert_allclose(
        numpy(half(x.astype("float16"))), numpy(wide(x.astype("float32"))), atol=2e-3
    )


@pytest.mark.parametrize("norm", NORMS)
def test_groups_must_add_up(norm):
    with pytest.raises(ValueError, match=r"4 units.*Received: groups=\(3, 2\)"):
        norm(groups=(3, 2)).build((None, 4))


@pytest.mark.parametrize("norm", NORMS)
def test_only_the_last_axis_can_be_fused(norm):
    layer = norm(axis=1)
    layer.build((None, 3, 4))
    with pytest.raises(FusionError, match="axis: a norm is fused along the last axis"):
        layer.fuse(layer)


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_that_does_not_grow_must_be_shared(norm):
    (a, b), _ = pair(norm, (4, 4))
    with pytest.raises(FusionError, match="no growing axis and must be equal in every source"):
        a.fuse(b, grow=())
    assert a.fuse(a, grow=(), noise=0.1).groups is None


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_layer_norm_does_not_stand_in_for_an_rms_norm():
    layer = FusableLayerNorm(rms_scaling=True)
    layer.build((None, 4))
    with pytest.raises(FusionError, match="rms_scaling: not fusable, use FusableRMSNorm"):
        layer.fuse(layer)


@pytest.mark.one_backend
def test_layer_norm_without_scale_or_center(tmp_path):
    run_fusion_test(
        FusableLayerNorm,
        {"center": False},
        tmp_path=tmp_path,
        input_shapes=[(2, 5, 4)],
        keras_class=keras.layers.LayerNormalization,
        mismatch=({"center": True}, "center: False vs True"),
    )
