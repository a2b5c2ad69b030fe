"""Compiling a fused model as its first source was, with a fresh or a grown optimizer."""

import keras

from keras_fusion import _keras
from keras_fusion.optimizers import Adafactor
from keras_fusion.optimizers.growth import grow_slots, read_state, write_state

OPTIMIZERS = ("fresh", "grow")


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


def compile_alike(fused, models, builder, weights, options, optimizer):
    """Compiles a fused model with the first source's settings, if that was compiled.

    Losses and functions are used as they are; metrics, which have state, and the optimizer are
    made anew.

    Args:
        fused: The fused model.
        models: The sources.
        builder: The `Builder` that made it.
        weights: Its `FusedWeight`s.
        options: `GraphOptions`.
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
        _grow(fused, models, builder, weights, options)


def _grow(fused, models, builder, weights, options):
    """Gives the fused model's optimizer the grown state of the sources'."""
    fused.optimizer.build(fused.trainable_variables)
    trained = set(map(id, fused.trainable_variables))
    variables, state = {}, {}
    for weight in weights:
        if id(weight.variable) not in trained:
            continue
        origins = builder.origins[id(weight.variable)]
        slots = [
            read_state(model.optimizer, {weight.path: origin})[weight.path]
            for model, origin in zip(models, origins, strict=True)
        ]
        # Inside a source the gradient is its weight in the mean times that of the source alone.
        scales = [1.0 if weight.averages else share for share in options.weights]
        limit = getattr(fused.optimizer, "min_dim_size_to_factor", 128)
        layouts = builder.arrays[id(weight.variable)].grow
        variables[weight.path] = weight.variable
        state[weight.path] = grow_slots(weight.axes, layouts, slots, scales, limit)
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
