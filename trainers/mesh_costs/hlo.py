"""Reads the products and collectives of a compiled program from the text that XLA prints of it.

XLA partitions a program for a mesh and puts collectives where devices have to talk. The text of
the partitioned program (`compiled.as_text()` in JAX) holds one device's share: every shape in it is
that of a shard. Nothing here runs anything, and nothing needs JAX.

Example:
    >>> program = Program(compiled.as_text())
    >>> sum(collective.sent for collective in program.collectives())
    98304.0
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "token": 0, "opaque": 0}

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(?:to_apply|calls|body|condition|true_computation|false_computation)=%([\w.\-]+)"
)
# mesh['batch'=2,'model'=4], device_ids=([4,2]T(1,0)) {'model':(1)2}
_MESH_GROUPS = re.compile(
    r"replica_groups=mesh\[(?P<axes>[^\]]*)\]"
    r"(?:, device_ids=\((?:\[(?P<dims>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?|(?P<ids>[\d,]+))\))?"
    r" \{(?P<along>[^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a step."""

    kind: str  # one of `KINDS`
    operand_bytes: float  # what a device puts in, one time
    # Devices of the first group, as positions in the mesh; all groups are alike.
    group: tuple[int, ...]
    times: int  # how often a step runs it (the trips of the loops around it)
    source: str  # the operation of the model that it belongs to, as JAX names it

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by the ring algorithm (see `table.CONVENTIONS`)."""
        n = len(self.group)
        if n < 2:
            return 0.0
        share = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "collective-permute": 1}
        return self.times * self.operand_bytes * share.get(self.kind, (n - 1) / n)

    def dims(self, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
        """Returns the mesh dims along which the group's devices differ; the last varies fastest."""
        places = np.array(np.unravel_index(self.group, tuple(mesh_shape.values())))
        return tuple(
            name for name, row in zip(mesh_shape, places, strict=True) if np.any(row != row[0])
        )


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str


