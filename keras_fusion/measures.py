"""Measures of a fusion: the change of the loss, the distance of copies, the share of η.

`fusion_gap` is zero under the fusion property and for equal sources, and says what the fusion rule
costs otherwise. `symmetry` tells fused copies that learn different things from copies that do not.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from keras import ops

from keras_fusion.errors import FusionError
from keras_fusion.layers.tree import to_numpy
from keras_fusion.losses import token_losses
from keras_fusion.options import mean_weights
from keras_fusion.record import recall


@dataclasses.dataclass(frozen=True)
class FusionGap:
    """Change of the loss on one batch that a fusion caused.

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
        moved, count = self.fused - self.mean, len(self.sources)
        sources = f"as the mean of {count} sources" if count > 1 else "of the source"
        return (
            f"loss {self.mean:.4f} {sources}, {self.fused:.4f} "
            f"fused ({moved:+.4f}, {100 * moved / self.mean:+.2f} %)"
        )


def fusion_gap(fused, sources, batch, weights=None):
    """Measures by how much a fusion moved the loss on a batch.

    Args:
        fused: The fused model.
        sources: What it was fused from.
        batch: The models' input dictionary and, among them, `targets` (batch, length), of which
            0 is padding and does not count. Or `(inputs, targets)` or
            `(inputs, targets, weights of the targets)`, as a KerasHub preprocessor returns them.
        weights: The weights of the mean, if the fusion was given any.

    Returns:
        A `FusionGap`.

    Raises:
        FusionError: There are no targets, or the models' output is no logits of theirs.

    Examples:
        >>> print(fusion_gap(a.fuse(b, norm="rule"), [a, b], batch))
        loss 3.1416 as the mean of 2 sources, 3.2000 fused (+0.0584, +1.86 %)
        >>> big = kf.fuse([gpt2_a, gpt2_b], norm="rule")
        >>> gap = fusion_gap(big, [gpt2_a, gpt2_b], gpt2_a.preprocessor(["a text"]))
    """
    inputs, targets, counts = _parts(batch)
    logits = [_logits(model, inputs, targets) for model in sources]
    shares = mean_weights(weights, len(sources))
    mean = sum(share * array for share, array in zip(shares, logits, strict=True))
    result = _logits(fused, inputs, targets)

    def loss(logits):
        losses = to_numpy(token_losses(targets, ops.convert_to_tensor(logits)))
        return float((losses * counts).sum() / counts.sum())

    return FusionGap(
        sources=tuple(map(loss, logits)),
        mean=loss(mean),
        fused=loss(result),
        logits=float(np.abs(result - mean).max() / np.abs(mean).max()),
    )


def _parts(batch):
    """Inputs, targets and the targets' weights of a batch."""
    if isinstance(batch, tuple | list) and len(batch) in (2, 3):
        inputs, targets, *counts = batch
        targets = ops.convert_to_numpy(targets)
        counts = ops.convert_to_numpy(counts[0]) if counts else np.ones(targets.shape)
        return inputs, targets, counts.astype("float32")
    if not isinstance(batch, Mapping) or "targets" not in batch:
        raise FusionError(
            "fusion_gap takes a dictionary of inputs with `targets`, or (inputs, targets). "
            f"Received: {list(batch) if isinstance(batch, Mapping) else type(batch).__name__}; "
            "a KerasHub task's preprocessor returns such a tuple"
        )
    targets = ops.convert_to_numpy(batch["targets"])
    inputs = {name: value for name, value in batch.items() if name != "targets"}
    return inputs, targets, (targets != 0).astype("float32")


def _logits(model, inputs, targets):
    """A model's logits in single precision."""
    output = model(inputs, training=False)
    shape = getattr(output, "shape", None)
    if shape is None or tuple(shape[:-1]) != targets.shape:
        raise FusionError(
            "fusion_gap compares logits, a vector for each target. Received: "
            f"{type(model).__name__} with outputs "
            f"{sorted(output) if isinstance(output, Mapping) else shape} for targets "
            f"{targets.shape}; pass tasks in place of their backbones"
        )
    return to_numpy(output).astype("float32")


def symmetry(model):
    """Distance of the copies in a fused network: 0 equal, √2 unrelated.

    The root mean square difference between two sources' diagonal blocks, over the root mean
    square of a block, over all weights whose sources have the same widths. While it is 0 the
    fused network is the small one at n² the cost; training logs it.

    Args:
        model: A network that was made by a fusion.

    Returns:
        A number ≥ 0.

    Raises:
        FusionError: The network is not fused, or its sources share no widths.

    Examples:
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


def eta_share(model):
    """Root mean square of η over that of the sources' blocks, in the weights that have η.

    η is what no source's block covers, zero or noise after a fusion (Eq. 5).

    Args:
        model: A network that a fusion made.

    Returns:
        A number ≥ 0; 0 where no weight has η.

    Examples:
        >>> eta_share(kf.self_fuse(model, 2, noise=0.1))
        0.1
    """
    squares, counts = np.zeros(2), np.zeros(2)
    for weight in recall(model):
        if sum(layout.grows for layout in weight.layouts) < 2:
            continue
        value = to_numpy(weight.variable)
        blocks = weight.blocks(value)
        inside = sum(np.square(block, dtype=np.float64).sum() for block in blocks)
        size = sum(block.size for block in blocks)
        squares += max(0.0, np.square(value, dtype=np.float64).sum() - inside), inside
        counts += value.size - size, size
    eta, theta = np.sqrt(squares / np.maximum(counts, 1))
    return float(eta / theta) if theta else 0.0


def diagonal_blocks(model):
    """`{weight path: the sources' blocks}` of a fused network, as numpy arrays."""
    return {weight.path: weight.blocks() for weight in recall(model) if weight.grows}
