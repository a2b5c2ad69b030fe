"""Fusing KerasHub's backbones and tasks in memory.

The result is of the stock class wherever that computes what is promised: for one network, and with
`norm="rule"`. With `norm="property"` different networks give a backbone whose norms are grouped.
"""

import re

import keras
import ml_dtypes
import numpy as np
from keras import ops

from keras_fusion import _keras
from keras_fusion.compiling import SlotGrowth, compile_alike, compile_mismatches
from keras_fusion.errors import FusionError
from keras_fusion.families.fusing import FamilyFusion, Growth
from keras_fusion.families.grouped import group_norms
from keras_fusion.families.table import family_of
from keras_fusion.layers import checks
from keras_fusion.layers.tree import to_numpy
from keras_fusion.layers.values import ArrayInitializer
from keras_fusion.operator import unequal_shares
from keras_fusion.record import FusedWeight, remember

_BATCH, _LENGTH = 2, 6
# Rounding errors that pile up through a network, over the spacing of its numbers.
_ROUNDING = 1e4


def is_stock(model):
    """Returns whether a model is a KerasHub backbone or task of a family that has a table."""
    backbone = getattr(model, "backbone", model)
    stock = _stock_class(backbone)
    return stock.__module__.startswith("keras_hub.") and bool(_family(stock))


def fuse_stock(models, growth, norm="property", check=True, optimizer="fresh"):
    """Fuses KerasHub models of one class; see `kf.fuse`.

    Args:
        models: Backbones, or tasks.
        growth: A `Growth`.
        norm: `"property"` or `"rule"`, which are the same for a network with itself.
        check: Whether to compare the result with the mean of the sources on random inputs, where
            it promises that.
        optimizer: `"fresh"` or `"grow"`, see `kf.fuse`.

    Returns:
        The fused model.

    Raises:
        FusionError: Naming everything that keeps the sources from being fused, before anything is
            built; or that the result is not what it should be.
    """
    backbones = [getattr(model, "backbone", model) for model in models]
    checks.raise_mismatches(_class_mismatches(models, backbones))
    checks.raise_mismatches(compile_mismatches(models, optimizer))
    stock = _stock_class(backbones[0])
    family, names = _family(stock)
    variables = [_variables(model) for model in models]
    configs = [_config(backbone, names) for backbone in backbones]
    arrays = [
        {
            key: to_numpy(variable)
            for key, variable in zip(variables[0], source.values(), strict=True)
        }
        for source in variables
    ]
    fusion = FamilyFusion(family, names, configs, arrays, growth, is_exact=norm == "property")
    is_self = all(backbone is backbones[0] for backbone in backbones)
    exact = is_self or norm == "property" or not fusion.widths
    with _keras.deferred():
        backbone = stock.from_config(fusion.config)
    groups = fusion.widths if exact and not is_self else None
    if groups:
        group_norms(backbone, groups)
    fused = backbone
    if models[0] is not backbones[0]:
        fused = _task(models, backbone, names, growth)
        if groups:
            group_norms(fused, groups)
    growths = _give_weights(fused, fusion, variables)
    remember(fused, [entry.weight for entry in growths])
    if check and exact and not growth.noise.scale:
        _check(models, fused, fusion)
    compile_alike(fused, models, growths, optimizer)
    return fused


def grow_stock(model, factors, *, noise, fill, asymmetry, check, optimizer):
    """Grows a KerasHub backbone or task along named axes; see `kf.grow`.

    Args:
        model: A backbone or a task.
        factors: `{axis: factor}`: "mlp", "heads" (with the heads of the keys), "hidden".
        noise, fill, asymmetry, check, optimizer: As for `kf.grow`.

    Raises:
        FusionError: Naming what cannot grow, before anything is built.
    """
    if noise.scale and "hidden" not in factors:
        raise FusionError(
            "noise fills what no copy covers, and there is nothing of the kind unless `hidden` "
            f"grows. Received: noise={noise.scale}; use fill='copies' with asymmetry=0.1"
        )
    for factor in dict.fromkeys(factors.values()):
        axes = {axis for axis, own in factors.items() if own == factor}
        if "heads" in axes and "key_heads" in _names(model).sizes:
            axes.add("key_heads")
        shares = unequal_shares(factor, asymmetry) if fill == "copies" else None
        growth = Growth((1 / factor,) * factor, frozenset(axes), noise, shares)
        model = fuse_stock([model] * factor, growth, check=check, optimizer=optimizer)
    return model


def _names(model):
    return _family(_stock_class(getattr(model, "backbone", model)))[1]


def _family(stock):
    return family_of(stock.__name__, "keras_hub")


def _stock_class(backbone):
    return getattr(backbone, "stock_class", None) or type(backbone)


