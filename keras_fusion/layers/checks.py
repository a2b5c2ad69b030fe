"""What must hold before anything is fused, each failure named with both values."""

import warnings

import keras
import numpy as np

from keras_fusion.errors import FusionError, SymmetryWarning
from keras_fusion.layers.tree import to_numpy

# Configuration that does not change what a built layer computes.
_IGNORED = ("name", "blocks", "groups", "trainable", "seed", "build_config")
_IGNORED_ENDINGS = ("_initializer", "initializer")


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
        if all(isinstance(value, dict) and "class_name" not in value for value in values):
            messages += differing_fields(values, allowed, f"{prefix}{field}.")
        else:
            shown = " vs ".join(_short(value) for value in values)
            messages.append(f"{prefix}{field}: {shown}")
    return messages


def _short(value):
    """A configuration value as a person would write it."""
    if isinstance(value, dict) and "config" in value:
        inner = value["config"]
        return str(inner.get("name", value.get("class_name")) if isinstance(inner, dict) else inner)
    return str(value)


def count_not_finite(array):
    """How many entries of an array are NaN or infinite.

    A sum is not finite where an entry is not, and one pass over the memory finds it; only then
    the entries are counted, since a sum may also overflow.
    """
    wide = np.float64 if array.dtype.itemsize >= 8 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=wide)
    if np.isfinite(total):
        return 0
    return int(array.size - np.count_nonzero(np.isfinite(array.astype(wide))))


def has_dropout(layer):
    """Whether any dropout inside a layer or model is switched on."""
    return any(
        getattr(inner, "rate", 0) > 0
        for inner in layer._flatten_layers()
        if isinstance(inner, keras.layers.Dropout)
    )


def equal_weights(sources):
    """Whether all sources have the same weights."""
    first = sources[0]
    for source in sources[1:]:
        if source is first:
            continue
        for a, b in zip(first.weights, source.weights, strict=True):
            if a.shape != b.shape or not np.array_equal(to_numpy(a), to_numpy(b)):
                return False
    return True


def warn_if_never_parting(sources):
    """Warns where the fused copies would receive equal gradients for ever."""
    if not sources[0].weights or any(has_dropout(source) for source in sources):
        return
    if equal_weights(sources):
        warnings.warn(
            "the sources are equal, and without noise or dropout their copies receive equal "
            "gradients and never part: the fused network stays the small one at n² the cost. "
            "Pass noise=0.01 or more, or train with dropout.",
            SymmetryWarning,
            stacklevel=4,
        )
