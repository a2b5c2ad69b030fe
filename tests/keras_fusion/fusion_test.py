"""`kf.fuse` hands models of the library to their own `fuse`, and graphs to `graph.fusing`."""

import keras
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion import _keras
from keras_fusion.errors import FusionError
from tests.keras_fusion.models import tiny

SLOW_V1_1 = pytest.param(tiny.V1_1, marks=pytest.mark.slow)
SLOW_V1_0 = pytest.param(tiny.V1_0, marks=pytest.mark.slow)


@pytest.mark.one_backend
def test_fuse_takes_models_of_the_library():
    a, b = tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1)
    inputs = tiny.batch()
    fused = kf.fuse([a, b], norm="rule", noise=0.1, seed=3)
    same = a.fuse(b, norm="rule", noise=0.1, seed=3)
    np.testing.assert_array_equal(tiny.logits(fused, inputs), tiny.logits(same, inputs))
    with pytest.raises(FusionError, match="received 1"):
        kf.fuse([a])
    with pytest.raises(FusionError, match="outputs: a T5 is fused without this option"):
        kf.fuse([a, b], outputs="concat")


@pytest.mark.parametrize("version", [tiny.V1_1, tiny.V1_0])
@pytest.mark.one_backend
def test_weights_of_the_mean_of_t5s(version):
    sources = [tiny.shared(0, num_layers=1, **version), tiny.shared(1, num_layers=1, **version)]
    inputs = tiny.batch()
    expected = sum(
        weight * tiny.logits(source, inputs)
        for weight, source in zip((0.7, 0.3), sources, strict=True)
    )
    fused = kf.fuse(sources, weights=[0.7, 0.3])
    assert tiny.relative_gap(tiny.logits(fused, inputs), expected) < 1e-5
    with pytest.raises(FusionError, match="weights must add up to 1"):
        kf.fuse(sources, weights=[0.7, 0.7])


@pytest.mark.parametrize("version", [tiny.V1_1, tiny.V1_0])
@pytest.mark.one_backend
def test_copies_of_a_t5_leave_no_zeros(version):
    model = tiny.shared(0, num_layers=1, **version)
    fused = kf.self_fuse(model, 2, fill="copies", asymmetry=0.2)
    inputs = tiny.batch()
    assert tiny.relative_gap(tiny.logits(fused, inputs), tiny.logits(model, inputs)) < 1e-5
    query = fused.encoder.blocks[0].self_attention.query.kernel.numpy()
    assert np.all(query) and not np.allclose(query[:8], query[8:])
    with pytest.raises(FusionError, match="takes one network several times. Received: 2 networks"):
        kf.fuse([model, tiny.shared(1, num_layers=1, **version)], fill="copies")


@pytest.mark.parametrize(
    ("factors", "sizes"),
    [
        ({"mlp": 2}, (8, 2, 24)),
        ({"heads": 3, "mlp": 2}, (8, 6, 24)),
        ({"hidden": 2}, (16, 2, 12)),
    ],
)
@pytest.mark.parametrize("version", [SLOW_V1_1, tiny.V1_0])
@pytest.mark.one_backend
def test_a_t5_grows_along_some_axes(factors, sizes, version):
    model = tiny.shared(0, num_layers=1, **version)
    grown = kf.grow(model, **factors, noise=0.3)
    config = grown.config
    assert (config.hidden_dim, config.num_heads, config.intermediate_dim) == sizes
    assert config.norm_groups is None and set(config.blocks) <= set(factors)
    inputs = tiny.batch()
    assert tiny.relative_gap(tiny.logits(grown, inputs), tiny.logits(model, inputs)) < 1e-4
    assert kf.symmetry(grown) > 0


@pytest.mark.one_backend
def test_a_fused_t5_keeps_its_groups_when_it_grows():
    fused = kf.fuse([tiny.shared(0, num_layers=1), tiny.shared(1, num_layers=1)])
    grown = kf.grow(fused, mlp=2, noise=0.1)
    inputs = tiny.batch()
    assert grown.config.norm_groups == (8, 8)
    assert tiny.relative_gap(tiny.logits(grown, inputs), tiny.logits(fused, inputs)) < 1e-4
    with pytest.raises(FusionError, match="units: a T5 grows along heads, hidden, mlp"):
        kf.grow(fused, units=2)


@pytest.mark.parametrize("version", [tiny.V1_1, SLOW_V1_0])
@pytest.mark.one_backend
def test_a_compiled_t5_keeps_its_optimizers_state(version):
    """Fused with itself, it takes the step that it would have taken alone."""
    model = tiny.model(0, num_layers=1, **version)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    inputs = tiny.batch()
    targets = tiny.logits(model, inputs) + 1.0
    for _ in range(3):
        model.train_on_batch(inputs, targets)
    with pytest.warns(kf.SymmetryWarning):
        fused = kf.self_fuse(model, 2, norm="rule", optimizer="grow")
    assert int(fused.optimizer.iterations) == 3
    moments = [_keras.adam_slots(m.optimizer, m.weights[0])[0] for m in (model, fused)]
    small, big = map(keras.ops.convert_to_numpy, moments)
    # Each copy has half of the gradient.
    np.testing.assert_allclose(big, np.concatenate([small, small], 1) / 2, rtol=1e-5)
