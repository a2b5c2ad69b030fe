"""Checks before anything is fused; each failure is named with both values."""

import warnings

import keras
import numpy as np

from keras_fusion._keras import layers_in
from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.regions import pieces, region_of

# Configuration that does not change what a built layer computes.
_IGNORED = ("name", "blocks", "trainable", "seed", "build_config")
_IGNORED_ENDINGS = ("_initializer", "initializer")
# Values that are compared at a time.
_PIECE = 1 << 20
# Characters of a value that a message shows.
_LONGEST = 80


def raise_mismatches(messages):
    """Raises one `FusionError` naming every mismatch, if there is any."""
    if messages:
        raise FusionError(f"cannot fuse: {'; '.join(messages)}")


def differing_fields(configs, allowed=(), prefix=""):
    """`field: a vs b` for every field in which configurations differ, nested ones included."""
    messages = []
    for field in dict.fromkeys(field for config in configs for field in config):
        if field in allowed or field in _IGNORED or field.endswith(_IGNORED_ENDINGS):
            continue
        values = [config.get(field) for config in configs]
        if all(value == values[0] for value in values[1:]):
            continue
        if all(isinstance(value, list | tuple) for value in values):
            values = [{str(index): part for index, part in enumerate(value)} for value in values]
        nested = [_fields_of(value) for value in values]
        if None not in nested and len({value.get("class_name") for value in values}) == 1:
            messages += differing_fields(nested, allowed, f"{prefix}{field}.")
        else:
            shown = " vs ".join(_short(value) for value in values)
            messages.append(f"{prefix}{field}: {shown}")
    return messages


def _fields_of(value):
    """Fields of a nested configuration; None for what is none, or has nothing but a name."""
    if not isinstance(value, dict):
        return None
    inner = value.get("config") if "class_name" in value else value
    return inner if isinstance(inner, dict) and inner.keys() - {"name"} else None


def _short(value):
    """A configuration value as a person would write it, cut where it is long."""
    text = _written(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _written(value):
    if isinstance(value, dict) and "config" in value:
        inner = value["config"]
        if isinstance(inner, dict):
            return str(inner["name"] if inner.keys() == {"name"} else value.get("class_name"))
        return str(inner)
    return str(value)


def has_dropout(layer):
    """Returns whether any dropout inside a layer or model is switched on."""
    return any(
        getattr(inner, "rate", 0) > 0
        for inner in layers_in(layer)
        if isinstance(inner, keras.layers.Dropout)
    )


def equal_arrays(first, second):
    """Returns whether two arrays are equal; reads them up to the first difference."""
    return tuple(first.shape) == tuple(second.shape) and all(
        np.array_equal(first[piece], second[piece])
        for piece in pieces(region_of(..., first.shape), _PIECE)
    )


def equal_weights(weights):
    """Returns whether all sources have the same weights.

    Args:
        weights: `{path: array}` of every source; a mapping that stands there twice equals itself.
    """
    first = weights[0]
    return all(
        other is first
        or (
            first.keys() == other.keys()
            and all(equal_arrays(first[path], other[path]) for path in first)
        )
        for other in weights[1:]
    )


def warn_if_never_parting(sources, weights):
    """Warns where the fused copies would receive equal gradients for ever.

    Args:
        sources: Built layers.
        weights: `{path: array}` of every source.
    """
    if not weights[0] or any(has_dropout(source) for source in sources):
        return
    if equal_weights(weights):
        warnings.warn(
            "the sources are equal, and without noise or dropout their copies receive equal "
            "gradients and never part: the fused network stays the small one at n² the cost. "
            "Pass noise=0.01 or more, or train with dropout.",
            SymmetryWarning,
            stacklevel=4,
        )
