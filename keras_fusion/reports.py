"""`kf.report`: what a fusion made of every weight."""

import dataclasses
import math

from keras_fusion.errors import FusionError
from keras_fusion.record import recall


@dataclasses.dataclass(frozen=True)
class WeightReport:
    """One weight of a fused network.

    Args:
        path: Its path in the model.
        shape: Its shape.
        sources: Its shape in each source.
        operation: "blocks", "concatenation", "mean" or "blocks, averaged".
        eta: Share of its entries that come from no source (η).
        factor: Factor of the sources' values: 1, or "1/n" where the mean is taken.
    """

    path: str
    shape: tuple[int, ...]
    sources: tuple[tuple[int, ...], ...]
    operation: str
    eta: float
    factor: str


@dataclasses.dataclass(frozen=True)
class FusionReport:
    """Report of a fusion, weight by weight; `str` of it is a table.

    Args:
        weights: A `WeightReport` for each.
    """

    weights: tuple[WeightReport, ...]

    def to_dict(self):
        """A dictionary that JSON can hold."""
        return {"weights": [dataclasses.asdict(weight) for weight in self.weights]}

    def __str__(self):
        rows = [("weight", "shape", "sources", "operation", "η", "factor")]
        rows += [
            (
                weight.path,
                _shape(weight.shape),
                ", ".join(map(_shape, weight.sources)),
                weight.operation,
                f"{100 * weight.eta:.0f} %",
                weight.factor,
            )
            for weight in self.weights
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def report(model):
    """Returns what a fusion made of every weight of a model.

    Args:
        model: What `kf.fuse` returned, in this process; or a model of fusable layers.

    Returns:
        A `FusionReport`.

    Raises:
        FusionError: Nothing is known of a fusion of this model.

    Examples:
        >>> print(kf.report(kf.fuse([a, b])))
        weight        shape   sources       operation  η     factor
        dense/kernel  5 x 8   5 x 4, 5 x 4  concatenation  0 %   1
    """
    weights = recall(model)
    if not weights:
        raise FusionError(
            "a report needs a model that a fusion made in this process, or fusable layers, which "
            f"write their blocks down. Received: model=`{model.name}`"
        )
    return FusionReport(tuple(map(_row, weights)))


def _row(weight):
    covered = [math.prod(shape) for shape in weight.source_shapes]
    shape = tuple(layout.size for layout in weight.layouts)
    growing = sum(layout.grows for layout in weight.layouts)
    shared = all(not layout.grows or any(layout.shared) for layout in weight.layouts)
    eta = 0.0
    if growing > 1 and not shared:
        eta = max(0.0, 1 - sum(covered) / math.prod(shape))
    operation = ("mean", "concatenation")[growing] if growing < 2 else "blocks"
    return WeightReport(
        weight.path,
        shape,
        weight.source_shapes,
        operation,
        eta,
        "1/n" if weight.averages else "1",
    )


def _shape(shape):
    return " x ".join(map(str, shape)) or "scalar"
