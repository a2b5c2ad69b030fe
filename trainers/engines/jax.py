"""Engine on a JAX mesh: every array split by its named axes, several steps in one function.

Model and optimizer hold no values until the first call that needs them, so that one may be larger
than this machine: `JaxEngine.lower` compiles its step all the same. No TensorFlow is imported.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from trainers.engines import mesh as meshes
from trainers.engines.base import Batch, StepOptions, StepSums, check_built
from trainers.engines.feeds import Calls, at_least_one, stack
from trainers.engines.jax_steps import State, Steps, Totals
from trainers.engines.jax_variables import deferred, initialize, place
from trainers.engines.mesh import Layout, MeshShape
from trainers.engines.state import check_state, state_variables


class JaxEngine:
    """Training steps of one model on a mesh of JAX devices.

    Args:
        mesh_shape: `MeshShape` or its text, such as "batch:2,model:2"; by default all of
            `devices`, or one where these are not given either, along the batch.
        layout: `Layout` or its text, such as "batch:batch,heads:model"; by default T5's rules.
        devices: JAX devices to use, in order; by default all. Engines on disjoint devices may run
            at the same time, each in a thread of its own.
        options: what a step does with its gradients. Microbatch k of m is the rows k, k + m, …, so
            that it is the same on every mesh.

    Raises:
        UserError: another backend than JAX, or more devices than there are.

    Example:
        engine = JaxEngine("batch:2,model:2")
        with engine.scope():
            model = kf.models.T5(config, seed=0)
            optimizer = kf.optimizers.Adafactor(learning_rate)
        engine.compile(model, optimizer)
        sums = engine.train(batches.from_step(0), num_steps=100)
    """

    def __init__(
        self,
        mesh_shape: MeshShape | str | None = None,
        layout: Layout | str | None = None,
        devices: Sequence[jax.Device] | None = None,
        options: StepOptions | None = None,
    ):
        if mesh_shape is None:
            mesh_shape = MeshShape(((meshes.BATCH, len(devices) if devices else 1),))
        self.mesh_shape = _parsed(MeshShape, mesh_shape)
        self._asked = None if layout is None else _parsed(Layout, layout)
        self.options = options or StepOptions()
        meshes.check_backend(self.mesh_shape)
        devices = list(jax.devices() if devices is None else devices)
        meshes.check_devices(self.mesh_shape, len(devices))
        self.mesh = jax.make_mesh(
            self.mesh_shape.sizes,
            self.mesh_shape.names,
            axis_types=(jax.sharding.AxisType.Auto,) * len(self.mesh_shape.names),
            devices=devices[: self.mesh_shape.size],
        )
        self._calls = Calls()

    @property
    def num_devices(self) -> int:
        """Devices of the mesh, those of other hosts included."""
        return self.mesh_shape.size

    @property
    def is_local(self) -> bool:
        """Whether the model's weights can be used outside the engine as any other arrays."""
        return self.num_devices == 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files."""
        return jax.process_index() == 0

    def agree(self, flag: bool) -> bool:
        """Returns whether `flag` is set on any host; every host has to call it."""
        if jax.process_count() == 1:
            return flag
        return bool(multihost_utils.process_allgather(np.array(flag)).any())

    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which model and optimizer are built, without memory for their values."""
        return deferred()

    def compile(self, model, optimizer) -> None:
        """Takes model and optimizer, and decides where every array of theirs goes.

        Raises:
            UserError: the model is not built, or the layout does not fit it.
        """
        check_built(model)
        self.layout = meshes.checked_layout(self._asked, meshes.axis_sizes(model))
        specs = meshes.weight_specs(model, self.mesh_shape, self.layout)
        with self.scope():
            optimizer.build(model.trainable_variables)
        self.variables = state_variables(model, optimizer)
        self.shardings = {
            name: NamedSharding(self.mesh, PartitionSpec(*spec))
            for name, spec in _state_specs(model, specs, self.variables).items()
        }
        for name, variable in self.variables.items():
            # Keras puts what is assigned to the variable there.
            variable._layout = self.shardings[name]
        self._groups = State(
            model.trainable_variables, model.non_trainable_variables, optimizer.variables
        )
        self._calls, self._has_values = Calls(), False
        self._compile_steps(model, optimizer)

    def _compile_steps(self, model, optimizer) -> None:
        state = self._state_shardings()
        single = NamedSharding(self.mesh, PartitionSpec())
        totals = Totals(*[single] * len(Totals._fields))

        def keep(arrays):
            return jax.lax.with_sharding_constraint(arrays, state.weights)

        steps = Steps(model, optimizer, self.options, keep)
        self._train_steps = jax.jit(steps.train, donate_argnums=0, out_shardings=(state, totals))
        self._evaluation_steps = jax.jit(steps.evaluate, out_shardings=totals)

    def _state_shardings(self) -> State:
        of = {id(variable): self.shardings[name] for name, variable in self.variables.items()}
        return State(*([of[id(variable)] for variable in group] for group in self._groups))

    # ---- running ----

    def warm_up(self, batches: Iterator[Batch], num_steps: int) -> None:
        """Compiles by a call of no steps; takes no batch of the run."""
        self._train(self._calls.peek(batches, num_steps), 0)

    def train(self, batches: Iterator[Batch], num_steps: int) -> StepSums:
        """Runs `num_steps` steps on the next batches of an iterator; one wait at the end.

        Args:
            batches: iterator of dicts of int arrays (global batch, length), with "targets". It is
                read ahead; pass the same one in the next call to go on where this one ended.
            num_steps: how many; more than in any call before means a new compilation.

        Returns:
            `StepSums` over these steps and the whole mesh.
        """
        return self._train(self._calls.take(batches, num_steps), num_steps)

    def evaluate(self, batches: Iterable[Batch]) -> StepSums:
        """Sums loss and counts over batches, without dropout.

        Args:
            batches: dicts as in `train`, all of one shape.
        """
        batches = at_least_one(batches)
        arrays = self._distribute(stack(batches, len(batches)))
        totals = self._evaluation_steps(self._values(), arrays, np.int32(len(batches)))
        return _sums(len(batches), totals)

    def _train(self, batches: list[Batch], num_steps: int) -> StepSums:
        arrays = self._distribute(stack(batches, self._calls.length))
        state, totals = self._train_steps(self._values(), arrays, np.int32(num_steps))
        for group, values in zip(self._groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable._value = value
        return _sums(num_steps, totals)

    def _distribute(self, arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Puts (steps, rows, length) arrays on the mesh, as `Steps` wants them."""
        sharding = self._batch_sharding()
        return {
            name: place(
                value.reshape(self._batch_shape(value.shape)).swapaxes(1, 2), value.dtype, sharding
            )
            for name, value in arrays.items()
        }

    def _batch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(steps, rows of a microbatch, microbatches, length) from (steps, rows, length)."""
        steps, rows, *rest = shape
        self.options.rows(meshes.check_batch(rows, self.mesh_shape, self.layout))
        parts = self.options.microbatches
        return (steps, rows // parts, parts, *rest)

    def _batch_sharding(self) -> NamedSharding:
        dim = self.layout.restricted(dims=self.mesh_shape.names).dim(meshes.BATCH)
        return NamedSharding(self.mesh, PartitionSpec(None, None, dim))

    def lower(self, batch_shapes: Mapping[str, tuple[int, ...]], num_steps: int = 1):
        """Lowers the training function without any value on any device.

        Args:
            batch_shapes: name to shape (global batch, length) of integer arrays.
            num_steps: steps that one call may hold.

        Returns:
            `jax.stages.Lowered`; its `compile()` has the costs of a step.

        Example:
            shapes = {"encoder_token_ids": (64, 512), "decoder_token_ids": (64, 114),
                      "targets": (64, 114)}
            engine.lower(shapes).compile().memory_analysis()
        """
        batch_sharding = self._batch_sharding()
        batches = {}
        for name, shape in batch_shapes.items():
            steps, rows, parts, *rest = self._batch_shape((num_steps, *shape))
            batches[name] = jax.ShapeDtypeStruct(
                (steps, parts, rows, *rest), np.int32, sharding=batch_sharding
            )
        return self._train_steps.lower(
            self.state_shapes(), batches, jax.ShapeDtypeStruct((), np.int32)
        )

    def state_shapes(self) -> State:
        """Shapes, dtypes and shardings of the state, without values."""
        return State(
            *(
                [
                    jax.ShapeDtypeStruct(v.shape, v._dtype, sharding=sharding)
                    for v, sharding in zip(group, shardings, strict=True)
                ]
                for group, shardings in zip(self._groups, self._state_shardings(), strict=True)
            )
        )

    # ---- state ----

    def _values(self) -> State:
        """The arrays that the variables hold; made now where they hold none yet."""
        if not self._has_values:
            initialize(
                list(self.variables.values()), [self.shardings[name] for name in self.variables]
            )
            self._has_values = True
        return State(*([variable._value for variable in group] for group in self._groups))

    def state(self) -> dict[str, np.ndarray]:
        """Copies weights, slots, iterations and seeds to the host (`state_variables` names).

        Of several hosts each has to call it, and gets all of it.
        """
        self._values()
        return {name: _to_host(variable._value) for name, variable in self.variables.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets what `state` returned, here, on another mesh, or under TensorFlow.

        Args:
            state: arrays, or what can be sliced like them: only the slices that a device of this
                host holds are read.

        Raises:
            UserError: naming every difference in names and shapes; nothing is set then.
        """
        check_state(
            {name: tuple(variable.shape) for name, variable in self.variables.items()},
            {name: tuple(value.shape) for name, value in state.items()},
            "the state of a run",
        )
        for name, variable in self.variables.items():
            # The old value goes first, and with the initializer whatever it would have read.
            variable._value = variable._initializer = None
            variable._value = place(state[name], variable._dtype, self.shardings[name])
        self._has_values = True


def _parsed(kind, value):
    return kind.parse(value) if isinstance(value, str) else value


def _state_specs(model, specs: Mapping, variables: Mapping) -> dict[str, meshes.Spec]:
    """Specs of all variables of a state by name: weights' own, and slots like their weights."""
    declared = meshes.declared_weights(model)
    of_weight = {id(variable): specs[path] for path, (variable, _) in declared.items()}
    found = {}
    for name, variable in variables.items():
        kind, _, rest = name.partition("/")
        weight = variable
        if kind == "optimizer":
            weight = variables.get(f"model/{rest.rpartition('/')[0]}")
        spec = of_weight.get(id(weight), ())
        found[name] = meshes.slot_spec(spec, weight.shape, variable.shape) if spec else ()
    return found


def _to_host(value: jax.Array) -> np.ndarray:
    if not value.is_fully_addressable:
        return multihost_utils.process_allgather(value, tiled=True)
    return np.array(value)


def _sums(steps: int, totals: Totals) -> StepSums:
    """Waits for the devices and copies their sums, once."""
    found = Totals(*(value.item() for value in jax.device_get(totals)))
    return StepSums(steps=steps, **found._asdict())
