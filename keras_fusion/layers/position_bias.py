"""T5's relative position bias, whose heads can be fused."""

import math

import keras
from keras import ops

from keras_fusion.axes import Axes
from keras_fusion.layers.fusable import Fusable


@keras.saving.register_keras_serializable(package="keras_fusion")
class FusableRelativePositionBias(Fusable, keras.layers.Layer):
    """T5's relative position bias: one column per head of a table of distance buckets.

    Small distances have a bucket each, larger ones share buckets that widen logarithmically up to
    `max_distance` (Raffel et al., 2019, section 2.1). Fused heads keep their own columns.

    Args:
        num_heads: Number of heads.
        num_buckets: Number of buckets.
        max_distance: Distance from which on all positions share the last bucket.
        bidirectional: If true, positions ahead have buckets of their own (half of them).
        initializer: Initializer of the table.

    Call arguments:
        queries, keys: Tensors (batch, length, …) whose lengths count; `keys` defaults to
            `queries`.

    Returns:
        Tensor (1, heads, target length, source length).

    Raises:
        ValueError: Too few buckets, or a `max_distance` that has a bucket of its own.
    """

    default_axes = ("buckets", "heads")

    def __init__(
        self,
        num_heads,
        num_buckets=32,
        max_distance=128,
        bidirectional=True,
        initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        exact = num_buckets // (4 if bidirectional else 2)
        if exact < 1 or max_distance <= exact:
            raise ValueError(
                "a position bias needs at least 4 buckets, or 2 where it is not bidirectional, and "
                f"a max_distance above its {exact} exact distances. Received: "
                f"num_buckets={num_buckets}, max_distance={max_distance}, "
                f"bidirectional={bidirectional}"
            )
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape=None):
        del input_shape
        self.table = self.add_weight(
            name="table",
            shape=(self.num_buckets, self.num_heads),
            initializer=self.initializer,
            autocast=False,  # gradients of many pairs of positions add up in its own dtype
        )

    def weight_axes(self):
        return {"table": Axes(self.axes)}

    def sizes(self):
        return {"num_heads": self.axes[1]}

    def default_grow(self):
        return frozenset(self.axes[1:])

    def build_fused(self, sources, options):
        del sources, options
        self.build()

    def call(self, queries, keys=None):
        """Returns the bias between sequences (batch, length, …); `keys` defaults to `queries`."""
        keys = queries if keys is None else keys
        return self.between(ops.shape(queries)[1], ops.shape(keys)[1])

    def between(self, target_length, source_length, offset=0):
        """Returns the bias (1, heads, target length, source length) between positions.

        Args:
            target_length, source_length: Lengths of the two sequences.
            offset: Position of the first target; for decoding one position at a time.
        """
        ahead = ops.expand_dims(ops.arange(source_length), 0) - ops.expand_dims(
            ops.arange(target_length) + offset, 1
        )
        # A product, not a gather: that one's gradient adds up millions of numbers in a few cells,
        # one after the other.
        chosen = ops.one_hot(self.buckets(ahead), self.num_buckets, dtype=self.variable_dtype)
        bias = ops.einsum("tsb,bh->hts", chosen, self.table)
        return ops.cast(ops.expand_dims(bias, 0), self.compute_dtype)

    def buckets(self, ahead):
        """Returns the buckets of relative positions (source less target, an integer tensor)."""
        count = self.num_buckets
        buckets = ops.zeros_like(ahead)
        if self.bidirectional:
            count //= 2
            buckets = ops.cast(ahead > 0, "int32") * count
            distance = ops.absolute(ahead)
        else:
            distance = ops.maximum(-ahead, 0)
        exact = count // 2
        ratio = ops.cast(ops.maximum(distance, 1), "float32") / exact
        wide = exact + ops.cast(
            ops.log(ratio) / math.log(self.max_distance / exact) * (count - exact), "int32"
        )
        return buckets + ops.where(distance < exact, distance, ops.minimum(wide, count - 1))

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "bidirectional": self.bidirectional,
            "initializer": keras.initializers.serialize(self.initializer),
        }
