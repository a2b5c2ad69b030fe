"""Draws the pictures of docs/plugin.md: where the sources' blocks lie in a fused kernel.

Each kernel is a `FusedArray` of two sources whose entries are 1 and 2; a cell's colour is its
entry, and what is left at 0 is η.

    python -m docs.images.blocks
"""

import pathlib

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from keras_fusion.axes import Axes
from keras_fusion.layouts import Layout
from keras_fusion.operator import FusedArray

FOLDER = pathlib.Path(__file__).parent
COLOURS = ("#f2f2f2", "#4477aa", "#ee8866")
LABELS = ("η: zero, or noise", "source 0", "source 1")
KERNEL = Axes(("input", "output"), sums=("input",))


def kernel(inputs, outputs):
    """The fused kernel of two sources whose entries are 1 and 2."""
    arrays = [
        np.full((inputs.sizes[source], outputs.sizes[source]), source + 1.0) for source in range(2)
    ]
    return FusedArray(arrays, KERNEL, {"input": inputs, "output": outputs})[...]


def draw(name, panels):
    """Draws kernels side by side into an SVG file.

    Args:
        name: Name of the file, without its ending.
        panels: `(title, {label: rows that it names}, layout of the inputs)` of each.
    """
    rows = max(inputs.size for _, _, inputs in panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(5, 1.3 + 0.24 * rows), squeeze=False)
    outputs = Layout.blocks((3, 2))
    for axis, (title, parts, inputs) in zip(axes[0], panels, strict=True):
        values = kernel(inputs, outputs)
        axis.pcolormesh(values, cmap=ListedColormap(COLOURS), vmin=0, vmax=2, edgecolors="white")
        ends = np.cumsum([0, *parts.values()])
        axis.set_yticks((ends[1:] + ends[:-1]) / 2, parts)
        axis.tick_params(length=0)
        axis.set(aspect="equal", xticks=[2.5], xticklabels=["outputs"], ylim=(rows, 0))
        axis.xaxis.tick_top()
        axis.set_title(title, fontsize=10)
        for side in axis.spines.values():
            side.set_visible(False)
    figure.legend(
        handles=[Patch(color=c, label=label) for c, label in zip(COLOURS, LABELS, strict=True)],
        loc="lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.25 / figure.get_figheight(), 1, 1))
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def main():
    """Draws all pictures."""
    matplotlib.use("svg")
    # Files that do not change from run to run.
    plt.rcParams.update({"svg.hashsalt": "blocks", "svg.fonttype": "none"})
    draw(
        "dense",
        [
            ("first layer: shared input", {"features": 4}, Layout.whole(4, 2)),
            ("in the middle", {"units": 7}, Layout.blocks((4, 3))),
        ],
    )
    channels = Layout.joined(Layout.blocks((2, 1)), before=4)
    positions = {f"channels at {place}": 3 for place in ("(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)")}
    draw("flatten", [("behind a Flatten", positions, channels)])
    parts = Layout.stacked([Layout.blocks((3, 2)), Layout.whole(2, 2), Layout.blocks((2, 2))])
    draw("concatenate", [("behind a Concatenate", {"x": 5, "raw": 2, "y": 4}, parts)])


if __name__ == "__main__":
    main()
