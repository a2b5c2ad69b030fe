"""The callback logs how the copies of a fused model part, and refuses other models."""

import keras
import numpy as np
import pytest

import keras_fusion as kf
from tests.keras_fusion.fusion_contract import EAGERLY


def network(seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse", run_eagerly=EAGERLY)
    return model


def test_symmetry_and_eta_are_logged_in_fit():
    fused = kf.self_fuse(network(), 2, noise=0.1)
    assert kf.eta_share(fused) == pytest.approx(0.1, rel=0.3)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    history = fused.fit(
        x, np.sin(x[:, :2]), epochs=3, verbose=0, callbacks=[kf.callbacks.FusionMonitor()]
    ).history
    assert history["symmetry"][2] == pytest.approx(kf.symmetry(fused))
    assert history["symmetry"][2] > history["symmetry"][0] > 0
    assert history["eta_share"][2] == pytest.approx(kf.eta_share(fused))


def test_a_model_that_no_fusion_made():
    with pytest.raises(kf.FusionError, match="symmetry compares the copies of a fused network"):
        network().fit(
            np.zeros((4, 4)),
            np.zeros((4, 2)),
            verbose=0,
            callbacks=[kf.callbacks.FusionMonitor()],
        )
