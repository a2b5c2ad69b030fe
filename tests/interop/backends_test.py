"""Files and fusions of one backend are those of the others; fused models train in torch's loop."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_fusion as kf
from tests.interop.writer import INPUTS, OPTIONS, outputs, source
from tests.makefile import ROOT


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def folder(request, tmp_path_factory):
    """A folder that a process with another backend wrote."""
    path = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "tests.interop.writer", str(path)]
    environment = os.environ | {"KERAS_BACKEND": request.param}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return path


@pytest.mark.parametrize("kind", INPUTS)
def test_a_fused_model_of_another_backend_loads_and_computes_the_same(folder, kind):
    fused = keras.saving.load_model(folder / f"{kind}.keras")
    expected = np.load(folder / f"{kind}.npy")
    np.testing.assert_allclose(outputs(fused, kind), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", INPUTS)
def test_sources_of_another_backend_fuse_to_the_same_weights(folder, kind):
    sources = [keras.saving.load_model(folder / f"{kind}_{seed}.keras") for seed in range(2)]
    fused = kf.fuse(sources, **OPTIONS[kind])
    expected = keras.saving.load_model(folder / f"{kind}.keras")
    assert fused.count_params() > max(source.count_params() for source in sources)
    for weight, reference in zip(fused.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, reference)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="about torch's parameters")
@pytest.mark.parametrize("kind", INPUTS)
def test_a_fused_model_trains_in_a_loop_of_torch(kind):
    import torch

    fused = kf.fuse([source(kind, seed) for seed in range(2)], **OPTIONS[kind])
    parameters = {id(parameter) for parameter in fused.parameters()}
    assert {id(variable.value) for variable in fused.trainable_variables} <= parameters
    optimizer = torch.optim.SGD(fused.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.mean(torch.square(fused(INPUTS[kind], training=False)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
