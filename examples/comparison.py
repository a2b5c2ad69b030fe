"""Parts that the examples share: training by steps, its cost, and the table of results.

A training step costs 6 floating-point operations for each weight of a matrix, each position at
which it is used, and each example of the batch: 2 in the forward pass and 4 in the backward pass.
The zero blocks of a fused weight count as much as the others.
"""

import dataclasses
import math

import keras
import numpy as np

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Data:
    """A classification task.

    Args:
        inputs, labels: Training examples.
        test_inputs, test_labels: Examples that accuracy is measured on.
    """

    inputs: np.ndarray
    labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a model, its accuracy and loss on the test set, and FLOPs so far."""

    name: str
    parameters: int
    accuracy: float
    loss: float
    flops: float

    def __str__(self):
        return (
            f"{self.name:<42} {self.parameters:>9,} {100 * self.accuracy:>8.1f} % "
            f"{self.loss:>8.3f} {self.flops / 1e6:>9,.0f}"
        )


def train(model, data, steps, seed):
    """Trains a compiled model for a number of steps on random batches.

    Returns:
        Floating-point operations that this cost.
    """
    rng = np.random.default_rng(seed)
    passes = -(-steps * BATCH // len(data.labels))
    order = np.concatenate([rng.permutation(len(data.labels)) for _ in range(passes)])
    rows = order[: steps * BATCH]
    model.fit(data.inputs[rows], data.labels[rows], BATCH, shuffle=False, verbose=0)
    return steps * flops_per_step(model)


def flops_per_step(model):
    """Floating-point operations of a training step."""
    uses = sum(
        math.prod(weight.shape) * math.prod(layer.input.shape[1:-1])
        for layer in model.layers
        if not isinstance(layer, keras.layers.Embedding)
        for weight in layer.trainable_weights
        if len(weight.shape) > 1
    )
    return 6 * BATCH * uses


def measure(name, model, data, flops):
    """Measures a model on the test set and prints its line of the table.

    Returns:
        A `Row`.
    """
    loss, accuracy = model.evaluate(data.test_inputs, data.test_labels, 256, verbose=0)
    row = Row(name, model.count_params(), accuracy, loss, flops)
    print(row)
    return row


def print_head():
    """Prints the head of the table."""
    print(f"{'model':<42} {'weights':>9} {'accuracy':>10} {'loss':>8} {'MFLOPs':>9}")


def compare(network, fuse, widths, data, steps, more_steps):
    """Trains sources, fuses them, trains on, and trains a large network for the same FLOPs.

    Args:
        network: Function of (width, seed) that returns a compiled model.
        fuse: Function of the list of sources that returns the fused model.
        widths: Width of each source; the large network has their sum.
        data: The `Data`.
        steps: Training steps of each source.
        more_steps: Training steps of the fused model.

    Returns:
        The `Row`s of the table: the sources, the fused model before and after training, and the
        large network.
    """
    print_head()
    rows, sources, total = [], [], 0
    for seed, width in enumerate(widths):
        source = network(width, seed)
        cost = train(source, data, steps, seed)
        rows.append(measure(f"source {seed}: width {width}, seed {seed}", source, data, cost))
        sources.append(source)
        total += cost

    big = fuse(sources)
    rows.append(measure("fused, no further training", big, data, total))
    seed = len(widths)
    total += train(big, data, more_steps, seed)
    rows.append(measure(f"fused, {more_steps} steps more", big, data, total))

    scratch = network(sum(widths), seed)
    scratch_steps = round(total / flops_per_step(scratch))
    cost = train(scratch, data, scratch_steps, seed)
    name = f"from scratch: width {sum(widths)}, seed {seed}, {scratch_steps} steps"
    rows.append(measure(name, scratch, data, cost))
    return rows
