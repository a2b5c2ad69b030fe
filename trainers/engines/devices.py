"""The devices that a run trains on, and the engines for them.

On the TensorFlow backend a `tf.distribute` strategy copies the model to every device (data
parallel); on the JAX backend a mesh of named dimensions can also split it (model parallel).
`--strategy` says which kind of machine it is, `--mesh_shape` and `--layout` how a mesh is used.
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Sequence

import keras

import keras_fusion as kf
from keras_fusion.models.t5 import shared_skeleton
from trainers.engines import sharding
from trainers.engines.base import Engine, StepOptions
from trainers.engines.mesh import BATCH, T5_LAYOUT, Layout, MeshShape, check_devices
from trainers.errors import UserError
from trainers.programs import check_options, option

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
# Name or number of a host, and its port; an IPv6 address has colons, and stands in brackets.
_ADDRESS = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
# Makes the engines of a run, each of whose stages takes its own.
EngineFactory = Callable[[StepOptions], Engine]


@dataclasses.dataclass(frozen=True)
class Devices:
    """Choice of the devices of a run, which says nothing about what it computes; checks itself."""

    strategy: str = option(
        "auto", "TensorFlow: kind of machine.", choices=STRATEGIES, group="Devices"
    )
    tpu: str | None = option(None, "TensorFlow: name of a TPU, or local for this machine's.")
    mesh_shape: str | None = option(
        None, "JAX: name:size pairs, such as batch:2,model:2; without it batch: all devices."
    )
    layout: str | None = option(None, f"JAX: axis:mesh dimension pairs; without it {T5_LAYOUT}.")
    microbatches: int = option(1, "Parts that a device's batch is cut into.", at_least=1)
    parallel_stages: bool = option(
        False, "JAX: train stages that do not need each other side by side."
    )
    coordinator: str | None = option(
        None,
        "JAX on several hosts: host:port of the first, the same on all; Cloud TPU, Slurm and Open "
        "MPI say it themselves.",
    )
    num_processes: int | None = option(None, "JAX: how many hosts there are.", at_least=1)
    process_id: int | None = option(None, "JAX: number of this host, from 0.", at_least=0)

    def __post_init__(self):
        check_options(self)
        if self.tpu and self.strategy not in ("auto", "tpu"):
            raise UserError(
                "--tpu only with --strategy=tpu or --strategy=auto",
                f"tpu={self.tpu!r}, strategy={self.strategy!r}",
                "Leave out one of them",
            )
        self._check_hosts()
        # The syntax, before anything is read.
        self.shape()
        self.rules()

    def _check_hosts(self):
        names = ("coordinator", "num_processes", "process_id")
        flags = {name: getattr(self, name) for name in names}
        received = ", ".join(f"{name}={value!r}" for name, value in flags.items())
        if None in flags.values():
            if any(value is not None for value in flags.values()):
                missing = ", ".join(f"--{name}" for name, value in flags.items() if value is None)
                expected = "--coordinator, --num_processes and --process_id together, or none"
                raise UserError(expected, received, f"Add {missing}")
            return
        address = _ADDRESS.fullmatch(self.coordinator)
        is_port = address is not None and 0 < int(address[1]) < 1 << 16
        if self.process_id >= self.num_processes or not is_port:
            # JAX would wait for minutes for whoever listens there.
            raise UserError(
                "--coordinator=HOST:PORT, and a --process_id below --num_processes",
                received,
                "Give the hosts the numbers 0, 1, …, and all of them the address of number 0",
            )

    def shape(self) -> MeshShape | None:
        """Returns the mesh that was asked for."""
        return MeshShape.parse(self.mesh_shape) if self.mesh_shape else None

    def rules(self) -> Layout | None:
        """Returns the layout that was asked for."""
        return Layout.parse(self.layout) if self.layout else None

    def check_backend(self) -> None:
        """Raises a `UserError` unless Keras' backend can do what was asked for."""
        backend = keras.backend.backend()
        received = f"KERAS_BACKEND={backend}"
        if backend not in ("tensorflow", "jax"):
            do = "Set KERAS_BACKEND to one of them"
            raise UserError("Keras on its tensorflow or jax backend for training", received, do)
        if backend == "tensorflow" and self.coordinator:
            expected = "the JAX backend for --coordinator"
            raise UserError(expected, received, "Set KERAS_BACKEND=jax, or TF_CONFIG in its place")
        for name in ("mesh_shape", "layout", "parallel_stages"):
            if backend == "tensorflow" and getattr(self, name):
                raise UserError(
                    f"the JAX backend for --{name}: on TensorFlow keras.distribution has no "
                    "effect, and every device would hold the whole model",
                    received,
                    f"Set KERAS_BACKEND=jax, or leave out --{name}",
                )
        if backend == "jax" and self.strategy not in ("auto", "one_device"):
            expected = f"the TensorFlow backend for --strategy={self.strategy}"
            do = "Set KERAS_BACKEND=tensorflow, or use --mesh_shape"
            raise UserError(expected, received, do)


