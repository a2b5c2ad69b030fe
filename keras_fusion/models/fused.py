"""Fuses T5s from configurations and arrays alone: no source model is built, nothing is read."""

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.layers import checks
from keras_fusion.layers.fusing import FusedWeights, FusionOptions, mismatches
from keras_fusion.layers.values import misfits
from keras_fusion.models.config import GROWING
from keras_fusion.models.t5 import shared_skeleton
from keras_fusion.noise import Noise
from keras_fusion.options import COUNTS, is_count


def fused_weights(
    configs,
    weights,
    *,
    norm="property",
    noise=0.0,
    noise_kind="gaussian",
    seed=0,
    fill="diagonal",
    asymmetry=0.0,
    grow=GROWING,
):
    """Returns the weights of the fusion of T5s, each region computed when it is read.

    Does what `T5.fuse` does, for sources that are not in memory: their values may lie in
    memory-mapped files, of which a region of a fused weight reads only what it covers. Sources
    without noise and dropout are compared up to their first difference; equal ones warn.

    Args:
        configs: The sources' `T5Config`s, two or more.
        weights: `{path: array-like}` of every source, such as `Checkpoint.weights`; for a network
            with itself the same one twice.
        norm, noise, noise_kind, seed, fill, asymmetry: As for `T5.fuse`.
        grow: Names of the axes that grow, among "hidden", "heads" and "mlp"; by default all.

    Returns:
        The fused `T5Config`, and `{path: FusedArray}` for `T5.from_weights`.

    Raises:
        FusionError: Naming every mismatch at once. NaN and infinite values are named when a region
            that holds them is read.

    Examples:
        >>> config, weights = kf.models.fused_weights([a.config, b.config], [a.weights, b.weights])
        >>> weights["head/kernel"][:64]   # reads a's file only
    """
    configs, weights = list(configs), list(weights)
    if len(configs) != len(weights):
        raise ValueError(
            "every source has a configuration and weights. "
            f"Received: {len(configs)} configurations, weights of {len(weights)}"
        )
    options = FusionOptions(
        grow=frozenset(grow),
        norm=norm,
        noise=Noise(noise, noise_kind, seed),
        fill=fill,
        asymmetry=asymmetry,
    )
    checks.raise_mismatches(options.copies_mismatches(weights))
    # Networks of one configuration share a skeleton: their weights tell them apart.
    sources = [shared_skeleton(config) for config in configs]
    messages = [
        f"source {index}: {message}"
        for index, (source, arrays) in enumerate(zip(sources, weights, strict=True))
        for message in misfits(source, arrays)
    ]
    messages = messages or mismatches(sources, options, weights) + _dtype_mismatches(weights)
    checks.raise_mismatches(messages)
    if not options.noise.scale and not options.asymmetry:
        checks.warn_if_never_parting(sources, weights)
    config = configs[0].fused(configs[1:], options.norm, options.grow)
    return config, dict(FusedWeights(sources, weights, options))


def grown_weights(config, weights, factors, *, noise=0.0, seed=0, fill="diagonal", asymmetry=0.0):
    """Returns the weights of a T5 some of whose axes grow, each region computed when it is read.

    Does what `kf.grow` does, for a network that is not in memory.

    Args:
        config: The `T5Config`.
        weights: `{path: array-like}`.
        factors: `{axis: factor}`, axes among "hidden", "heads" and "mlp", integers from 2 on.
        noise, seed, fill, asymmetry: As for `kf.grow`.

    Returns:
        The grown `T5Config`, and `{path: FusedArray}` for `T5.from_weights`.

    Raises:
        FusionError: An axis or a factor that is none; otherwise as `fused_weights`.

    Examples:
        >>> config, weights = grown_weights(small.config, weights_of_small, {"mlp": 2})
    """
    is_growth = factors and factors.keys() <= GROWING.keys()
    if not is_growth or not all(map(is_count, factors.values())):
        raise FusionError(
            f"a T5 grows along {', '.join(GROWING)} by {COUNTS}. "
            f"Received: {factors!r}; give a dictionary such as {{'mlp': 2}}"
        )
    # A norm over copies is what it is over one of them.
    norm = "property" if config.norm_groups else "rule"
    how = {"norm": norm, "noise": noise, "noise_kind": "balanced", "seed": seed}
    how |= {"fill": fill, "asymmetry": asymmetry}
    for factor in dict.fromkeys(factors.values()):
        axes = {axis for axis, times in factors.items() if times == factor}
        config, weights = fused_weights([config] * factor, [weights] * factor, **how, grow=axes)
    return config, weights


def _dtype_mismatches(weights):
    """Returns a message for each weight whose dtype differs between sources."""
    messages = []
    for path in weights[0]:
        dtypes = [np.dtype(arrays[path].dtype).name for arrays in weights if path in arrays]
        if len(set(dtypes)) > 1:
            messages.append(f"`{path}`: dtype {' vs '.join(dtypes)}")
    return messages
