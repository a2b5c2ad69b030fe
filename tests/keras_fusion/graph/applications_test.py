"""The networks of `keras.applications` fuse: with themselves, and along some layers only."""

import keras
import numpy as np
import pytest

import keras_fusion as kf
from tests.keras_fusion.fusion_contract import numpy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::keras_fusion.errors.SymmetryWarning"),
]
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")


def application(name, seed=0):
    """A network of ten classes whose statistics and scales are not all alike."""
    keras.utils.set_random_seed(seed)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1 and "normalization" not in weight.path.split("/")[0]:
            weight.assign(numpy(weight) + rng.uniform(0.0, 0.2, weight.shape))
    return model


def assert_close(result, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result / scale, expected / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "EfficientNetB0"])
def test_a_network_with_itself(name):
    model = application(name)
    assert_close(numpy(kf.self_fuse(model, 2, check=False)(IMAGES)), numpy(model(IMAGES)))


def test_two_networks():
    sources = [application("MobileNetV2", seed) for seed in range(2)]
    mean = np.mean([numpy(source(IMAGES)) for source in sources], 0)
    assert_close(numpy(kf.fuse(sources)(IMAGES)), mean)


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2"])
def test_the_inner_layers_of_its_blocks_grow(name):
    model = application(name)
    grown = kf.grow(model, mlp=2, noise=0.1, check=False)
    assert grown.count_params() > 1.5 * model.count_params()
    assert_close(numpy(grown(IMAGES)), numpy(model(IMAGES)))
