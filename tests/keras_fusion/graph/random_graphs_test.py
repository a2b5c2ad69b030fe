"""Random graphs fuse to the mean of their sources, or a FusionError names what is in the way."""

import re

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_fusion as kf
from tests.keras_fusion.graph.random_graphs import Network
from tests.keras_fusion.precision import double_precision

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has no float64 by default"
)

numbers = st.integers(0, 10_000)
instructions = st.tuples(numbers, numbers, numbers)
programs = st.lists(instructions, min_size=2, max_size=9)
widths = st.lists(st.integers(1, 4), min_size=2, max_size=4)
RNG = np.random.default_rng(0)
BATCH = [RNG.normal(size=(2, *shape)) for shape in ((5,), (4, 3), (6, 6, 2))]


@pytest.fixture(autouse=True)
def float64():
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    with double_precision():
        yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_floatx(before[1])


def outputs(model):
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(model(BATCH))]


def fuses_to_the_mean(program, sizes, heads):
    """Fuses the sources of a program; a refusal has to name a layer or an operation."""
    sources = [Network(program, width).model(heads, seed) for seed, width in enumerate(sizes)]
    try:
        fused = kf.fuse(sources, average="outputs", check=False)
    except kf.FusionError as error:
        assert re.search(r"(layer|operation) `\w+`", str(error)), error
        return False
    for result, *expected in zip(outputs(fused), *map(outputs, sources), strict=True):
        mean = np.mean(expected, axis=0)
        scale = max(1.0, np.abs(mean).max())
        np.testing.assert_allclose(result / scale, mean / scale, rtol=0, atol=1e-9)
    return True


def test_random_graphs():
    """Most fuse: a generator whose graphs were all refused would show nothing."""
    rng = np.random.default_rng(1)
    fused = []
    for heads in (1, 2) * 12:
        # Building a model is what takes time: these are small.
        program = rng.integers(0, 10_000, (rng.integers(2, 6), 3)).tolist()
        fused.append(fuses_to_the_mean(program, rng.integers(1, 5, 2).tolist(), heads))
    assert sum(fused) >= 18


@pytest.mark.slow
@settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(programs, widths, st.integers(1, 2))
def test_many_random_graphs(program, sizes, heads):
    fuses_to_the_mean(program, sizes, heads)
