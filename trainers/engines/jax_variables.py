"""Variables of Keras on JAX that get their values late, and shard by shard.

Inside `deferred()` a model or an optimizer can be built at any size: a variable keeps its
initializer and has no value. `place` makes an array on a mesh from slices of whatever holds it.
"""

import contextlib
import contextvars
import copy
from collections.abc import Callable, Sequence

import jax
import keras
import numpy as np

_DEFER = contextvars.ContextVar("trainers_defer_variables", default=False)


@contextlib.contextmanager
def deferred():
    """Context in which variables are created without values; of this thread alone.

    Not `keras.StatelessScope`: in it no weight can be assigned, and no optimizer created. A
    variable that is read before it has a value gives that of its initializer.
    """
    token = _DEFER.set(True)
    try:
        yield
    finally:
        _DEFER.reset(token)


_initialize = keras.Variable._initialize_with_initializer


def _initialize_or_defer(self, initializer):
    if _DEFER.get():
        # As in a variable that is created in a `keras.StatelessScope`.
        self._value, self._initializer = None, initializer
    else:
        _initialize(self, initializer)


keras.Variable._initialize_with_initializer = _initialize_or_defer


def place(value, dtype, sharding: jax.sharding.Sharding) -> jax.Array:
    """Makes an array on a mesh, reading from `value` only the slices that devices here hold.

    Args:
        value: array-like with shape and slicing: a memory-mapped file, a lazily fused array.
        dtype: of the new array.
        sharding: where each slice goes. At most one slice is held besides.
    """
    if isinstance(value, jax.Array):
        return jax.device_put(value.astype(dtype), sharding)
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


def initialize(variables: Sequence, shardings: Sequence) -> None:
    """Gives variables the values that they begin with, each shard where it belongs.

    A variable that has a value keeps it. An initializer with an `array` is read slice by slice, any
    other runs in a compiled function, whose values do not depend on the mesh.

    Args:
        variables: Keras variables, created in `deferred()` or not.
        shardings: one for each.
    """
    draws: dict[tuple, Callable] = {}
    for variable, sharding in zip(variables, shardings, strict=True):
        source = variable._value
        if source is None:
            source = getattr(variable._initializer, "array", None)
        if source is None:
            variable._value = _draw(draws, variable, sharding)
        else:
            variable._value = place(source, variable._dtype, sharding)
        variable._initializer = None


def _draw(compiled: dict, variable, sharding) -> jax.Array:
    """The value of an initializer; those that differ in the seed alone are compiled once."""
    initializer, shape, dtype = variable._initializer, variable._shape, variable._dtype
    seed = getattr(initializer, "seed", 0)
    if not isinstance(initializer, keras.initializers.Initializer) or not isinstance(seed, int):
        # A function, as that of a seed generator, or one that draws from a generator's state.
        return jax.device_put(initializer(shape, dtype=dtype), sharding)

    def draw(key):
        seeded = copy.copy(initializer)
        seeded.seed = key
        return seeded(shape, dtype=dtype)

    config = {name: value for name, value in initializer.get_config().items() if name != "seed"}
    plain = all(isinstance(value, str | int | float | None) for value in config.values())
    which = str(config) if plain else id(initializer)
    kind = (type(initializer), which, shape, dtype, sharding)
    if kind not in compiled:
        compiled[kind] = jax.jit(draw, out_shardings=sharding)
    # What `keras.random` makes of an integer.
    return compiled[kind](np.array([seed % 2**32, 0], np.uint32))
