"""Costs of a training step on a mesh, read from the program that XLA makes for one device.

The step is compiled for as many virtual devices as the mesh has, and never run: no weight has a
value. Weights and slots are counted from the engine's shardings, collectives and products from the
partitioned program (trainers/mesh_costs/hlo.py), and the rest is XLA's own account of its memory.

Needs Keras on its JAX backend and as many JAX devices as the mesh has (trainers/mesh_report.py sees
to both).
"""

import collections
import dataclasses
import math
import re
import resource
import time
from collections.abc import Mapping

import keras_fusion as kf
from keras_fusion.schedules import InverseSquareRoot
from trainers.engines import sharding
from trainers.engines.base import StepOptions
from trainers.engines.flops import step_flops
from trainers.engines.jax import JaxEngine
from trainers.engines.mesh import BATCH, Layout, MeshShape
from trainers.mesh_costs import hlo
from trainers.mesh_costs.config import MeshReportConfig
from trainers.training.optimizers import OPTIMIZERS

OTHER_RULE = "no rule"


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that a device sends in a step by one kind of collective, for one cause."""

    kind: str  # of the collective, one of `hlo.KINDS`
    dims: str  # mesh dims over which it goes, joined by "+"
    rule: str  # rule of the layout that calls for it, "axis:dim"; or `OTHER_RULE`
    bytes: float  # sent by a device in a step, with ring algorithms
    operations: int  # collectives in a step


@dataclasses.dataclass(frozen=True)
class MeshCosts:
    """Costs of a step; bytes and FLOPs are those of one device, the first where they differ."""

    parameters: int  # weights of the whole model
    weight_bytes: int  # of the shards of weights
    slot_bytes: int  # of the shards of the optimizer's slots
    # All inputs of the program by XLA's account: both of these, the batch, seeds.
    argument_bytes: int
    # The most that XLA's buffers for all else need at one time: activations kept for the backward
    # pass, gradients, and what operations need.
    temporary_bytes: int
    # The model's (trainers/engines/flops.py), divided by the number of devices.
    counted_flops: float
    product_flops: float  # of the matrix products in the partitioned program
    # By XLA's cost analysis, which counts other operations too, and the body of a loop once.
    xla_flops: float
    traffic: tuple[Traffic, ...]  # what collectives send
    unknown_loops: int  # loops in the step whose trips are not known, so that bodies count once
    # Mesh dim to the most devices along it that divide everything sent to it; dims to which the
    # layout sends nothing are left out.
    largest: dict[str, int]
    compile_seconds: float  # of lowering and compiling
    peak_host_bytes: int  # the most memory that this process has had

    @property
    def other_bytes(self) -> int:
        """Bytes of the batch, seeds and whatever else goes in."""
        return self.argument_bytes - self.weight_bytes - self.slot_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes that a device needs at one time; the state is updated in place."""
        return self.argument_bytes + self.temporary_bytes

    def sent(self, **fields: str) -> float:
        """Returns the bytes that a device sends in a step.

        Example:
            >>> costs.sent(kind="all-reduce", rule="mlp:model")
            3221225472.0
        """
        return sum(
            part.bytes
            for part in self.traffic
            if all(getattr(part, name) == value for name, value in fields.items())
        )

    def to_dict(self) -> dict:
        """Returns a dictionary that JSON can hold."""
        sums = {"total_bytes": self.total_bytes, "sent_bytes": self.sent()}
        return dataclasses.asdict(self) | sums