def engine_factory(devices: Devices) -> EngineFactory:
    """Returns the factory of a run's engines, or raises a `UserError`."""
    devices.check_backend()
    # Imported here: neither backend needs the other to be installed.
    if keras.backend.backend() == "tensorflow":
        from trainers.engines import strategies

        return strategies.engines(devices.strategy, devices.tpu)
    import jax

    # It reports, as information, every kind of device that is not there.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    available = jax.devices()[:1] if devices.strategy == "one_device" else jax.devices()
    shape = devices.shape() or MeshShape(((BATCH, len(available)),))
    check_devices(shape, len(available))
    used = tuple(available[: shape.size])
    if jax.process_count() > 1:
        _check_mesh_of_hosts(devices, shape, {device.process_index for device in used})
    return MeshEngines(shape, devices.rules(), used)


def _check_mesh_of_hosts(devices: Devices, shape: MeshShape, hosts: set[int]) -> None:
    import jax

    count = jax.process_count()
    if devices.parallel_stages:
        expected = "one host for --parallel_stages"
        raise UserError(expected, f"{count} hosts", "Leave it out: each stage takes all hosts")
    if len(hosts) < count:
        raise UserError(
            f"a mesh that has devices of all {count} hosts",
            f"mesh_shape={str(shape)!r}, which has {len(hosts)}",
            f"Take a mesh of all {jax.device_count()} devices, or fewer hosts",
        )


@dataclasses.dataclass(frozen=True)
class MeshEngines:
    """Makes engines on a mesh, or on parts of it."""

    shape: MeshShape
    layout: Layout | None  # None takes T5's rules
    devices: tuple  # JAX devices, as many as the mesh has places

    def __call__(self, options: StepOptions) -> Engine:
        from trainers.engines.jax import JaxEngine

        return JaxEngine(self.shape, self.layout, self.devices, options)

    def check(self, configs: Iterable["kf.models.T5Config"], batch_size: int) -> None:
        """Raises a `UserError` unless models and batches can be split; allocates nothing."""
        for config in configs:
            model = shared_skeleton(config)
            sharding.weight_specs(model, self.shape, self.layout)
            layout = sharding.checked_layout(self.layout, sharding.axis_sizes(model))
            sharding.check_batch(batch_size, self.shape, layout)

    def parts(self, count: int, batch_size: int) -> Sequence["MeshEngines"]:
        """Cuts the devices into parts for models that train side by side, each data-parallel.

        Args:
            count: how many models; the parts are as many, or as many as there are devices.
            batch_size: sequences per batch: its divisors are the sizes that a part can have.
        """
        most = max(1, len(self.devices) // count)
        size = max(n for n in sharding.divisors(batch_size) if n <= most)
        shape = MeshShape(((BATCH, size),))
        starts = range(0, min(count * size, len(self.devices) // size * size), size)
        return [MeshEngines(shape, None, self.devices[i : i + size]) for i in starts]
