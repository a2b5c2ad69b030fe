"""Fusing on a mesh: which source's file each device's part of a fused weight is read from.

With n sources and `model:n`, a device reads its own source only, wherever the layout splits an axis
that grows. That is every matrix inside the blocks under T5's rules, and under `hidden:model` every
weight but the two tables of the position bias. What has no such axis, or has it whole, holds parts
of all sources on every device: under T5's rules the norms' scales, the embedding and the head.
"""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("meshes are of the jax backend", allow_module_level=True)

import jax
from jax.sharding import NamedSharding, PartitionSpec

import keras_fusion as kf
from keras_fusion.layers.tree import values_of, weight_axes
from trainers.checkpoints import models, save
from trainers.engines.jax import JaxEngine
from trainers.engines.mesh import Layout
from trainers.engines.state import state_variables

CONFIG = kf.models.T5Config(
    vocabulary_size=16,
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    intermediate_dim=12,
    key_value_dim=4,
)
T5_RULES = "batch:batch,heads:model,mlp:model,vocab:model"
# Which weights a device reads from other sources' files, by layout.
CROSSING = {
    T5_RULES: ("norm/scale", "token_embedding/embeddings", "head/kernel"),
    "heads:model,mlp:model": ("norm/scale", "token_embedding/embeddings", "head/kernel"),
    "hidden:model": ("position_bias/table",),
}


class Recorded:
    """A source's array that notes when it is read."""

    def __init__(self, array, number, log):
        self._array, self._number, self._log = array, number, log
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        self._log.append(self._number)
        return self._array[index]


class Watched:
    """A fused array that notes which sources each region of it was computed from."""

    def __init__(self, fused, log):
        self._fused, self._log = fused, log
        self.shape, self.dtype = fused.shape, fused.dtype
        self.sources = {}

    def __getitem__(self, index):
        self._log.clear()
        value = self._fused[index]
        self.sources[_key(index, self.shape)] = set(self._log)
        return value


def _key(index, shape):
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Four of random numbers."""
    folder = tmp_path_factory.mktemp("sources")
    skeleton = kf.models.T5.skeleton(CONFIG)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        weights = {
            name: rng.normal(size=variable.shape).astype("float32")
            for name, variable in state_variables(skeleton).items()
            if name.startswith("model/")
        }
        settings = {"settings": {"model": CONFIG.to_dict()}}
        save(folder / str(seed) / "checkpoints", 0, weights, settings)
    return [models.find_checkpoint(folder / str(seed)) for seed in range(4)]


def watched_weights(checkpoints):
    """The fused configuration, and its weights that note what they are read from."""
    log = []
    sources = [
        {path: Recorded(array, number, log) for path, array in checkpoint.weights.items()}
        for number, checkpoint in enumerate(checkpoints)
    ]
    config, weights = kf.models.fused_weights([CONFIG] * len(sources), sources)
    return config, {path: Watched(fused, log) for path, fused in weights.items()}


def crossing(weights, shardings, devices):
    """Paths of the weights of which some device's part was read from another device's source."""
    paths = set()
    for path, array in weights.items():
        parts = shardings[path].addressable_devices_indices_map(array.shape)
        sources = {device: array.sources[_key(part, array.shape)] for device, part in parts.items()}
        assert set.union(*sources.values()) == set(range(len(devices))), path
        if any(sources[device] - {number} for number, device in enumerate(devices)):
            paths.add(path)
    return paths


def expected_crossing(weights, layout):
    return {path for path in weights if path.endswith(CROSSING[layout])}


@pytest.mark.parametrize(("layout", "count"), [*zip(CROSSING, (2, 4, 4), strict=True)])
def test_arrays_made_slice_by_slice(checkpoints, layout, count):
    """Without an engine: what JAX asks for when it makes an array from a callback."""
    config, weights = watched_weights(checkpoints[:count])
    mesh = jax.make_mesh((count,), ("model",), devices=jax.devices()[:count])
    rules = Layout.parse(layout).restricted(dims=("model",))
    axes = weight_axes(kf.models.T5.skeleton(config))
    shardings = {
        path: NamedSharding(mesh, PartitionSpec(*map(rules.dim, axes[path].names)))
        for path in weights
    }
    sources = [
        kf.models.T5.from_weights(CONFIG, checkpoint.weights) for checkpoint in checkpoints[:count]
    ]
    (expected,) = values_of([sources[0].fuse(*sources[1:])])
    for path, array in weights.items():
        made = jax.make_array_from_callback(array.shape, shardings[path], array.__getitem__)
        np.testing.assert_array_equal(made, expected[path])
    devices = list(mesh.devices.flat)
    assert crossing(weights, shardings, devices) == expected_crossing(weights, layout)


@pytest.mark.parametrize("layout", CROSSING)
def test_the_engine(checkpoints, layout):
    config, weights = watched_weights(checkpoints[:2])
    engine = JaxEngine("model:2", layout)
    with engine.scope():
        model = kf.models.T5.from_weights(config, weights, seed=0)
        optimizer = keras.optimizers.SGD(0.1)
    engine.compile(model, optimizer)
    assert not any(array.sources for array in weights.values())
    state = engine.state()
    shardings = {path: engine.shardings[f"model/{path}"] for path in weights}
    devices = list(engine.mesh.devices.flat)
    assert crossing(weights, shardings, devices) == expected_crossing(weights, layout)
    # The same bits as fusing in memory, seeds included.
    a, b = (kf.models.T5.from_weights(CONFIG, checkpoint.weights) for checkpoint in checkpoints[:2])
    for name, variable in state_variables(a.fuse(b)).items():
        np.testing.assert_array_equal(state[name], variable, err_msg=name)


def test_a_device_reads_no_more_than_its_part_of_what_all_share(checkpoints):
    """The vocabulary is split, so of each source's table a device reads 1/n of the rows."""
    rows = {}

    class Rows(Recorded):
        def __getitem__(self, index):
            rows.setdefault(self._number, []).append(range(16)[index[0]])
            return self._array[index]

    path = "token_embedding/embeddings"
    sources = [
        dict(checkpoint.weights) | {path: Rows(checkpoint.weights[path], n, [])}
        for n, checkpoint in enumerate(checkpoints)
    ]
    config, weights = kf.models.fused_weights([CONFIG] * 4, sources)
    rows.clear()  # What was read to compare the sources with one another.
    array = weights[path]
    mesh = jax.make_mesh((4,), ("model",), devices=jax.devices()[:4])
    sharding = NamedSharding(mesh, PartitionSpec("model", None))
    jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
    parts = [range(start, start + 4) for start in range(0, 16, 4)]
    assert {number: sorted(read, key=min) for number, read in rows.items()} == dict.fromkeys(
        range(4), parts
    )
