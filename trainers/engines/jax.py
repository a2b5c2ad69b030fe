"""Engine on a JAX mesh: every array split by its named axes, several steps in one function.

Model and optimizer hold no values until the first call that needs them, so that one may be larger
than this machine: `JaxEngine.lower` compiles its step all the same. No TensorFlow is imported.
"""

import contextlib
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from keras_fusion import _keras
from trainers.engines import sharding
from trainers.engines.base import Engine, StepOptions, check_backend
from trainers.engines.jax_steps import State, Steps
from trainers.engines.jax_variables import Window, initialize, place
from trainers.engines.losses import Totals
from trainers.engines.mesh import BATCH, T5_LAYOUT, Layout, MeshShape, check_devices
from trainers.engines.state import part_name


class JaxEngine(Engine):
    """Training steps of one model on a mesh of JAX devices.

    Args:
        mesh_shape: `MeshShape` or its text, such as "batch:2,model:2"; by default all of
            `devices`, or one where these are not given either, along the batch.
        layout: `Layout` or its text, such as "batch:batch,heads:model"; by default T5's rules.
        devices: JAX devices to use, in order; by default all. Engines on disjoint devices may run
            at the same time, each in a thread of its own.
        options: what a step does with its gradients. Microbatch k of m is the rows k, k + m, …, so
            that it is the same on every mesh.
    """

    def __init__(
        self,
        mesh_shape: MeshShape | str | None = None,
        layout: Layout | str | None = None,
        devices: Sequence[jax.Device] | None = None,
        options: StepOptions | None = None,
    ):
        super().__init__(options)
        check_backend("jax", "a mesh of devices")
        if mesh_shape is None:
            mesh_shape = MeshShape(((BATCH, len(devices) if devices else 1),))
        self.mesh_shape = _parsed(MeshShape, mesh_shape)
        self._given_layout = _parsed(Layout, layout)
        devices = list(jax.devices() if devices is None else devices)
        check_devices(self.mesh_shape, len(devices))
        # Of each batch the rows that are given, and how many it has; None for all.
        self._rows: tuple[slice, int] | None = None
        self.mesh = jax.make_mesh(
            self.mesh_shape.sizes,
            self.mesh_shape.names,
            axis_types=(jax.sharding.AxisType.Auto,) * len(self.mesh_shape.names),
            devices=devices[: self.mesh_shape.size],
        )

    @property
    def num_devices(self) -> int:
        return self.mesh_shape.size

    @property
    def is_local(self) -> bool:
        return self.num_devices == 1

    @property
    def is_chief(self) -> bool:
        return jax.process_index() == 0

    @property
    def num_hosts(self) -> int:
        return jax.process_count()

    @property
    def host(self) -> int:
        return jax.process_index()

    @property
    def saves_shards(self) -> bool:
        return self.num_hosts > 1

    def agree(self, flag: bool) -> bool:
        if self.num_hosts == 1:
            return flag
        return bool(multihost_utils.process_allgather(np.array(flag)).any())

    def gather_rows(self, row: np.ndarray) -> np.ndarray:
        if self.num_hosts == 1:
            return super().gather_rows(row)
        return multihost_utils.process_allgather(row)

    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which model and optimizer are built, without memory for their values."""
        return _keras.kept_initializers()

    def check(self, model, optimizer) -> None:
        """Raises a `UserError` unless the layout fits the model."""
        self.layout = sharding.checked_layout(self._given_layout, sharding.axis_sizes(model))
        self._specs = sharding.weight_specs(model, self.mesh_shape, self.layout)

    def build_steps(self, model, optimizer) -> None:
        self.shardings = {
            name: NamedSharding(self.mesh, PartitionSpec(*spec))
            for name, spec in sharding.state_specs(model, self._specs, self.variables).items()
        }
        for name, variable in self.variables.items():
            # Keras puts what is assigned to the variable there.
            _keras.set_sharding(variable, self.shardings[name])
        self._groups = State(
            model.trainable_variables, model.non_trainable_variables, optimizer.variables
        )
        self._has_values = False
        state = self._by_group({id(v): self.shardings[name] for name, v in self.variables.items()})
        single = NamedSharding(self.mesh, PartitionSpec())
        totals = Totals(*[single] * len(Totals._fields))

        def keep(arrays):
            return jax.lax.with_sharding_constraint(arrays, state.weights)

        steps = Steps(model, optimizer, self.options, keep)
        options = compiler_options(self.mesh.devices.flat[0].platform)
        self.train_steps = jax.jit(
            steps.train,
            donate_argnums=0,
            out_shardings=(state, totals),
            compiler_options=options,
        )
        self._evaluation_steps = jax.jit(
            steps.evaluate, out_shardings=totals, compiler_options=options
        )

    def _by_group(self, values: Mapping[int, object]) -> State:
        """Values in the order of the variables, from a dictionary by their ids."""
        return State(*([values[id(v)] for v in group] for group in self._groups))

    # ---- running ----

    def run_steps(self, arrays: dict[str, np.ndarray], num_steps: int) -> list[float]:
        arrays = self._distribute(arrays)
        state, totals = self.train_steps(self._values(), arrays, np.int32(num_steps))
        for group, values in zip(self._groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                _keras.set_value(variable, value)
        return _numbers(totals)

    def run_evaluation(self, arrays: dict[str, np.ndarray], num_batches: int) -> list[float]:
        arrays = self._distribute(arrays)
        return _numbers(self._evaluation_steps(self._values(), arrays, np.int32(num_batches)))

    def _distribute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Puts (steps, rows, length) arrays on the mesh, as `Steps` wants them."""
        batch_sharding = self._batch_sharding()
        placed = {}
        for name, value in arrays.items():
            steps, given, *rest = value.shape
            rows = self._rows or (slice(0, given), given)
            shape = self._batch_shape((steps, rows[1], *rest))
            parts = shape[2]
            local = value.reshape(steps, given // parts, parts, *rest).swapaxes(1, 2)
            whole = Window(local, (shape[0], parts, shape[1], *rest), 2, rows[0].start // parts)
            placed[name] = place(whole, value.dtype, batch_sharding)
        return placed

    def rows(self, batch_size: int) -> slice:
        sharding.check_batch(batch_size, self.mesh_shape, self._given_layout or T5_LAYOUT)
        here = self._batch_sharding().addressable_devices_indices_map((1, 1, batch_size))
        parts = [index[2].indices(batch_size) for index in here.values()]
        rows = slice(min(part[0] for part in parts), max(part[1] for part in parts))
        self._rows = (rows, batch_size)
        return rows

    def _batch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(steps, rows of a microbatch, microbatches, length) from (steps, rows, length)."""
        steps, rows, *rest = shape
        self.options.rows(sharding.check_batch(rows, self.mesh_shape, self.layout))
        parts = self.options.microbatches
        return (steps, rows // parts, parts, *rest)

    def _batch_sharding(self) -> NamedSharding:
        layout = self._given_layout or T5_LAYOUT
        dim = layout.restricted(dims=self.mesh_shape.names).dim(BATCH)
        return NamedSharding(self.mesh, PartitionSpec(None, None, dim))

    def lower(self, batch_shapes: Mapping[str, tuple[int, ...]], num_steps: int = 1):
        """Lowers the training function without any value on any device.

        Args:
            batch_shapes: name to shape (global batch, length) of integer arrays.
            num_steps: steps that one call may hold.

        Returns:
            `jax.stages.Lowered`; its `compile()` has the costs of a step.
        """
        batches = {}
        for name, shape in batch_shapes.items():
            steps, rows, parts, *rest = self._batch_shape((num_steps, *shape))
            batches[name] = jax.ShapeDtypeStruct(
                (steps, parts, rows, *rest), np.int32, sharding=self._batch_sharding()
            )
        count = jax.ShapeDtypeStruct((), np.int32)
        return self.train_steps.lower(self.state_shapes(), batches, count)

    def state_shapes(self) -> State:
        """Returns shapes, dtypes and shardings of the state, without values."""
        shapes = {
            id(v): jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=self.shardings[name])
            for name, v in self.variables.items()
        }
        return self._by_group(shapes)

    def splits(self, name: str) -> tuple[str | None, ...]:
        return tuple(self.shardings[name].spec)

    def parts(self, name: str) -> int:
        return math.prod(map(self.mesh_shape.along, self.splits(name)))

    def start_profile(self, folder: pathlib.Path) -> None:
        jax.profiler.start_trace(folder)

    def stop_profile(self) -> None:
        jax.profiler.stop_trace()

    # ---- state ----

    def _values(self) -> State:
        """Returns the arrays that the variables hold; made now where they hold none yet."""
        if not self._has_values:
            initialize((v, self.shardings[name]) for name, v in self.variables.items())
            self._has_values = True
        return State(*([_keras.value_of(variable) for variable in group] for group in self._groups))

    def state(self) -> dict[str, np.ndarray]:
        self._values()
        return super().state()

    def shards(self) -> dict[str, np.ndarray]:
        if not self.saves_shards:
            return self.state()
        self._values()
        return {
            part_name(name, [part.start or 0 for part in shard.index]): np.array(shard.data)
            for name, variable in self.variables.items()
            for shard in _keras.value_of(variable).addressable_shards
            # Of equal copies on several devices one is saved.
            if shard.replica_id == 0
        }

    def read(self, name: str) -> np.ndarray:
        value = _keras.value_of(self.variables[name])
        if not value.is_fully_addressable:
            return multihost_utils.process_allgather(value, tiled=True)
        return np.array(value)

    def load_state(self, state: Mapping[str, np.ndarray], partial: bool = False) -> None:
        if partial:
            self._values()
        super().load_state(state, partial)
        self._has_values = True

    def write(self, name: str, value) -> None:
        """Sets one variable; of `value` only what a device of this host holds is read."""
        variable = self.variables[name]
        # The old value goes first, and with the initializer whatever it would have read.
        _keras.set_value(variable, None)
        _keras.set_value(variable, place(value, variable.dtype, self.shardings[name]))


@functools.cache
def compiler_options(platform: str) -> dict[str, str] | None:
    """XLA's options for the step functions on a platform; None where its defaults serve."""
    if platform != "cpu":
        return None
    # YNNPACK's sum over a leading axis, such as in the gradient of a position bias, takes thirty
    # times as long as XLA's own.
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # Another version of XLA, without the option.
        return None
    return options


def _parsed(kind, value):
    return kind.parse(value) if isinstance(value, str) else value


def _numbers(totals: Totals) -> list[float]:
    """Waits for the devices and copies their sums, once."""
    return [value.item() for value in jax.device_get(totals)]
