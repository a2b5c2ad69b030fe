"""Compiling a fused model as its first source was."""

import keras

from keras_fusion import _keras


def compile_alike(fused, source):
    """Compiles a fused model with a source's settings, if that was compiled.

    Losses and functions are used as they are; metrics, which have state, and the optimizer are
    made anew.

    Args:
        fused: The fused model.
        source: The model whose settings are used.
    """
    arguments = _keras.compile_arguments(source)
    if arguments is None:
        return
    arguments["optimizer"] = _fresh(arguments["optimizer"])
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(_fresh_metric, arguments.get(name))
    fused.compile(**arguments)


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
