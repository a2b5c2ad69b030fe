"""The costs of a step on a mesh (trainers/mesh_costs/measure.py) as an aligned table."""

import itertools
from collections.abc import Callable, Iterator, Mapping

from trainers.engines.mesh import T5_LAYOUT
from trainers.mesh_costs.measure import Costs, Step

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
    """A number in a unit with three decimals and a decimal prefix.

    Example:
        >>> quantity(12_345_678, "B")
        '12.346 MB'
    """
    power = 0
    while abs(value) >= 1000 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3f} {_PREFIXES[power]}{unit}" if power else f"{value:.0f} {unit}"


def text(step: Step, costs: Mapping[str, Costs]) -> str:
    """The table: a row for each cost, a column for each model.

    Args:
        step: what was compiled.
        costs: name of a model to what its step costs.
    """
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
    return "\n".join([*_heading(step), "", *lines])


def _heading(step: Step) -> Iterator[str]:
    yield (
        f"mesh {step.mesh} ({step.mesh.size} devices), "
        f"layout {T5_LAYOUT if step.layout is None else step.layout}"
    )
    parts = "" if step.microbatches == 1 else f" in {step.microbatches} microbatches"
    yield (
        f"a step of {step.batch_size} sequences of {step.input_length} + {step.target_length} "
        f"tokens{parts}, {step.optimizer}, {step.dtype}"
    )


def _rows(costs: list[Costs]) -> Iterator[list[str]]:
    def row(label: str, show: Callable[[Costs], str]) -> list[str]:
        return [label, *(show(each) for each in costs)]

    def blank(label: str) -> list[str]:
        return row(label, lambda _: "")

    def in_bytes(label: str, value: Callable[[Costs], float]) -> list[str]:
        return row(label, lambda each: quantity(value(each), "B"))

    yield row("parameters of the whole model", lambda each: f"{each.parameters:,}")
    yield blank("memory")
    yield in_bytes("  weights", lambda each: each.weight_bytes)
    yield in_bytes("  optimizer slots", lambda each: each.slot_bytes)
    yield in_bytes("  batch and seeds", lambda each: each.other_bytes)
    yield in_bytes("  temporaries: activations, gradients", lambda each: each.temporary_bytes)
    yield in_bytes("  together", lambda each: each.total_bytes)
    yield blank("FLOPs of a step")
    yield row("  of the model, counted", lambda each: quantity(each.counted_flops, "FLOP"))
    yield row("  products in the program", lambda each: quantity(each.product_flops, "FLOP"))
    yield row("  XLA's cost analysis, loops once", lambda each: quantity(each.xla_flops, "FLOP"))
    yield blank("sent by collectives in a step")
    for kind, dims in _keys(costs, lambda each: (each.kind, each.dims)):
        yield in_bytes(f"  {kind} over {dims}", lambda each: each.sent(kind=kind, dims=dims))  # noqa: B023
    yield in_bytes("  together", lambda each: each.sent())
    yield blank("of that, by the rule that asks for it")
    for (rule,) in _keys(costs, lambda each: (each.rule,)):
        yield in_bytes(f"  {rule}", lambda each: each.sent(rule=rule))  # noqa: B023
    yield row("largest mesh that divides", lambda each: _mesh(each.largest))
    loops = max(each.unknown_loops for each in costs)
    if loops:
        yield row("loops counted as one trip", lambda each: str(each.unknown_loops))
    yield row("compiled in", lambda each: f"{each.compile_seconds:.1f} s")
    yield row("host memory, most so far", lambda each: quantity(each.peak_host_bytes, "B"))


def _keys(costs: list[Costs], key: Callable) -> list:
    """Distinct keys of all traffic, those that send most in the last column first."""
    found = itertools.chain(*(each.traffic for each in reversed(costs)))
    return list(dict.fromkeys(key(each) for each in found))


def _mesh(largest: Mapping[str, int]) -> str:
    return ",".join(f"{dim}:{size}" for dim, size in largest.items())
