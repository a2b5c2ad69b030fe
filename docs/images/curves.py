"""Draws the README's curves: accuracy over compute, as recorded in docs/gains_curves.csv.

    python -m docs.images.curves

The file has every evaluation of the runs that docs/gains.md tells of; nothing is trained.
"""

import collections
import csv
import pathlib
import re

import matplotlib
from matplotlib import pyplot as plt

FOLDER = pathlib.Path(__file__).parent
FILE = FOLDER / "curves.png"
DATA = FOLDER.parent / "gains_curves.csv"
BUDGET = "3"
# Arm: the scale of its learning rate that was best, its words and its colour.
ARMS = {
    "small": (1.0, "narrow model", "#777777"),
    "baseline": (1.0, "big model from random weights", "#4477aa"),
    "self_fusion_50": (1.0, "narrow one fused with itself, trained on", "#cc3311"),
    "stacked_half": (1.0, "layers of a shallow one stacked, trained on", "#228833"),
}
# Stages of the model that is fused are named by their steps.
_SMALL = re.compile(r"small_\d+")


def curves(file=DATA):
    """{(arm, seed): [(FLOPs, accuracy in %)]} of each arm's best scale, at one budget."""
    points = collections.defaultdict(list)
    with open(file, newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            arm = "small" if _SMALL.fullmatch(row["arm"]) else row["arm"]
            scale = float(row["learning_rate_scale"])
            if row["budget"] == BUDGET and arm in ARMS and scale == ARMS[arm][0]:
                points[arm, row["seed"]].append((float(row["flops"]), float(row["accuracy"])))
    return {name: sorted(values) for name, values in points.items()}


def draw(lines, file=FILE):
    """Draws the curves of all seeds into a PNG file."""
    matplotlib.use("Agg")
    figure, axis = plt.subplots(figsize=(7.6, 3.6), layout="constrained")
    for (arm, seed), values in lines.items():
        _, words, color = ARMS[arm]
        label = words if seed == "1" else None
        axis.plot(*zip(*values, strict=True), color=color, label=label, linewidth=1.6)
    axis.set(xlabel="FLOPs of all stages", ylabel="accuracy, %", ylim=(20, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(curves())
