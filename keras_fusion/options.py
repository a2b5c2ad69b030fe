"""Options that every fusion has, of single layers and of whole graphs."""

import dataclasses

from keras_fusion.errors import FusionError
from keras_fusion.noise import Noise
from keras_fusion.operator import unequal_shares

NORMS = ("property", "rule")
FILLS = ("diagonal", "copies")
MOST_COPIES = 1_000
COUNTS = f"integers from 2 to {MOST_COPIES:,}"
"""Numbers of copies of one network, in words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Values of a fused weight's blocks.

    Args:
        weights: Weight of each source in the mean, adding up to 1; None is 1/n.
        norm: `"property"` normalises each source's units apart (section 3.2, option 1), `"rule"`
            all together (option 2).
        noise: The `Noise` that fills η.
        fill: `"diagonal"`: each source's block on the diagonal (Eq. 5). `"copies"`, for a network
            with itself: its weights over n in every block.
        asymmetry: Of copies: the largest deviation of a share from 1/n, over 1/n.

    Raises:
        FusionError: An unknown choice; an asymmetry of blocks that are no copies.
    """

    weights: tuple[float, ...] | None = None
    norm: str = "property"
    noise: Noise = Noise()
    fill: str = "diagonal"
    asymmetry: float = 0.0

    _choices = (("norm", NORMS), ("fill", FILLS))

    def __post_init__(self):
        for name, choices in self._choices:
            if getattr(self, name) not in choices:
                raise FusionError(
                    f"{name} must be one of {choices}. Received: {name}={getattr(self, name)!r}"
                )
        if self.asymmetry and self.fill != "copies":
            raise FusionError(
                "asymmetry is that of copies. "
                f"Received: asymmetry={self.asymmetry} with fill={self.fill!r}; use fill='copies'"
            )

    def shares(self, num_sources):
        """Shares of the copies in every block; None where blocks are on the diagonal."""
        return unequal_shares(num_sources, self.asymmetry) if self.fill == "copies" else None

    def copies_mismatches(self, sources):
        """Returns a message on sources whose weights cannot be copies of one another."""
        count = len({id(source) for source in sources})
        if self.fill == "diagonal" or count == 1:
            return []
        return [
            "fill='copies' puts a network's weights into every block, so it takes one network "
            f"several times. Received: {count} networks; use kf.self_fuse, or fill='diagonal'"
        ]


def mean_weights(weights, num_sources):
    """Weights of the mean, one for each source, as they were given or 1/n.

    Raises:
        FusionError: Another number of them, one that is not above 0, a sum that is not 1.
    """
    if weights is None:
        return (1 / num_sources,) * num_sources
    try:
        values = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        values = ()
    if len(values) != num_sources or not all(value > 0 for value in values):
        raise FusionError(
            f"weights must be {num_sources} numbers above 0, one for each source, that add up to "
            f"1. Received: weights={weights!r}"
        )
    if abs(sum(values) - 1) > 1e-6:
        raise FusionError(f"weights must add up to 1. Received: weights={weights!r}")
    return tuple(value / sum(values) for value in values)


def is_count(number):
    """Returns whether a number can be one of copies.

    A larger one than `MOST_COPIES` is a slip, and what is listed for each copy would fill the
    memory.
    """
    return type(number) is int and 2 <= number <= MOST_COPIES


def copies_of(model, n):
    """Returns a list that holds a network n times.

    Raises:
        FusionError: `n` is no number of copies.
    """
    if not is_count(n):
        raise FusionError(
            f"fusing a network with itself takes n copies, {COUNTS}. Received: n={n!r}"
        )
    return [model] * n
