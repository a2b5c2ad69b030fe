"""Named axes: the one declaration that fusion, sharding and monitoring read.

A weight names its axes, in the manner of Mesh TensorFlow, and says which of them its operation
sums over. A T5 query kernel is `Axes(("hidden", "heads"), sums=("hidden",))`; an embedding looks
up and sums over nothing: `Axes(("vocabulary", "hidden"))`. Everything that happens to a weight
when networks are fused follows from this and from the set of axes that *grow*.
"""

import dataclasses

from keras_fusion.errors import FusionError


@dataclasses.dataclass(frozen=True)
class Axes:
    """The names of a weight's axes, and what its operation does with them.

    Args:
        names: One name per dimension of the weight, in order. A joined dimension, such as
            num_heads · key_value_dim, is one axis.
        sums: The names that the weight's operation sums over (the inputs of a matrix).
        averages: Whether the mean of several such weights computes the mean of their outputs.
            True for whatever acts linearly on its input; a norm's scale does not.

    Raises:
        ValueError: A name is repeated, or `sums` holds a name that is not among `names`.

    Example:
        >>> Axes(("hidden", "mlp"), sums=("hidden",)).outputs
        ('mlp',)
    """

    names: tuple[str, ...]
    sums: tuple[str, ...] = ()
    averages: bool = True

    def __post_init__(self):
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"Each axis needs its own name. Received: names={self.names}")
        unknown = set(self.sums) - set(self.names)
        if unknown:
            raise ValueError(
                f"`sums` must be among the axes {self.names}. Received: sums={self.sums}"
            )

    @property
    def outputs(self):
        """Names of the axes that the operation does not sum over."""
        return tuple(name for name in self.names if name not in self.sums)

    def growing(self, grow):
        """Names of this weight's axes that grow, in the order of its dimensions."""
        return tuple(name for name in self.names if name in grow)

    def divisor(self, grow, num_sources):
        """What the sources' values are divided by: n where the paper's AVG acts, else 1.

        The fused network averages where the sources' representations meet again: at a weight
        none of whose output axes grows (section 3.1, DF = AVG ∘ F).
        """
        return 1 if any(name in grow for name in self.outputs) else num_sources

    def slices(self, shape, blocks):
        """The position of every source's block in a fused array.

        Args:
            shape: The shape of the fused array.
            blocks: `{axis name: widths}`, one width per source, in any unit: a joined axis of
                several entries a head may be described by its number of heads.

        Returns:
            A list with one tuple of slices per source; axes without blocks are whole.

        Example:
            >>> Axes(("hidden", "heads")).slices((4, 8), {"hidden": (1, 3)})[1]
            (slice(1, 4, None), slice(0, 8, None))
        """
        num_sources = max((len(blocks[name]) for name in self.names if name in blocks), default=0)
        positions = []
        for source in range(num_sources):
            position = []
            for name, size in zip(self.names, shape, strict=True):
                if name not in blocks:
                    position.append(slice(0, size))
                    continue
                widths = blocks[name]
                unit, rest = divmod(size, sum(widths))
                if rest:
                    raise FusionError(
                        f"blocks of axis `{name}` must add up to a divisor of its size {size}. "
                        f"Received: widths={tuple(widths)}"
                    )
                start = unit * sum(widths[:source])
                position.append(slice(start, start + unit * widths[source]))
            positions.append(tuple(position))
        return positions
