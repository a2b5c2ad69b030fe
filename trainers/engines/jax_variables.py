"""Variables of Keras on JAX that get their values late, and shard by shard.

`place` makes an array on a mesh from slices of whatever holds it.
"""

import copy
from collections.abc import Callable, Iterable

import jax
import keras
import numpy as np

from keras_fusion import _keras


def place(value, dtype, sharding: jax.sharding.Sharding) -> jax.Array:
    """Makes an array on a mesh, reading from `value` only the slices that devices here hold.

    Args:
        value: array-like with shape and slicing: a memory-mapped file, a lazily fused array.
        dtype: of the new array.
        sharding: where each slice goes. At most one slice is held besides.
    """
    if isinstance(value, jax.Array):
        if sharding.is_fully_addressable or not value.is_fully_addressable:
            return jax.device_put(value.astype(dtype), sharding)
        # Every host has all of it; JAX would compare them, and then give no shard out.
        value = np.asarray(value)
    shape = tuple(value.shape)
    holders: dict[tuple, tuple] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        key = tuple(part.indices(size) for part, size in zip(index, shape, strict=True))
        holders.setdefault(key, (index, []))[1].append(device)
    shards = []
    for index, devices in holders.values():
        part = np.asarray(value[index], dtype=dtype)
        # On the CPU a device would hold numpy's own memory, and give it away in a step.
        shards += [jax.device_put(part, device, may_alias=False) for device in devices]
        jax.block_until_ready(shards)
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


class Window:
    """An array of which one run of an axis is at hand, to be sliced as if it were whole.

    Args:
        array: what is at hand.
        shape: of the whole.
        axis: the axis.
        start: where the run begins on it.
    """

    def __init__(self, array: np.ndarray, shape: tuple[int, ...], axis: int, start: int):
        self.shape = shape
        self._array, self._axis, self._start = array, axis, start

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        first, last, _ = index[self._axis].indices(self.shape[self._axis])
        inside = slice(first - self._start, last - self._start)
        return self._array[(*index[: self._axis], inside, *index[self._axis + 1 :])]


def initialize(pairs: Iterable[tuple]) -> None:
    """Gives variables the values that they begin with, each shard where it belongs.

    A variable that has a value keeps it. An initializer with an `array` is read slice by slice, any
    other runs in a compiled function, whose values do not depend on the mesh.

    Args:
        pairs: (Keras variable, with a value or not yet; its sharding).
    """
    draws: dict[tuple, Callable] = {}
    for variable, sharding in pairs:
        source = _keras.value_of(variable)
        if source is None:
            source = getattr(_keras.initializer_of(variable), "array", None)
        if source is None:
            value = _draw(draws, variable, sharding)
        else:
            value = place(source, variable.dtype, sharding)
        _keras.set_value(variable, value)


def _draw(compiled: dict, variable, sharding) -> jax.Array:
    """Returns the value of an initializer; compiled once for all seeds."""
    initializer, shape, dtype = _keras.initializer_of(variable), variable.shape, variable.dtype
    seed = getattr(initializer, "seed", 0)
    if not isinstance(initializer, keras.initializers.Initializer) or not isinstance(seed, int):
        # A function, as that of a seed generator, or one that draws from a generator's state.
        return place(initializer(shape, dtype=dtype), dtype, sharding)

    def draw(key):
        seeded = copy.copy(initializer)
        seeded.seed = key
        return seeded(shape, dtype=dtype)

    config = {name: value for name, value in initializer.get_config().items() if name != "seed"}
    plain = all(isinstance(value, str | int | float | None) for value in config.values())
    settings = str(config) if plain else id(initializer)
    kind = (type(initializer), settings, shape, dtype, sharding)
    if kind not in compiled:
        compiled[kind] = jax.jit(draw, out_shardings=sharding)
    # What `keras.random` makes of an integer.
    return compiled[kind](np.array([seed % 2**32, 0], np.uint32))
