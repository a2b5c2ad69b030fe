"""Reads what a compiled program computes and moves from the text that XLA prints of it.

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

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)

_BITS = {"pred": 8, "token": 0, "opaque": 0}

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:to_apply|calls|body|condition|true_computation|false_computation)=%")
_IOTA = re.compile(r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a step.

    Args:
        kind: one of `KINDS`.
        operand_bytes: what a device puts in, one time.
        group: devices of the first group, as positions in the mesh; all groups are alike.
        times: how often a step runs it (the trips of the loops around it).
        source: the operation of the model that it belongs to, as JAX names it.
    """

    kind: str
    operand_bytes: float
    group: tuple[int, ...]
    times: int
    source: str

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by the ring algorithm in a group of n devices.

        all-reduce 2 (n-1)/n of the operand; reduce-scatter and all-to-all (n-1)/n of it;
        all-gather n-1 times the operand, which is (n-1)/n of the result; collective-permute the
        operand. It receives as much.
        """
        n = len(self.group)
        if n < 2:
            return 0.0
        share = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "collective-permute": 1}
        return self.times * self.operand_bytes * share.get(self.kind, (n - 1) / n)

    def dims(self, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
        """The mesh dims along which the group's devices differ.

        Args:
            mesh_shape: dim to size, the first dim varying slowest.
        """
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
    """A compiled program, read.

    Args:
        text: HLO as `compiled.as_text()` prints it.

    Raises:
        ValueError: it has no entry computation.

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
            elif current is not None and (found := _INSTRUCTION.match(line)):
                instruction = _instruction(found)
                current[instruction.name] = instruction
        if entry is None:
            raise ValueError("Expected the text of a compiled program. Received: no ENTRY in it.")
        self.unknown_loops = 0
        self._executed = list(self._walk(entry, 1))

    def collectives(self) -> list[Collective]:
        """Every collective of a step; what XLA combined into one is one for each operand."""
        found = []
        for name, instruction, times in self._executed:
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                group = _first_group(instruction.attributes, self._devices)
                for operand in instruction.operands:
                    source = self._computations[name][operand]
                    found.append(
                        Collective(
                            kind,
                            _moved_bytes(source.type, instruction.attributes),
                            group,
                            times,
                            _op_name(source.attributes) or _op_name(instruction.attributes),
                        )
                    )
        return found

    def matmul_flops(self) -> float:
        """FLOPs of the matrix products that a device computes in a step, loops unrolled."""
        return sum(
            times * self._dot_flops(name, instruction)
            for name, instruction, times in self._executed
            if instruction.opcode == "dot"
        )

    def _dot_flops(self, computation: str, dot: _Instruction) -> float:
        left = self._computations[computation][dot.operands[0]]
        dims = _shapes(left.type)[0][1]
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
        summed = _numbers(contracted[1]) if contracted else ()
        return 2.0 * math.prod(_shapes(dot.type)[0][1]) * math.prod(dims[axis] for axis in summed)

    def _walk(self, name: str, times: int) -> Iterator[tuple[str, _Instruction, int]]:
        """Each instruction that runs with its computation, and how often a step runs it."""
        for instruction in self._computations[name].values():
            yield name, instruction, times
            if instruction.opcode == "conditional":
                # One branch runs: the longer one stands for it.
                branches = [list(self._walk(each, times)) for each in _branches(instruction)]
                yield from max(branches, key=len)
                continue
            trips = self._trips(instruction) if instruction.opcode == "while" else 1
            for called in _called(instruction):
                yield from self._walk(called, times * trips)

    def _trips(self, loop: _Instruction) -> int:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        self.unknown_loops += known is None
        return int(known[1]) if known else 1


def _instruction(found: re.Match) -> _Instruction:
    name, type_, opcode, rest = found.groups()
    # Operands are names; the first parenthesis that closes ends them.
    operands, _, attributes = rest.partition(")")
    return _Instruction(name, type_, opcode, tuple(_NAME.findall(operands)), attributes)


def _called(instruction: _Instruction) -> list[str]:
    """Computations that an instruction runs, its reduction of two scalars left out."""
    if instruction.opcode.startswith(("all-reduce", "reduce", "sort", "scatter", "map")):
        return []
    return [
        _NAME.match(instruction.attributes, found.end() - 1)[1]
        for found in _CALLED.finditer(instruction.attributes)
    ]


def _branches(conditional: _Instruction) -> list[str]:
    found = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
    return _NAME.findall(found[1]) if found else _called(conditional)


def _shapes(type_: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(dtype, _numbers(dims)) for dtype, dims in _SHAPE.findall(type_)]


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    return int(re.search(r"\d+", dtype)[0])  # f32, bf16, s8, u4, f8e4m3fn, c64


def _moved_bytes(type_: str, attributes: str) -> float:
    """Bytes of an operand.

    XLA's CPU compiler widens sums of bfloat16 to float32 and marks them; other devices do not.
    """
    bits = sum(_bits(dtype) * math.prod(dims) for dtype, dims in _shapes(type_))
    promoted = re.search(r"to_apply=%[\w.\-]*_promoted", attributes)
    return bits / 8 / (2 if promoted else 1)


def _first_group(attributes: str, num_devices: int) -> tuple[int, ...]:
    """The devices of the first group, in any of the ways in which XLA writes groups."""
    if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return tuple(sorted({int(pairs[1]), int(pairs[2])}))
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return _numbers(listed[1])
    if iota := re.search(rf"replica_groups=({_IOTA.pattern})", attributes):
        groups, size = _numbers(iota[2])
        return tuple(_devices(iota[3], iota[4], groups * size).reshape(groups, size)[0].tolist())
    if named := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^)]*\)?)\))? ?\{([^}]*)\}", attributes
    ):
        return _mesh_group(*named.groups())
    return tuple(range(num_devices))  # replica_groups={}


def _devices(dims: str | None, order: str | None, count: int) -> np.ndarray:
    """0, 1, … as an array of `dims`, transposed by `order`, flat."""
    devices = np.arange(count).reshape(_numbers(dims) if dims else (count,))
    return devices.transpose(_numbers(order) if order else None).reshape(-1)


def _mesh_group(mesh: str, ids: str | None, axes: str) -> tuple[int, ...]:
    """First group of `mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b','a':(1)2}`."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    order = _IOTA.match(ids or "")
    dims, transposed = (order[1], order[3]) if order else (None, None)
    devices = _devices(dims, transposed, math.prod(sizes.values())).reshape(*sizes.values())
    place: list[object] = [0] * len(sizes)
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        whole = sizes[name]
        # A part of an axis: `size` positions, each as far apart as what comes after it is long.
        stride = whole // (int(before) * int(size)) if size else 1
        place[list(sizes).index(name)] = slice(0, stride * int(size or whole), stride)
    return tuple(np.atleast_1d(devices[tuple(place)]).reshape(-1).tolist())


def _op_name(attributes: str) -> str:
    found = re.search(r'op_name="([^"]*)"', attributes)
    return found[1] if found else ""


def _number(text: str, name: str, default: int) -> int:
    found = re.search(rf"^HloModule .*\b{name}=(\d+)", text)
    return int(found[1]) if found else default


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