def measure(model_config: "kf.models.T5Config", config: MeshReportConfig) -> MeshCosts:
    """Compiles the training step of a T5 for a mesh that fits it, and reads its costs."""
    started = time.monotonic()
    rows, input_length = config.batch_size, config.input_length
    target_length = config.target_length
    options = StepOptions(microbatches=config.microbatches)
    engine = JaxEngine(config.mesh_shape, config.layout, options=options)
    with engine.scope():
        model = kf.models.T5(model_config, seed=0, dtype=config.dtype)
        optimizer = OPTIMIZERS[config.optimizer](InverseSquareRoot(warmup_steps=10_000))
    engine.compile(model, optimizer)
    # As `PretrainingBatches` makes them.
    inputs, targets = (rows, input_length), (rows, target_length)
    shapes = {"encoder_token_ids": inputs, "decoder_token_ids": targets, "targets": targets}
    compiled = engine.lower(shapes).compile()
    seconds = time.monotonic() - started
    program = hlo.Program(compiled.as_text())
    memory, state = compiled.memory_analysis(), engine.state_shapes()
    flops = step_flops(model, rows, input_length, target_length)
    return MeshCosts(
        parameters=sum(math.prod(shape.shape) for shape in state.weights),
        weight_bytes=_shard_bytes(state.weights),
        slot_bytes=_shard_bytes(state.slots),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        counted_flops=flops.total / engine.num_devices,
        product_flops=program.matmul_flops(),
        xla_flops=compiled.cost_analysis()["flops"],
        traffic=traffic(program, engine.mesh_shape, rules_of_layers(model, engine.layout)),
        # The engine's own loop runs as many steps as a call asks for; what is in it is one step.
        unknown_loops=max(program.unknown_loops - 1, 0),
        largest=largest_mesh(model, engine.layout, rows // config.microbatches),
        compile_seconds=seconds,
        peak_host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _shard_bytes(shapes) -> int:
    return sum(
        math.prod(shape.sharding.shard_shape(shape.shape)) * shape.dtype.itemsize
        for shape in shapes
    )


def rules_of_layers(model, layout: Layout) -> dict[str, dict[str, str]]:
    """Returns `{name of a layer: {mesh dim: rule}}`: the rules that split the layer's weights.

    Under the name "" is the rule of the batch, which is split in all layers.

    Example:
        >>> rules_of_layers(t5, T5_LAYOUT)["query"]
        {'model': 'heads:model'}
    """
    batch = layout.dim(BATCH)
    rules: dict[str, dict[str, str]] = {"": {batch: f"{BATCH}:{batch}"} if batch else {}}
    for path, (_, axes) in sharding.declared_weights(model).items():
        layer = path.split("/")[-2]
        for name in axes.names:
            if layout.dim(name) is not None:
                rules.setdefault(layer, {})[layout.dim(name)] = f"{name}:{layout.dim(name)}"
    return rules


def traffic(
    program: hlo.Program, shape: MeshShape, rules: Mapping[str, Mapping[str, str]]
) -> tuple[Traffic, ...]:
    """Adds up a program's collectives by kind, mesh dims and rule; the largest first.

    Along the mesh dim of the batch it is the gradients that are added up. Along another, the layer
    in whose operation the collective stands says which rule it comes from.
    """
    sent: dict[tuple, float] = collections.defaultdict(float)
    counts: collections.Counter = collections.Counter()
    for collective in program.collectives():
        dims = collective.dims(dict(shape.dims))
        if not dims:
            continue
        key = (collective.kind, "+".join(dims), _rule(collective.source, dims, rules))
        sent[key] += collective.sent
        counts[key] += collective.times
    parts = [Traffic(*key, sent[key], counts[key]) for key in sent]
    return tuple(sorted(parts, key=lambda part: -part.bytes))


def _rule(source: str, dims: tuple[str, ...], rules: Mapping[str, Mapping[str, str]]) -> str:
    # JAX names an operation by the layers around it: jvp(encoder)/block_0/key/dot_general.
    for layer in (*reversed(re.findall(r"[\w.\-]+", source)), ""):
        for dim in dims:
            if dim in rules.get(layer, {}):
                return rules[layer][dim]
    return OTHER_RULE


def largest_mesh(model, layout: Layout, rows: int) -> dict[str, int]:
    """Returns the most devices along each mesh dim that divide all that the layout sends there.

    Example:
        >>> largest_mesh(t5_l, T5_LAYOUT, 256)
        {'batch': 256, 'model': 8}
    """
    largest: dict[str, int] = {}
    for axis, size in {BATCH: rows, **sharding.axis_sizes(model)}.items():
        dim = layout.dim(axis)
        if dim is not None:
            largest[dim] = math.gcd(largest.get(dim, 0), size)
    return largest
