"""Configuration of a T5, and its named sizes: of the paper's Tables 8 and 9, and published."""

import dataclasses

from keras_fusion.errors import FusionError
from keras_fusion.options import NORMS

# (hidden_dim, num_heads, key_value_dim, intermediate_dim, num_layers)
SIZES = {
    "t5_mini": (256, 3, 64, 512, 8),
    "t5_small": (512, 6, 64, 1024, 8),
    "t5_medium": (1024, 12, 64, 2048, 8),
    "t5_s": (512, 6, 128, 1024, 8),
    "t5_m": (1024, 12, 128, 2048, 8),
    "t5_l": (2048, 24, 128, 4096, 8),
    "tiny_s": (64, 2, 32, 128, 2),
    "tiny_m": (128, 4, 32, 256, 2),
    "tiny_l": (256, 8, 32, 512, 2),
    "t5_v1_1_base": (768, 12, 64, 2048, 12),
    "t5_v1_1_large": (1024, 16, 64, 2816, 24),
    "t5_v1_1_xl": (2048, 32, 64, 5120, 24),
    "t5_v1_1_xxl": (4096, 64, 64, 10240, 24),
}
_TINY_VOCABULARY = 512

# The configuration field that is the size of each axis that fusion grows.
GROWING = {"hidden": "hidden_dim", "heads": "num_heads", "mlp": "intermediate_dim"}