class Program:
    """A compiled program, read from what `compiled.as_text()` prints.

    Attributes:
        unknown_loops: loops whose number of trips XLA does not know; their bodies count once.
    """

    def __init__(self, text: str):
        self._computations: dict[str, dict[str, _Instruction]] = {}
        self._devices = _number(text, "num_partitions", 1) * _number(text, "replica_count", 1)
        entry = current = None
        for line in text.splitlines():
            if start := _COMPUTATION.match(line):
                current = self._computations.setdefault(start[2], {})
                entry = start[2] if start[1] else entry
            elif current is not None and (match := _INSTRUCTION.match(line)):
                name, type_, opcode, rest = match.groups()
                # Operands are names; the first parenthesis that closes ends them.
                operands, _, attributes = rest.partition(")")
                names = tuple(_NAME.findall(operands))
                current[name] = _Instruction(name, type_, opcode, names, attributes)
        if entry is None:
            raise ValueError("Expected the text of a compiled program. Received: no ENTRY in it.")
        self.unknown_loops = 0
        self._executed = list(self._walk(entry, 1))

    def collectives(self) -> list[Collective]:
        """Returns all collectives of a step; what XLA combined is one for each operand."""
        return [
            self._collective(self._computations[name][operand], instruction, times)
            for name, instruction, times in self._executed
            if instruction.opcode.removesuffix("-start") in KINDS
            for operand in instruction.operands
        ]

    def _collective(
        self, operand: _Instruction, instruction: _Instruction, times: int
    ) -> Collective:
        return Collective(
            instruction.opcode.removesuffix("-start"),
            _moved_bytes(operand.type, instruction.attributes),
            _first_group(instruction.attributes, self._devices),
            times,
            _op_name(operand.attributes) or _op_name(instruction.attributes),
        )

    def matmul_flops(self) -> float:
        """Returns the FLOPs of the matrix products of a device in a step, loops unrolled."""
        return sum(
            times * self._dot_flops(name, instruction)
            for name, instruction, times in self._executed
            if instruction.opcode == "dot"
        )

    def _dot_flops(self, computation: str, dot: _Instruction) -> float:
        left = self._computations[computation][dot.operands[0]]
        dims = _shapes(left.type)[0][1]
        summed = _numbers(_found(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes))
        return 2.0 * math.prod(_shapes(dot.type)[0][1]) * math.prod(dims[axis] for axis in summed)

    def _walk(self, name: str, times: int) -> Iterator[tuple[str, _Instruction, int]]:
        """Yields each instruction that runs with its computation, and how often a step runs it."""
        for instruction in self._computations[name].values():
            yield name, instruction, times
            if instruction.opcode == "conditional":
                # One branch runs: the longer one stands for it.
                branches = [list(self._walk(called, times)) for called in _called(instruction)]
                yield from max(branches, key=len)
                continue
            trips = self._trips(instruction) if instruction.opcode == "while" else 1
            for called in _called(instruction):
                yield from self._walk(called, times * trips)

    def _trips(self, loop: _Instruction) -> int:
        trips = _found(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        self.unknown_loops += not trips
        return int(trips or 1)


def _called(instruction: _Instruction) -> list[str]:
    """Returns the computations that an instruction runs, its reduction of two scalars left out."""
    if instruction.opcode.startswith(("all-reduce", "reduce", "sort", "scatter", "map")):
        return []
    branches = _found(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    return _NAME.findall(branches) or _CALLED.findall(instruction.attributes)


def _shapes(type_: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(dtype, _numbers(dims)) for dtype, dims in _SHAPE.findall(type_)]


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    return int(re.search(r"\d+", dtype)[0])  # f32, bf16, s8, u4, f8e4m3fn, c64


def _moved_bytes(type_: str, attributes: str) -> float:
    """Returns the bytes of an operand.

    XLA's CPU compiler widens sums of bfloat16 to float32 and marks them; other devices do not.
    """
    bits = sum(_bits(dtype) * math.prod(dims) for dtype, dims in _shapes(type_))
    promoted = re.search(r"to_apply=%[\w.\-]*_promoted", attributes)
    return bits / 8 / (2 if promoted else 1)


def _first_group(attributes: str, num_devices: int) -> tuple[int, ...]:
    """Returns the devices of the first group, in any of XLA's notations."""
    if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return tuple(sorted({int(pairs[1]), int(pairs[2])}))
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return _numbers(listed[1])
    if iota := re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    ):
        groups, size, dims, order = iota.groups()
        return tuple(_iota(dims, order).reshape(int(groups), int(size))[0].tolist())
    if mesh := _MESH_GROUPS.search(attributes):
        return _first_group_on_mesh(**mesh.groupdict())
    if "replica_groups=" in attributes and "replica_groups={}" not in attributes:
        raise ValueError(f"Expected groups as XLA of today writes them. Received: {attributes}.")
    return tuple(range(num_devices))


def _first_group_on_mesh(
    axes: str, dims: str | None, order: str | None, ids: str | None, along: str
) -> tuple[int, ...]:
    """Returns the first of the groups that lie along some axes of a mesh.

    Args:
        axes: names and sizes of the mesh's axes.
        dims, order, ids: the mesh's devices, if they are not 0, 1, …: as an array that is
            transposed, or listed.
        along: names of the axes; `name:(before)size` is a part of one, with `before` parts of a
            larger stride before it.
    """
    sizes = {name: int(size) for name, size in (axis.split("=") for axis in axes.split(","))}
    places = {name: np.zeros(1, int) for name in sizes}
    for part in along.split(",") if along else ():
        name, _, sub_axis = part.partition(":")
        before, size = _numbers(sub_axis.replace("(", "").replace(")", ",")) or (1, sizes[name])
        stride = sizes[name] // (before * size)
        places[name] = np.add.outer(places[name], stride * np.arange(size)).ravel()
    if ids:
        devices = np.array(_numbers(ids))
    else:
        devices = _iota(dims or str(math.prod(sizes.values())), order)
    devices = devices.reshape(tuple(sizes.values()))[np.ix_(*places.values())]
    return tuple(devices.ravel().tolist())


def _iota(dims: str, order: str | None) -> np.ndarray:
    """Returns 0, 1, … as an array of some dims, transposed."""
    shape = _numbers(dims)
    devices = np.arange(math.prod(shape)).reshape(shape)
    return devices.transpose(_numbers(order) if order else None)


def _op_name(attributes: str) -> str:
    return _found(r'op_name="([^"]*)"', attributes)


def _number(text: str, name: str, default: int) -> int:
    return int(_found(rf"^HloModule .*\b{name}=(\d+)", text) or default)


def _found(pattern: str, text: str) -> str:
    """Returns the group of a pattern in a text; "" where it is not there."""
    match = re.search(pattern, text)
    return match[1] if match else ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
