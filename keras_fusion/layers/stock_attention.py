"""The axes of Keras' attentions, and what all attentions have in common."""

from keras import layers

from keras_fusion.axes import Axes
from keras_fusion.layers.declarations import Declaration, register_fusion
from keras_fusion.layers.tree import own_weights_inside

_INPUTS = {"query": {-1: "query"}, "value": {-1: "value"}, "key": {-1: "key"}}


def attention(layer, units, **options):
    """Declaration of an attention: its heads stand side by side.

    Args:
        layer: The layer.
        units: `{projection: dimensions that it makes}`, for "query", "key", "value" and "gate";
            the output sums over those of the gate.
        **options: More of the `Declaration`.
    """
    weights = {
        "attention_output/kernel": Axes((*units["gate"], "output"), sums=Axes(units["gate"]).names),
        "attention_output/bias": Axes(("output",)),
    }
    for name, made in units.items():
        source = "query" if name == "gate" else name
        weights[f"{name}/kernel"] = Axes((source, *made), sums=(source,))
        weights[f"{name}/bias"] = Axes(made)
    paths = own_weights_inside(layer)
    return Declaration(
        {path: axes for path, axes in weights.items() if path in paths},
        inputs=_INPUTS,
        outputs=({-1: "output"}, {1: "heads"}),
        **options,
    )


def multi_head(layer, units, **options):
    """Declaration of an attention with arguments `num_heads` and `output_shape`, as `attention`."""

    def resize(config, sources, layouts, norm):
        if "output" in layouts:
            config["output_shape"] = layouts["output"].size
        elif config["output_shape"] is None:
            config["output_shape"] = own_weights_inside(layer)["attention_output/kernel"].shape[-1]
        return type(layer), config

    sizes, alone = {"num_heads": "heads"}, {"heads": ("heads",)}
    return attention(layer, units, sizes=sizes, alone=alone, resize=resize, **options)


@register_fusion(layers.MultiHeadAttention)
def multi_head_attention(layer):
    keys, values = ("heads", "key_dim"), ("heads", "value_dim")
    units = {"query": keys, "key": keys, "value": values, "gate": values}
    return multi_head(layer, units, fixed=("key_dim", "value_dim"))


@register_fusion(layers.GroupQueryAttention)
def grouped_query_attention(layer):
    queries, keys = ("heads", "head_dim"), ("key heads", "head_dim")
    units = {"query": queries, "key": keys, "value": keys, "gate": queries}

    def refuse(sources, layouts, norm):
        ratios = [source.num_query_heads // source.num_key_value_heads for source in sources]
        if len(set(ratios)) > 1:
            return f"the query heads of each key head must be equally many, received {ratios}"
        return None

    return attention(
        layer,
        units,
        sizes={"num_query_heads": "heads", "num_key_value_heads": "key heads"},
        fixed=("head_dim",),
        alone={"heads": ("heads", "key heads")},
        # The layer's output is as wide as its query.
        tied={"output": "query"},
        averages=False,
        unitwise=("query", "value", "key"),
        refuse=refuse,
    )
