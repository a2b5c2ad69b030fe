"""Draws the README's picture: a kernel of two fused networks, before and after further training.

    python -m docs.images.figures

Two perceptrons are trained on scikit-learn's digits, fused and trained on; the kernel between their
two hidden layers is drawn. Takes some seconds; the seeds are fixed.
"""

import pathlib

import keras
import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import keras_fusion as kf

FILE = pathlib.Path(__file__).parent / "kernel.png"
WIDTHS = (16, 24)


def trained(width, seed, x, y):
    """A perceptron of two hidden layers, trained."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(width, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=20, verbose=0)
    return model


def kernels():
    """The kernel right after the fusion and after further training, with the accuracy at each."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    sources = [trained(width, seed, x, y) for seed, width in enumerate(WIDTHS)]
    fused = kf.fuse(sources, noise=0.1)
    snapshots = []
    for epochs in (0, 20):
        fused.fit(x, y, epochs=epochs, verbose=0)
        snapshots.append(keras.ops.convert_to_numpy(fused.layers[1].kernel))
    return snapshots


def draw(snapshots, file=FILE):
    """Draws kernels side by side into a PNG file, with the borders of the sources' blocks."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(1, len(snapshots), figsize=(7.6, 3.9), layout="constrained")
    largest = np.quantile(np.abs(snapshots), 0.99)
    titles = ("right after the fusion", "after 20 further epochs")
    for axis, kernel, title in zip(axes, snapshots, titles, strict=True):
        image = axis.imshow(np.abs(kernel), vmin=0, vmax=largest, cmap="magma_r")
        for line in (axis.axhline, axis.axvline):
            line(WIDTHS[0] - 0.5, color="#4477aa", linewidth=1.2)
        axis.set(title=title, xlabel="unit of the second hidden layer", xticks=[], yticks=[])
    axes[0].set_ylabel("unit of the first hidden layer")
    figure.colorbar(image, ax=axes, label="|weight|", shrink=0.9)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(kernels())
