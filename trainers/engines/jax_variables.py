"""Variables of Keras on JAX that get their values late, and shard by shard.

Inside `deferred()` a model or an optimizer can be built at any size: a variable keeps its
initializer and has no value. `place` makes an array on a mesh from slices of whatever holds it.
"""

import contextlib
import contextvars
from collections.abc import Sequence

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
        # A copy: on the CPU a device may hold numpy's own memory, and gives it away in a step.
        part = np.array(value[index] if shape else value, dtype=dtype)
        shards += [jax.device_put(part, device, may_alias=False) for device in devices]
        jax.block_until_ready(shards)
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def initial_values(variables: Sequence, shardings: Sequence) -> list[jax.Array]:
    """Makes the values that variables begin with, each shard where it belongs.

    A variable that has a value keeps it. An initializer with an `array` is read slice by slice, any
    other runs in a compiled function, whose values do not depend on the mesh.

    Args:
        variables: Keras variables, created in `deferred()` or not.
        shardings: one for each.
    """
    values: list = [None] * len(variables)
    drawn = []
    for number, (variable, sharding) in enumerate(zip(variables, shardings, strict=True)):
        source = variable._value
        if source is None:
            source = getattr(variable._initializer, "array", None)
        if source is None:
            drawn.append(number)
        else:
            values[number] = place(source, variable._dtype, sharding)
    if drawn:
        made = _draw([variables[n] for n in drawn], [shardings[n] for n in drawn])
        for number, value in zip(drawn, made, strict=True):
            values[number] = value
    return values


def _draw(variables, shardings):
    @jax.jit
    def draw():
        made = [v._initializer(v._shape, dtype=v._dtype) for v in variables]
        return [
            jax.lax.with_sharding_constraint(jax.numpy.asarray(value, v._dtype), sharding)
            for v, value, sharding in zip(variables, made, shardings, strict=True)
        ]

    return draw()