def _class_mismatches(models, backbones):
    messages = []
    for index, (model, backbone) in enumerate(zip(models, backbones, strict=True)):
        if _stock_class(model) is not _stock_class(models[0]):
            messages.append(
                f"source {index} is a {type(model).__name__}, the first a "
                f"{type(models[0]).__name__}"
            )
        if getattr(backbone, "group_widths", None):
            messages.append(
                f"source {index} has grouped norms already; fuse all networks in one call"
            )
        for layer in _keras.layers_in(model):
            state = "LoRA" if getattr(layer, "lora_enabled", False) else None
            state = "quantised" if getattr(layer, "quantization_mode", None) else state
            if state:
                messages.append(
                    f"source {index}: layer `{layer.path}` has {state} weights; merge them into "
                    "plain ones before fusing"
                )
    return messages


def _config(backbone, names):
    config = backbone.get_config()
    return config | {
        field: getattr(backbone, attribute)
        for field, attribute in names.extra.items()
        if field not in config
    }


def _variables(model):
    """`{path: variable}`; what follows a `#` tells variables of one path apart."""
    variables = {}
    for variable in model.variables:
        key, number = variable.path, 1
        while key in variables:
            number += 1
            key = f"{variable.path}#{number}"
        variables[key] = variable
    return variables


def _task(models, backbone, names, growth):
    """The task around a fused backbone."""
    first = models[0]
    config = first.get_config() | {"backbone": backbone, "preprocessor": first.preprocessor}
    if growth.grow is None or "hidden" in growth.grow:
        for field in names.task_sizes:
            if config.get(field) is not None:
                config[field] = sum(model.get_config()[field] for model in models)
    with _keras.kept_initializers():
        return type(first)(**config)


def _give_weights(fused, fusion, variables):
    """Gives a fused model its values; returns a `SlotGrowth` for each weight that grew."""
    made = list(_variables(fused).values())
    expected = [(_plain(key), tuple(array.shape)) for key, array in fusion.arrays.items()]
    got = [(_plain(variable.path), tuple(variable.shape)) for variable in made]
    if got != expected:
        raise FusionError(
            f"the wider {type(fused).__name__} has other weights than the table of its family "
            f"says: {sorted(set(got) ^ set(expected))}; please report it"
        )
    growths = []
    origins = zip(*(source.values() for source in variables), strict=True)
    shares = fusion.growth.weights
    for key, variable, sources in zip(fusion.arrays, made, origins, strict=True):
        _keras.initialize(variable, ArrayInitializer(fusion.arrays[key]))
        block = fusion.blocks.get(key)
        if block is None:
            continue
        weight = FusedWeight(variable.path, variable, block.axes, block.layouts, block.averages)
        scales = [
            (1.0 if block.averages else share) / fusion.factor(key, source)
            for source, share in enumerate(shares)
        ]
        growths.append(SlotGrowth(weight, block.grow, sources, scales))
    return growths


def _plain(key):
    """A path without the numbers that Keras gives to layers of one class."""
    return re.sub(r"_\d+(?=/|#|$)|#.*", "", key)


def _check(models, fused, fusion):
    """Compares a fused model with the mean of its sources on random inputs.

    Raises:
        FusionError: They differ by more than rounding.
    """
    inputs = _inputs(models[0])
    sources = [_outputs(model, inputs) for model in models]
    results = _outputs(fused, inputs)
    for index, result in enumerate(results):
        parts = [source[index] for source in sources]
        if result.shape == parts[0].shape:
            pairs = zip(fusion.growth.weights, parts, strict=True)
            candidates = [sum(weight * part for weight, part in pairs)]
        else:
            # The hidden units of a backbone; a tied head's readout has the factors of the mean.
            factors = [fusion.readout_factor(source) for source in range(len(parts))]
            scaled = [factor * part for factor, part in zip(factors, parts, strict=True)]
            candidates = [np.concatenate(arrays, axis=-1) for arrays in (parts, scaled)]
        distance = min(np.max(np.abs(result - candidate)) for candidate in candidates)
        scale = max(np.max(np.abs(candidate)) for candidate in candidates)
        spacing = float(ml_dtypes.finfo(models[0].compute_dtype).eps)
        if not distance <= min(0.1, _ROUNDING * spacing) * max(scale, 1e-3):
            raise FusionError(
                f"output {index} of the fused {type(fused).__name__} is {distance:.3g} away from "
                f"the mean of its sources, of at most {scale:.3g}: the table of its family is "
                "wrong, please report it. check=False returns the model all the same"
            )


def _inputs(model):
    """Random inputs of a model."""
    rng = np.random.default_rng(0)
    arrays = {}
    for spec in model.inputs:
        shape = [_BATCH, *(size or _LENGTH for size in spec.shape[1:])]
        if "int" not in spec.dtype:
            arrays[spec.name] = rng.normal(size=shape).astype("float32")
        elif "mask" in spec.name or "segment" in spec.name:
            arrays[spec.name] = np.full(shape, int("padding" in spec.name), "int32")
        else:
            arrays[spec.name] = rng.integers(0, 3, shape).astype("int32")
    return arrays


def _outputs(model, inputs):
    """A model's outputs, as double precision arrays."""
    feed = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    outputs = keras.tree.flatten(model(feed, training=False))
    return [
        ops.convert_to_numpy(ops.cast(output, "float32")).astype("float64") for output in outputs
    ]
