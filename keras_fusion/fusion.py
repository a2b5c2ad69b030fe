"""`kf.fuse` for any fusable model, and measures of what a fusion did.

`fusion_gap` says by how much the loss moves when networks are fused, which is zero under the
fusion property and for equal sources. `symmetry` says how far fused copies have come apart.
"""

import dataclasses

import numpy as np
from keras import ops

from keras_fusion.errors import FusionError
from keras_fusion.functional import fuse_functional, is_graph
from keras_fusion.layers import checks
from keras_fusion.layers.tree import declared_axes, is_fusable, leaves, own_weights, to_numpy
from keras_fusion.operator import Noise


def fuse(models, norm="property", noise=0.0, noise_kind="gaussian", seed=0):
    """Fuses networks of one structure into one that computes their mean (section 3.1).

    Args:
        models: Two or more built models of one structure; widths may differ. Either all are
            fusable themselves, such as `kf.models.T5`, or all are functional or sequential Keras
            models of fusable layers. The mean is that of the outputs before the last activation.
        norm: `"property"` normalises each source's units apart and keeps the function;
            `"rule"` normalises all together and keeps the architecture (section 3.2).
        noise: Standard deviation of η over the root mean square of each weight.
        noise_kind: `"gaussian"` or `"balanced"`, see `keras_fusion.operator.Noise`.
        seed: Seed of the noise.

    Returns:
        A built model.

    Raises:
        FusionError: Naming everything that keeps the models from being fused.

    Example:
        >>> big = kf.fuse([model_a, model_b], norm="property")
    """
    models = list(models)
    if models and all(is_fusable(model) for model in models):
        first, *others = models
        return first.fuse(*others, norm=norm, noise=noise, noise_kind=noise_kind, seed=seed)
    messages = [
        f"source {index} is a {type(model).__name__}; fusing takes kf.models, or functional or "
        "sequential Keras models"
        for index, model in enumerate(models)
        if not is_graph(model)
    ]
    if len(models) < 2:
        messages.append(f"fusing takes at least two networks, received {len(models)}")
    checks.raise_mismatches(messages)
    return fuse_functional(models, norm, Noise(noise, noise_kind, seed))


@dataclasses.dataclass(frozen=True)
class FusionGap:
    """By how much fusing moved the loss on one batch.

    Args:
        sources: Loss of each source, in nats per token.
        mean: Loss of the mean of the sources' logits: what the fused network should have.
        fused: Loss of the fused network.
        logits: Largest difference between the fused and the mean logits, over the largest logit.
    """

    sources: tuple[float, ...]
    mean: float
    fused: float
    logits: float

    def __str__(self):
        moved = self.fused - self.mean
        return (
            f"loss {self.mean:.4f} as the mean of {len(self.sources)} sources, {self.fused:.4f} "
            f"fused ({moved:+.4f}, {100 * moved / self.mean:+.2f} %)"
        )


def fusion_gap(fused, sources, batch):
    """Measures by how much a fusion moved the loss on a batch.

    Args:
        fused: The fused model.
        sources: What it was fused from.
        batch: The models' input dictionary, and `targets` (batch, length); targets of 0 are
            padding and do not count.

    Returns:
        A `FusionGap`.

    Example:
        >>> print(fusion_gap(a.fuse(b, norm="rule"), [a, b], batch))
        loss 3.1416 as the mean of 2 sources, 3.2000 fused (+0.0584, +1.86 %)
    """
    inputs = {name: value for name, value in batch.items() if name != "targets"}
    logits = [to_numpy(model(inputs, training=False)) for model in sources]
    mean = np.mean(logits, axis=0)
    result = to_numpy(fused(inputs, training=False))
    return FusionGap(
        sources=tuple(_token_loss(each, batch["targets"]) for each in logits),
        mean=_token_loss(mean, batch["targets"]),
        fused=_token_loss(result, batch["targets"]),
        logits=float(np.abs(result - mean).max() / np.abs(mean).max()),
    )


def _token_loss(logits, targets):
    """Mean cross-entropy over the targets that are not padding, in nats."""
    targets = ops.cast(targets, "int32")
    losses = ops.logsumexp(logits, axis=-1) - ops.squeeze(
        ops.take_along_axis(logits, ops.expand_dims(targets, -1), axis=-1), -1
    )
    counts = ops.cast(targets != 0, losses.dtype)
    return float(ops.sum(losses * counts) / ops.sum(counts))


def symmetry(model):
    """How far the copies in a fused network have come apart: 0 equal, √2 unrelated.

    The root mean square difference between two sources' diagonal blocks, over the root mean
    square of a block, over all weights whose sources have the same widths. While it is 0 the
    fused network is the small one at n² the cost; training logs it.

    Args:
        model: A network that was made by a fusion.

    Returns:
        A number ≥ 0.

    Raises:
        FusionError: The network is not fused, or its sources share no widths.

    Example:
        >>> symmetry(small.self_fuse(2))
        0.0
    """
    differences = squares = 0.0
    for blocks in diagonal_blocks(model).values():
        if len({block.shape for block in blocks}) > 1:
            continue
        blocks = np.stack(blocks).astype(np.float32)
        # Twice the variance about the mean block is the mean square difference of a pair.
        spread = np.square(blocks - blocks.mean(axis=0)).sum(dtype=np.float64)
        differences += 2 * spread / (len(blocks) - 1)
        squares += np.square(blocks).sum(dtype=np.float64) / len(blocks)
    if not squares:
        raise FusionError(
            "symmetry compares the copies of a fused network whose sources have "
            f"equal widths. Received: `{model.name}` without such blocks"
        )
    return float((differences / squares) ** 0.5)


def diagonal_blocks(model):
    """`{weight path: the sources' blocks}` of a fused network, as numpy arrays."""
    found = {}
    for path, leaf in leaves(model).items():
        for name, variable in own_weights(leaf).items():
            axes = declared_axes(leaf)[name]
            blocks = getattr(leaf, "blocks", None) or getattr(model, "blocks", None) or {}
            positions = axes.slices(tuple(variable.shape), blocks)
            if positions:
                value = to_numpy(variable)
                found[f"{path}/{name}".lstrip("/")] = [value[position] for position in positions]
    return found
