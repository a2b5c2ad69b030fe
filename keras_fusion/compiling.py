"""Compiling a fused model as its first source was, with a fresh or a grown optimizer."""

from collections.abc import Mapping
from typing import NamedTuple

import keras

from keras_fusion import _keras
from keras_fusion.layers.tree import own_weights_inside, weight_axes
from keras_fusion.optimizers import Adafactor
from keras_fusion.optimizers.growth import grow_slots, read_state, write_state
from keras_fusion.record import FusedWeight

OPTIMIZERS = ("fresh", "grow")


class SlotGrowth(NamedTuple):
    """Growth of the optimizer state of a weight.

    Args:
        weight: The `FusedWeight`.
        grow: `{axis: Layout}`, or names of the axes that grow.
        origins: The weight's variable in each source.
        scales: For each source, its weight in the mean over what the fused weight's block was
            multiplied by.
    """

    weight: FusedWeight
    grow: Mapping | set
    origins: tuple
    scales: list


def declared_growths(fused, sources, options):
    """`SlotGrowth` of each weight of a fused layer or model that declares its axes.

    Args:
        fused: The result.
        sources: What it was fused from.
        options: `FusionOptions`.
    """
    made, *given = [own_weights_inside(layer) for layer in (fused, *sources)]
    factors = sources[0].weight_factors(sources, options)
    growths = []
    for path, axes in weight_axes(fused).items():
        averages = axes.averages_here(options.grow)
        weight = FusedWeight(path, made[path], axes, (), averages)
        scales = [1.0 if averages else share for share in options.weights]
        divisors = factors.get(path, [1.0] * len(sources))
        scales = [scale / divisor for scale, divisor in zip(scales, divisors, strict=True)]
        origins = tuple(variables[path] for variables in given)
        growths.append(SlotGrowth(weight, options.grow, origins, scales))
    return growths


def compile_mismatches(models, optimizer):
    """Returns messages on optimizers that cannot be grown."""
    if optimizer not in OPTIMIZERS:
        return [f"optimizer must be one of {OPTIMIZERS}. Received: optimizer={optimizer!r}"]
    if optimizer == "fresh":
        return []
    kinds = [type(getattr(model, "optimizer", None)) for model in models]
    if not all(issubclass(kind, keras.optimizers.Adam | Adafactor) for kind in kinds):
        return [
            "optimizer='grow' needs sources that are compiled with Adam, AdamW or "
            "keras_fusion.optimizers.Adafactor. Received: "
            + ", ".join(kind.__name__ for kind in kinds)
            + "; train them first, or leave it at 'fresh'"
        ]
    if len(set(kinds)) > 1 or not all(model.optimizer.built for model in models):
        return ["optimizer='grow' needs optimizers of one class that have trained their models"]
    return []


def compile_alike(fused, models, growths, optimizer):
    """Compiles a fused model with the first source's settings, if that was compiled.

    Losses and functions are used as they are; metrics, which have state, and the optimizer are
    made anew.

    Args:
        fused: The fused model.
        models: The sources.
        growths: A `SlotGrowth` for each weight that came of the sources'.
        optimizer: `"fresh"`, or `"grow"` for the sources' state, grown by the map of the weights.
    """
    arguments = _keras.compile_arguments(models[0])
    if arguments is None:
        return
    arguments["optimizer"] = _fresh(arguments["optimizer"])
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(_fresh_metric, arguments.get(name))
    fused.compile(**arguments)
    if optimizer == "grow":
        _grow(fused, models, growths)


def _grow(fused, models, growths):
    """Gives the fused model's optimizer the grown state of the sources'."""
    fused.optimizer.build(fused.trainable_variables)
    trained = set(map(id, fused.trainable_variables))
    limit = getattr(fused.optimizer, "min_dim_size_to_factor", 128)
    variables, state = {}, {}
    for weight, grow, origins, scales in growths:
        if id(weight.variable) not in trained:
            continue
        slots = [
            read_state(model.optimizer, {weight.path: origin})[weight.path]
            for model, origin in zip(models, origins, strict=True)
        ]
        variables[weight.path] = weight.variable
        # The gradient inside a source is its weight in the mean times that of the source alone.
        state[weight.path] = grow_slots(weight.axes, grow, slots, scales, limit)
    write_state(
        fused.optimizer,
        variables,
        state,
        int(keras.ops.convert_to_numpy(models[0].optimizer.iterations)),
    )


def _fresh(optimizer):
    """A new optimizer of the same settings."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    return type(optimizer).from_config(_keras.optimizer_config(optimizer))


def _fresh_metric(metric):
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    with keras.saving.CustomObjectScope({type(metric).__name__: type(metric)}):
        try:
            return type(metric).from_config(metric.get_config())
        except (TypeError, ValueError, NotImplementedError):
            return metric