_ACTIVATIONS = ("gelu", "relu", "silu")


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Configuration of a T5; fields carry KerasHub's names. The default is v1.1's architecture.

    Args:
        vocabulary_size: Rows of the embedding; for v1.1 32,100 tokens padded to 32,128.
        num_layers: Blocks of the encoder, and of the decoder.
        num_heads, hidden_dim, intermediate_dim, key_value_dim: Widths.
        dropout: Rate; 0 for v1.1's pretraining, 0.1 for fine-tuning.
        activation: `"gelu"` (the tanh approximation, as T5 has it), `"relu"` or `"silu"`.
        use_gated_activation: Whether the MLP multiplies by a second projection (v1.1).
        layer_norm_epsilon: Added to the mean square.
        tie_embedding_weights: Whether the head is the embedding, with logits scaled by
            hidden_dim^-0.5 (v1.0).
        relative_attention_num_buckets, relative_attention_max_distance: Of the position bias.
        norm_groups: Widths of the units that norms treat apart, after a fusion that kept the
            fusion property.
        blocks: `{"hidden" | "heads" | "mlp": widths}`, one width per source of the last fusion.

    Raises:
        ValueError: A size that is not a positive integer, a rate outside [0, 1), an unknown
            activation, groups or blocks that do not add up.

    Examples:
        >>> T5Config.from_size("t5_small").hidden_dim
        512
    """

    vocabulary_size: int = 32128
    num_layers: int = 8
    num_heads: int = 6
    hidden_dim: int = 512
    intermediate_dim: int = 1024
    key_value_dim: int = 64
    dropout: float = 0.0
    activation: str = "gelu"
    use_gated_activation: bool = True
    layer_norm_epsilon: float = 1e-6
    tie_embedding_weights: bool = False
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    norm_groups: tuple[int, ...] | None = None
    blocks: dict | None = dataclasses.field(default=None, hash=False)

    def __post_init__(self):
        if self.norm_groups is not None:
            object.__setattr__(self, "norm_groups", tuple(self.norm_groups))
        if self.blocks is not None:
            blocks = {name: tuple(widths) for name, widths in dict(self.blocks).items()}
            object.__setattr__(self, "blocks", blocks)
        self._check_numbers()
        self._check_groups()

    def _check_numbers(self):
        for field in (
            "vocabulary_size",
            "num_layers",
            "num_heads",
            "hidden_dim",
            "intermediate_dim",
            "key_value_dim",
            "relative_attention_num_buckets",
            "relative_attention_max_distance",
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field} must be a positive integer. Received: {field}={value!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1). Received: dropout={self.dropout!r}")
        if not self.layer_norm_epsilon > 0:
            raise ValueError(
                "layer_norm_epsilon must be above 0. Received: "
                f"layer_norm_epsilon={self.layer_norm_epsilon!r}"
            )
        # Of an encoder's buckets a quarter, of a decoder's half are for exact distances.
        exact = self.relative_attention_num_buckets // 2
        if exact < 2 or self.relative_attention_max_distance <= exact:
            raise ValueError(
                "position biases take at least 4 buckets, and a maximum distance beyond half of "
                "them. Received: "
                f"relative_attention_num_buckets={self.relative_attention_num_buckets}, "
                f"relative_attention_max_distance={self.relative_attention_max_distance}"
            )
        if self.activation not in _ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {_ACTIVATIONS}. "
                f"Received: activation={self.activation!r}"
            )

    def _check_groups(self):
        if self.norm_groups is not None and not _fill(self.norm_groups, self.hidden_dim):
            raise ValueError(
                f"norm_groups must add up to hidden_dim={self.hidden_dim}. "
                f"Received: norm_groups={self.norm_groups}"
            )
        for name, widths in (self.blocks or {}).items():
            if name not in GROWING or not _fill(widths, getattr(self, GROWING[name])):
                raise ValueError(
                    f"blocks are widths of {tuple(GROWING)} that add up to the axis' "
                    f"size. Received: blocks={self.blocks}"
                )

    @classmethod
    def from_size(cls, size, **overrides):
        """Returns the configuration of a named size, with fields overridden.

        Args:
            size: `t5_small`, `t5_medium` (Table 8), `t5_mini` (half as wide as the first), `t5_s`,
                `t5_m`, `t5_l` (Table 9), `tiny_s`, `tiny_m`, `tiny_l` (for experiments on a
                laptop: 512 tokens, 2 layers), or v1.1's published `t5_v1_1_base`,
                `t5_v1_1_large`, `t5_v1_1_xl`, `t5_v1_1_xxl`.
            **overrides: Any field.

        Raises:
            ValueError: An unknown size; the message lists the known ones.
        """
        if size not in SIZES:
            raise ValueError(f"size must be one of {sorted(SIZES)}. Received: size={size!r}")
        hidden_dim, num_heads, key_value_dim, intermediate_dim, num_layers = SIZES[size]
        fields = {
            "hidden_dim": hidden_dim,
            "num_heads": num_heads,
            "key_value_dim": key_value_dim,
            "intermediate_dim": intermediate_dim,
            "num_layers": num_layers,
            "vocabulary_size": _TINY_VOCABULARY if size.startswith("tiny") else 32128,
        }
        return cls(**(fields | overrides))

    def to_dict(self):
        """Returns a dictionary that JSON can hold; `from_dict` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields):
        """Returns the configuration from `to_dict`'s dictionary.

        Raises:
            ValueError: An unknown field; the message lists the known ones.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(names))
        if unknown:
            raise ValueError(f"a T5 configuration has the fields {names}. Received: {unknown}")
        return cls(**fields)

    def fused(self, others, norm, grow=GROWING):
        """Returns the configuration of the fusion of this with others (section 3.2).

        Args:
            others: Configurations of the other sources.
            norm: `"property"`: norms keep one group for each source, or its own groups;
                `"rule"`: one group.
            grow: Names of the axes that grow.
        """
        configs = [self, *others]
        widths = {
            axis: tuple(getattr(config, field) for config in configs)
            for axis, field in GROWING.items()
            if axis in grow
        }
        sizes = {GROWING[axis]: sum(values) for axis, values in widths.items()}
        groups = self.norm_groups if "hidden" not in grow else None
        if norm == "property" and "hidden" in grow:
            groups = tuple(
                width for config in configs for width in config.norm_groups or (config.hidden_dim,)
            )
        elif norm not in NORMS:
            raise FusionError(f"norm must be 'property' or 'rule'. Received: norm={norm!r}")
        return dataclasses.replace(self, **sizes, norm_groups=groups, blocks=widths)


def _fill(widths, size):
    """True if widths are positive integers that add up to a size."""
    return all(type(width) is int and width > 0 for width in widths) and sum(widths) == size
