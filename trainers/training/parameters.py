"""Overview of what a run keeps in memory: each weight with its axes and sharding, and totals."""

import dataclasses
import math
import os

import numpy as np

from trainers.engines.base import Engine
from trainers.engines.sharding import declared_weights
from trainers.files import write_text
from trainers.training.columns import aligned

_HEAD = ("weight", "shape", "axes", "split along", "dtype", "parameters", "bytes", "on a device")
_NUMBERS = (5, 6, 7)
# Kinds of variables of a run's state by the beginnings of their names, and what is said of each.
_KINDS = {"model/": "weights", "optimizer/": "optimizer", "seeds/": "seeds of dropout"}


@dataclasses.dataclass(frozen=True)
class Total:
    """Sum over variables; bytes are those of one copy, and those that each device holds."""

    variables: int = 0
    parameters: int = 0
    bytes: int = 0
    on_device: int = 0

    def __add__(self, other: "Total") -> "Total":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Total(*(a + b for a, b in pairs))


@dataclasses.dataclass(frozen=True)
class Overview:
    """Overview of the state of a run.

    Attributes:
        rows: texts of the columns, one row for each weight of the model.
        totals: kind of variable (weights, optimizer, …) to its `Total`.
    """

    rows: tuple[tuple[str, ...], ...]
    totals: dict[str, Total]

    @property
    def text(self) -> str:
        """The table, and the totals below it."""
        totals = [("total", "variables", "parameters", "bytes", "on a device")]
        for kind, total in (*self.totals.items(), ("all", sum(self.totals.values(), Total()))):
            totals.append((kind, *(f"{number:,}" for number in dataclasses.astuple(total))))
        lines = aligned([_HEAD, *self.rows], _NUMBERS)
        return "\n".join([*lines, "", *aligned(totals, range(1, 5))]) + "\n"

    @property
    def summary(self) -> str:
        """The totals in one line."""
        weights, all_of_it = self.totals["weights"], sum(self.totals.values(), Total())
        return (
            f"{weights.parameters:,} parameters in {weights.variables} weights, "
            f"{megabytes(weights.bytes)}; with the optimizer {megabytes(all_of_it.bytes)}, of "
            f"which a device holds {megabytes(all_of_it.on_device)}"
        )


def overview(model, engine: Engine) -> Overview:
    """Returns the overview of a model whose engine has compiled it."""
    axes = {id(variable): names.names for variable, names in declared_weights(model).values()}
    rows, totals = [], dict.fromkeys(_KINDS.values(), Total())
    for name, variable in engine.variables.items():
        total = _total(variable, engine.parts(name))
        prefix = name.partition("/")[0] + "/"
        totals[_KINDS[prefix]] += total
        if prefix == "model/":
            rows.append(
                (
                    name.removeprefix(prefix),
                    " x ".join(map(str, variable.shape)) or "scalar",
                    ", ".join(axes.get(id(variable), ())) or "not declared",
                    ", ".join(dim or "-" for dim in engine.splits(name)) or "-",
                    str(variable.dtype),
                    *(f"{number:,}" for number in dataclasses.astuple(total)[1:]),
                )
            )
    return Overview(tuple(rows), {kind: total for kind, total in totals.items() if total.variables})


def _total(variable, parts: int) -> Total:
    count = math.prod(variable.shape)
    size = count * np.dtype(variable.dtype).itemsize
    return Total(1, count, size, size // parts)


def megabytes(size: int) -> str:
    """A number of bytes in MB: 1,234,567 is "1.23 MB"."""
    return f"{size / 1e6:,.2f} MB"


def write(path: str | os.PathLike, model, engine: Engine) -> str:
    """Writes the overview into a file, and returns its summary."""
    seen = overview(model, engine)
    write_text(path, seen.text)
    return seen.summary
