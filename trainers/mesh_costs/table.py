"""The costs of a step on a mesh (trainers/mesh_costs/measure.py) as an aligned table."""

import itertools
from collections.abc import Callable, Iterator, Mapping

from trainers.engines.mesh import T5_LAYOUT, MeshShape
from trainers.mesh_costs.config import MeshReportConfig
from trainers.mesh_costs.measure import MeshCosts

CONVENTIONS = {
    "bytes sent": "by each device in a step, with ring algorithms in groups of n: all-reduce "
    "2(n-1)/n of the operand, reduce-scatter and all-to-all (n-1)/n of it, all-gather n-1 times "
    "the operand (a shard), collective-permute the operand; a device receives as much",
    "temporaries": "XLA's buffers for the CPU that are neither inputs nor outputs, at their "
    "fullest; its scheduler and fusions are not an accelerator's, and products of bfloat16 are "
    "widened there",
    "counted": "matrices and attention (trainers/engines/flops.py), forward and twice back; "
    "divided by the number of devices",
    "products": "2 x output x summed length of each dot in the partitioned program; more than "
    "counted means work that several devices do alike",
    "xla": "cost_analysis() of the compiled program: all operations, bodies of loops once",
}

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def quantity(value: float, unit: str) -> str:
    """Returns a number in a unit with three decimals and a decimal prefix.

    Example:
        >>> quantity(12_345_678, "B")
        '12.346 MB'
    """
    power = 0
    while abs(value) >= 1000 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3f} {_PREFIXES[power]}{unit}" if power else f"{value:.0f} {unit}"


def text(config: MeshReportConfig, costs: Mapping[str, MeshCosts]) -> str:
    """Returns the table: one row per cost, one column per model."""
    rows = [["per device", *costs], *_rows(list(costs.values()))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*_heading(config), "", *lines])


def _heading(config: MeshReportConfig) -> Iterator[str]:
    shape = MeshShape.parse(config.mesh_shape)
    yield f"mesh {shape} ({shape.size} devices), layout {config.layout or T5_LAYOUT}"
    parts = "" if config.microbatches == 1 else f" in {config.microbatches} microbatches"
    yield (
        f"a step of {config.batch_size} sequences of {config.input_length} + "
        f"{config.target_length} tokens{parts}, {config.optimizer}, {config.dtype}"
    )


def _rows(costs: list[MeshCosts]) -> Iterator[list[str]]:
    def row(label: str, show: Callable[[MeshCosts], str]) -> list[str]:
        return [label, *(show(model) for model in costs)]

    def blank(label: str) -> list[str]:
        return row(label, lambda _: "")

    def in_bytes(label: str, value: Callable[[MeshCosts], float]) -> list[str]:
        return row(label, lambda cost: quantity(value(cost), "B"))

    yield row("parameters of the whole model", lambda cost: f"{cost.parameters:,}")
    yield blank("memory")
    yield in_bytes("  weights", lambda cost: cost.weight_bytes)
    yield in_bytes("  optimizer slots", lambda cost: cost.slot_bytes)
    yield in_bytes("  batch and seeds", lambda cost: cost.other_bytes)
    yield in_bytes("  temporaries: activations, gradients", lambda cost: cost.temporary_bytes)
    yield in_bytes("  together", lambda cost: cost.total_bytes)
    yield blank("FLOPs of a step")
    yield row("  of the model, counted", lambda cost: quantity(cost.counted_flops, "FLOP"))
    yield row("  products in the program", lambda cost: quantity(cost.product_flops, "FLOP"))
    yield row("  XLA's cost analysis, loops once", lambda cost: quantity(cost.xla_flops, "FLOP"))
    yield blank("sent by collectives in a step")
    for kind, dims in _keys(costs, lambda part: (part.kind, part.dims)):
        yield in_bytes(f"  {kind} over {dims}", lambda cost: cost.sent(kind=kind, dims=dims))  # noqa: B023
    yield in_bytes("  together", lambda cost: cost.sent())
    yield blank("of that, by the rule that asks for it")
    for (rule,) in _keys(costs, lambda part: (part.rule,)):
        yield in_bytes(f"  {rule}", lambda cost: cost.sent(rule=rule))  # noqa: B023
    yield row("largest mesh that divides", lambda cost: _mesh(cost.largest))
    loops = max(cost.unknown_loops for cost in costs)
    if loops:
        yield row("loops counted as one trip", lambda cost: str(cost.unknown_loops))
    yield row("compiled in", lambda cost: f"{cost.compile_seconds:.1f} s")
    yield row("host memory, most so far", lambda cost: quantity(cost.peak_host_bytes, "B"))


def _keys(costs: list[MeshCosts], key: Callable) -> list:
    """Distinct keys of all traffic, those that send most in the last column first."""
    parts = itertools.chain(*(cost.traffic for cost in reversed(costs)))
    return list(dict.fromkeys(map(key, parts)))


def _mesh(largest: Mapping[str, int]) -> str:
    return ",".join(f"{dim}:{size}" for dim, size in largest.items())
