"""Charts of some lines in one or more panels: data first, then a drawing of nothing but that.

A line has the same colour, dash and marker in every panel.
"""

import math

from matplotlib.figure import Figure

from trainers.reports.figures import INK, Picture, legend_below, prepare_axes

# Okabe and Ito's palette: it stays apart for the colour-blind, and by dash and marker in print.
_STYLES = (
    ("#0072b2", "o", "-"),
    ("#e69f00", "s", "--"),
    ("#009e73", "^", "-."),
    ("#d55e00", "D", (0, (1, 1.2))),
    ("#cc79a7", "v", (0, (5, 1))),
    ("#56b4e9", "P", (0, (3, 1, 1, 1, 1, 1))),
    (INK, "X", (0, (8, 2))),
)
_MARKS = 8
_COLUMNS = 3


def panel(title, x, y, series, scale="linear"):
    """One panel.

    Args:
        title: above it.
        x, y: names of its axes.
        series: dicts {"name", "x", "y"} with lists of numbers; None where there is none. With
            "error", a list too, a bar of so much up and down at each point.
        scale: of the y axis, "linear" or "log".
    """
    return {"title": title, "x": x, "y": y, "scale": scale, "series": series}


def chart(key, title, caption, alt, panels):
    """A `Picture` of panels.

    Args:
        key, title, caption, alt: as for `Picture`.
        panels: what `panel` gave.
    """
    return Picture(key, title, caption, alt, {"panels": list(panels)}, draw)


def draw(data, theme):
    """Draws the panels side by side, three in a row, with one legend below."""
    panels = data["panels"]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * max(columns, 2), 3.5 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    styles = _styles(panels, theme)
    for axes, each in zip(grid, panels, strict=False):
        prepare_axes(axes, theme, each["x"], each["y"])
        axes.set_title(each["title"], color=theme.ink, fontsize=10.5)
        if each["scale"] == "log" and _positive(each["series"]):
            axes.set_yscale("log")
        for line in each["series"]:
            _draw_line(axes, line, styles[line["name"]])
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    legend_below(figure, grid[: len(panels)], theme)
    return figure


def _draw_line(axes, line, style):
    values = [math.nan if value is None else value for value in line["y"]]
    every = max(1, len(values) // _MARKS)
    axes.plot(line["x"], values, label=line["name"], markevery=every, **style)
    if "error" in line:
        errors = [math.nan if value is None else value for value in line["error"]]
        axes.errorbar(
            line["x"], values, yerr=errors, fmt="none", ecolor=style["color"], capsize=3, alpha=0.7
        )


def _positive(series):
    return any(value is not None and value > 0 for line in series for value in line["y"])


def _styles(panels, theme):
    names = dict.fromkeys(line["name"] for each in panels for line in each["series"])
    colors = {INK: theme.ink, **dict(theme.swap)}
    found = {}
    for index, name in enumerate(names):
        color, marker, dash = _STYLES[index % len(_STYLES)]
        found[name] = {
            "color": colors.get(color, color),
            "marker": marker,
            "linestyle": dash,
            "linewidth": 1.7,
            "markersize": 5,
            "markeredgecolor": theme.ground,
            "markeredgewidth": 0.5,
        }
    return found
