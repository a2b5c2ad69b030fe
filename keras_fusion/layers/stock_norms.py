"""The axes of Keras' norms, and what a fusion makes of them (section 3.2)."""

from keras import layers

from keras_fusion.axes import Axes
from keras_fusion.errors import docs_page
from keras_fusion.layers.declarations import Declaration, register_fusion
from keras_fusion.layers.norms import FusableLayerNorm, FusableRMSNorm, group_widths
from keras_fusion.layers.stock import unless_blocks

# The norm of each class that normalises groups of units apart.
_GROUPED = {layers.LayerNormalization: FusableLayerNorm, layers.RMSNormalization: FusableRMSNorm}
_USE_RULE = f"use norm='rule': {docs_page('how_it_works', 'norms')}"


def _unitwise(layer, names, **options):
    """Declaration of a layer with weights along its axis."""
    dims = {layer.axis: "units"}
    return Declaration(
        {name: Axes(("units",), averages=False) for name in names},
        inputs={0: dims},
        outputs=(dims,),
        averages=False,
        unitwise=("units",),
        **options,
    )


@register_fusion(layers.BatchNormalization)
def batch_normalization(layer):
    names = [name for name, used in (("gamma", layer.scale), ("beta", layer.center)) if used]
    # Its statistics are those of each channel: a concatenation is exact.
    return _unitwise(layer, [*names, "moving_mean", "moving_variance"])


@register_fusion(layers.GroupNormalization)
def group_normalization(layer):
    names = [name for name, used in (("gamma", layer.scale), ("beta", layer.center)) if used]

    def per_group(source):
        channels = source.get_build_config()["input_shape"][source.axis]
        return channels // (channels if source.groups == -1 else source.groups)

    def resize(config, sources, layouts, norm):
        return type(layer), config | {"groups": layouts["units"].size // per_group(layer)}

    def refuse(sources, layouts, norm):
        sizes = [per_group(source) for source in sources]
        if len(set(sizes)) > 1:
            return f"the channels of a group must be equally many, received {sizes}"
        return unless_blocks(layouts["units"], "its groups")

    return _unitwise(layer, names, resize=resize, refuse=refuse)


@register_fusion(layers.LayerNormalization, layers.RMSNormalization)
def last_axis_norm(layer):
    if isinstance(layer, layers.RMSNormalization):
        names = ["scale"]
    else:
        names = [name for name, used in (("gamma", layer.scale), ("beta", layer.center)) if used]
    rank = len(layer.get_build_config()["input_shape"])
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    axes = sorted(axis % rank - rank for axis in axes)

    def resize(config, sources, layouts, norm):
        if norm == "rule":
            plain = {key: value for key, value in config.items() if key != "groups"}
            groups = {"groups": None} if "groups" in config else {}
            return type(layer), plain | groups
        grouped = next(g for stock, g in _GROUPED.items() if isinstance(layer, stock))
        widths = tuple(width for source in sources for width in group_widths(source))
        return grouped, config | {"groups": widths}

    def refuse(sources, layouts, norm):
        if norm == "rule":
            return None
        if axes != [-1]:
            return f"norm='property' normalises groups of the last axis only; {_USE_RULE}"
        if getattr(layer, "rms_scaling", False):
            return f"rms_scaling has no norm in groups; {_USE_RULE}"
        return unless_blocks(layouts["units_-1"], "its groups (norm='property')")

    def keeps(sources, layouts, norm):
        return norm == "property"

    dims = {axis: f"units_{axis}" for axis in axes}
    return Declaration(
        {name: Axes(tuple(dims.values()), averages=False) for name in names},
        inputs={0: dims},
        outputs=(dims,),
        averages=False,
        unitwise=tuple(dims.values()),
        resize=resize,
        refuse=refuse,
        keeps=keeps,
    )
