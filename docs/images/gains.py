"""Draws what growing saves over the budget, as recorded in docs/gains_curves.csv and of a longer
text in docs/gains_long_text.csv.

    python -m docs.images.gains

Each arm has the learning rate that ends lowest over its seeds, as the baseline has. Of a loss the
compute that random weights need is interpolated between the ends of their budgets, each of which
has a decay of its own; a loss below the last of them has none.
"""

import collections
import csv
import pathlib
import statistics

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from docs.images.curves import DATA

FILE = pathlib.Path(__file__).parent / "gains.png"
LONG_TEXT = DATA.with_name("gains_long_text.csv")
REFERENCE = "baseline"
# Arm: its words and its colour.
ARMS = {
    "self_fusion_25": ("self-fusion after a quarter", "#cc3311"),
    "self_fusion_50": ("after a half", "#ee9988"),
    "fusion_property_25": ("two different models after a quarter", "#aa3377"),
    "stacked_half": ("stacked layers", "#228833"),
    "restarted_25": ("random weights, restarted after a quarter", "#4477aa"),
}


def ends(file=DATA):
    """{arm: {budget: [loss of each seed]}} at the end of each run, at the arm's best rate."""
    last = {}
    with open(file, newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            names = ("budget", "arm", "learning_rate_scale", "seed")
            last[tuple(row[name] for name in names)] = float(row["loss_per_token"])
    rates = collections.defaultdict(dict)
    for (budget, arm, rate, seed), loss in last.items():
        rates[arm, float(budget)].setdefault(rate, {})[seed] = loss
    losses = collections.defaultdict(dict)
    for (arm, budget), seeds in sorted(rates.items()):
        # All rates have the first seed.
        swept = [list(by_seed.values()) for by_seed in seeds.values() if "1" in by_seed]
        if swept:
            losses[arm][budget] = min(swept, key=statistics.mean)
    return losses


def equal_compute(loss, reference):
    """Returns the budget after which random weights end with a loss; None below the last one.

    Args:
        loss: nats per token.
        reference: {budget: [loss of each seed]} of random weights.
    """
    budgets = sorted(reference, reverse=True)
    means = [statistics.mean(reference[budget]) for budget in budgets]
    if not means[0] <= loss <= means[-1]:
        return None
    return float(np.exp(np.interp(loss, means, np.log(budgets))))


def draw(losses, of_long_text, file=FILE):
    """Draws leads in nats, and ratios of compute, of all arms into a PNG file.

    Args:
        losses: `ends()` of the runs on `docs`.
        of_long_text: those of the longer text; crosses beside the others' leads.
        file: where to.
    """
    matplotlib.use("Agg")
    figure, (leads, ratios) = plt.subplots(1, 2, figsize=(9.2, 3.8), layout="constrained")
    reference = losses[REFERENCE]
    for arm, (words, color) in ARMS.items():
        for budget_axis, figure_of in ((leads, _leads), (ratios, _ratios)):
            figures = {b: figure_of(b, of, reference) for b, of in losses[arm].items()}
            _band(budget_axis, {b: values for b, values in figures.items() if values}, words, color)
        for budget, values in of_long_text[arm].items():
            there = _leads(budget, values, of_long_text[REFERENCE])
            leads.plot([budget] * len(there), there, "x", color=color, markersize=8)
    leads.plot([], [], "x", color="black", label="on a longer text")
    leads.axhline(0, color="black", linewidth=0.8)
    leads.set(ylabel="lead over random weights, nats", xlabel="budget")
    ratios.axhline(1, color="black", linewidth=0.8)
    ratios.set(ylabel="compute over that of random weights\nfor the same loss", xlabel="budget")
    for axis in (leads, ratios):
        axis.set_xscale("log")
        axis.set_xticks([0.75, 1, 3, 9], ["¾", "1", "3", "9"])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    lines = leads.get_legend_handles_labels()
    figure.legend(*lines, frameon=False, ncols=3, loc="outside upper center")
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _leads(budget, losses, reference):
    return [statistics.mean(reference[budget]) - loss for loss in losses]


def _ratios(budget, losses, reference):
    needed = [equal_compute(loss, reference) for loss in losses]
    return [budget / other for other in needed if other is not None]


def _band(axis, figures, words, color):
    """A line through the means over seeds, a band from the least to the most, a dot per seed."""
    budgets = sorted(figures)
    axis.plot(budgets, [statistics.mean(figures[b]) for b in budgets], color=color, label=words)
    low, high = ([side(figures[b]) for b in budgets] for side in (min, max))
    axis.fill_between(budgets, low, high, color=color, alpha=0.2, linewidth=0)
    for budget in budgets:
        axis.plot([budget] * len(figures[budget]), figures[budget], ".", color=color)


if __name__ == "__main__":
    draw(ends(), ends(LONG_TEXT))
