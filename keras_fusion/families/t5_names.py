"""T5's weights in the three libraries that have it: a row is one weight, under three names.

`{i}` is a block's number. KerasHub's names are paths of attributes of its backbone, since the paths
of its variables are not unique. Axes are those of the kernels in Keras, see
`keras_fusion.families.notation`; transformers' are in the table of its family.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One weight.

    Args:
        keras_fusion: Its path in `kf.models.T5`.
        keras_hub: Attributes from KerasHub's `T5Backbone`.
        transformers: Its name in a file of transformers.
        axes: Its axes in both of the former.
    """

    keras_fusion: str
    keras_hub: str
    transformers: str
    axes: str


EMBEDDING = Row(
    "token_embedding/embeddings",
    "token_embedding.embeddings",
    "shared.weight",
    "vocabulary hidden",
)
HEAD = Row(
    "head/kernel", "token_embedding.reverse_embeddings", "lm_head.weight", "+hidden vocabulary"
)

_ATTENTION = (
    ("query", "query_projector", "q", "+hidden heads*head_dim"),
    ("key", "key_projector", "k", "+hidden heads*head_dim"),
    ("value", "value_projector", "v", "+hidden heads*head_dim"),
    ("attention_output", "output_projector", "o", "+heads*head_dim hidden"),
)
# Ours and KerasHub's are called alike; transformers' depend on whether the MLP is gated.
_PLAIN = {"input_projector": "wi", "output_projector": "wo"}
_GATED = {"input_projector": "wi_0", "gate_projector": "wi_1", "output_projector": "wo"}


def rows(num_layers, gated, has_head):
    """All rows of a T5.

    Args:
        num_layers: Blocks of the encoder, and of the decoder.
        gated: Whether its MLP is gated.
        has_head: Whether its head is one of its own.
    """
    table = [EMBEDDING]
    for stack, kinds in (("encoder", ("self",)), ("decoder", ("self", "cross"))):
        table.append(
            Row(
                f"{stack}/position_bias/table",
                f"{stack}_transformer_layers.0.self_attention.relative_attention_bias",
                f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                "buckets heads",
            )
        )
        for number in range(num_layers):
            table += _block(stack, kinds, number, _GATED if gated else _PLAIN)
        table.append(
            Row(
                f"{stack}/final_norm/scale",
                f"{stack}_layer_norm.weight",
                f"{stack}.final_layer_norm.weight",
                "norm: hidden",
            )
        )
    return table + ([HEAD] if has_head else [])


def _block(stack, kinds, number, projectors):
    ours = f"{stack}/block_{number}"
    hub = f"{stack}_transformer_layers.{number}"
    for place, kind in enumerate(kinds):
        theirs = f"{stack}.block.{number}.layer.{place}"
        attention = "SelfAttention" if kind == "self" else "EncDecAttention"
        yield Row(
            f"{ours}/{kind}_attention_norm/scale",
            f"{hub}.{kind}_attention_layer_norm.weight",
            f"{theirs}.layer_norm.weight",
            "norm: hidden",
        )
        for name, hub_name, their_name, axes in _ATTENTION:
            yield Row(
                f"{ours}/{kind}_attention/{name}/kernel",
                f"{hub}.{kind}_attention.{hub_name}.kernel",
                f"{theirs}.{attention}.{their_name}.weight",
                axes,
            )
    theirs = f"{stack}.block.{number}.layer.{len(kinds)}"
    yield Row(
        f"{ours}/feed_forward_norm/scale",
        f"{hub}.layer_norm.weight",
        f"{theirs}.layer_norm.weight",
        "norm: hidden",
    )
    for name, their_name in projectors.items():
        axes = "+mlp hidden" if name == "output_projector" else "+hidden mlp"
        yield Row(
            f"{ours}/feed_forward/{name}/kernel",
            f"{hub}.{name}.kernel",
            f"{theirs}.DenseReluDense.{their_name}.weight",
            axes,
        )
