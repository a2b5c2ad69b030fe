"""Drawings of heat maps and of η's growth, from their data alone.

Colours go from light to dark at even steps of lightness, so that they read in grey too, and by the
colour-blind. Maps are drawn in units of weights.
"""

import math

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from trainers.reports import figures, numbers
from trainers.reports.pictures import WIDTH, draw_line, draw_panels, label_axes, line_styles

COLORS = colormaps["magma_r"].with_extremes(bad="#56b4e9")
_SMALL = 7.5
# Inches: the widest map over time, what stands beside maps and above and below a row of them.
_WIDEST, _BESIDE, _AROUND = 2.3, 1.5, 1.0
_NARROWEST = 6.4
# Inches that a line and a digit of small text take.
_LINE, _DIGIT = 0.13, 0.066


def draw_grid(data, theme):
    """Draws a row of maps for each stage, a column for each step, one colour scale per row."""
    count = len(data["columns"])
    width = min(_WIDEST, (WIDTH - _BESIDE) / count)
    heights = [width * _ratio(row["shape"]) + _AROUND for row in data["rows"]]
    page = max(_NARROWEST, count * width + _BESIDE)
    for part, row in _parts(page, heights, data["rows"], theme):
        panels = part.subplots(1, count, squeeze=False)[0]
        for axes, content in zip(panels, row["maps"], strict=True):
            axes.set_title(f"step {numbers.count(content['step'])}", fontsize=_SMALL + 0.5, pad=3)
            if content["values"] is None:
                axes.text(
                    0.5, 0.5, "not saved", ha="center", va="center", fontsize=_SMALL,
                    color=theme.muted, transform=axes.transAxes,
                )  # fmt: skip
            _show(axes, row["cells"], content["values"], row["borders"], row["scale"], width)
            axes.set_box_aspect(_ratio(row["shape"]))
            if axes is not panels[0]:
                axes.tick_params(left=False, labelleft=False, labelbottom=False)
        _name_axes(panels[0], data["axes"])
        _scale(panels[-1], row["scale"], width, width * _ratio(row["shape"]))
    return part.figure


def draw_close_up(data, theme):
    """Draws for each stage its kernel and the place where its blocks meet, side by side."""
    ratios = [_ratio(row["shape"]) for row in data["rows"]]
    side = (WIDTH - _BESIDE) / (1 + 1 / max(0.7, min(1, max(ratios))))
    width = WIDTH - _BESIDE - side
    heights = [max(side, min(1.2 * side, width * ratio)) + _AROUND for ratio in ratios]
    for part, row in _parts(WIDTH, heights, data["rows"], theme):
        whole, zoom = part.subplots(1, 2, width_ratios=(width, side))
        _show(whole, row["cells"], row["values"], row["borders"], row["scale"], width)
        whole.set_box_aspect(_ratio(row["shape"]))
        _name_sources(whole, row, width, theme)
        _mark(whole, row["zoom"])
        cells = [
            range(a, b + 1) for a, b in zip(row["zoom"]["from"], row["zoom"]["to"], strict=True)
        ]
        edges = [
            sorted({cell[0], cell[-1], *set(borders).intersection(cell)})
            for borders, cell in zip(row["borders"], cells, strict=True)
        ]
        _show(zoom, cells, row["zoom"]["values"], edges, row["scale"], side)
        zoom.set_box_aspect(1)
        for axes in (whole, zoom):
            axes.set_anchor("NW")
            _name_axes(axes, data["axes"])
        _scale(zoom, row["scale"], side, side)
    return part.figure


def draw_growth(data, theme):
    """Draws the ratio of η to the diagonal over steps: all kernels together, then each."""
    panels = data["panels"]
    styles = line_styles([line for panel in panels for line in panel["series"]], theme)

    def draw(axes, panel):
        name = "RMS of η / RMS of diagonal" if panel is panels[0] else ""
        title = _two_lines(panel["kernel"]) if panel["kernel"] else "all kernels with η"
        label_axes(axes, figures.AXES["steps"], name, title)
        axes.title.set_fontsize(9)
        for line in panel["series"]:
            draw_line(axes, line["x"], line["ratio"], line["stage"], styles)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(left=0)

    figure = draw_panels(panels, draw, (WIDTH, 3.3), sharey=True)
    figure.axes[0].set_ylim(bottom=0)
    return figure


def _parts(width, heights, rows, theme):
    """(part of a figure, row) for each stage, with the stage's name and what its row shows."""
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        name = part.suptitle(row["stage"], x=0.01, ha="left", fontsize=10, fontweight="bold")
        shown = (f"learning rate {row['schedule']}", _cell_text(row["cells"]))
        if "step" in row:
            shown = (f"step {numbers.count(row['step'])}", *shown)
        note = Annotation(
            "; ".join(shown), (1, 0), (8, 1), name, "offset points",
            fontsize=_SMALL + 0.5, color=theme.muted, annotation_clip=False,
        )  # fmt: skip
        note.set_in_layout(False)
        part.add_artist(note)
        yield part, row


def _ratio(shape):
    """Height over width of a map: that of the kernel, within bounds."""
    return min(1.5, max(0.4, shape[0] / shape[1]))


def _show(axes, cells, values, borders, scale, width):
    """Draws a map with ticks and lines where blocks begin and end; without values the ticks alone.

    Cells and borders have edges down and across; the axes are about `width` inches wide.
    """
    (top, bottom), (left, right) = ((edges[0], edges[-1]) for edges in cells)
    if values is not None:
        image = np.ma.masked_invalid(np.asarray(values, np.float64))
        limits = {"vmin": scale["low"], "vmax": scale["high"]}
        axes.pcolormesh(cells[1], cells[0], image, cmap=COLORS, **limits)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    for draw, places in ((axes.axhline, borders[0]), (axes.axvline, borders[1])):
        for place in places[1:-1] if values is not None else ():
            # Dark with a light edge, so that it shows on every colour.
            line = draw(place, color="#000000", linewidth=0.5)
            line.set_path_effects([patheffects.withStroke(linewidth=1.4, foreground="#ffffff")])
    room = _DIGIT * (len(str(right)) + 1)
    axes.set_xticks(borders[1], labels_with_room(borders[1], width, room))
    axes.set_yticks(
        borders[0],
        labels_with_room(borders[0], width * _ratio((bottom - top, right - left)), _LINE),
    )
    axes.tick_params(labelsize=_SMALL, length=2.5, width=0.6, pad=2.5)
    axes.spines[:].set(visible=True, linewidth=0.6)


def labels_with_room(places, length, room):
    """The labels of ticks, empty where one would stand too near to another."""
    inch = length / (places[-1] - places[0])
    labels, before = [], -math.inf
    for place in places:
        last = place == places[-1]
        if last or min(place - before, places[-1] - place) * inch >= room:
            labels.append(str(place))
            before = place
        else:
            labels.append("")
    return labels


def _scale(axes, ends, width, height):
    """Draws the colour scale of a row, to the right of its last map."""
    place = axes.inset_axes((1 + 0.09 / width, 0, 0.11 / width, 1))
    colors = ScalarMappable(Normalize(ends["low"], ends["high"]), COLORS)
    bar = axes.figure.colorbar(colors, cax=place, extend="max", extendfrac=0.06)
    bar.outline.set(linewidth=0.6)
    ticks = [ends["low"], ends["high"]]
    if height > 0.75:  # Below there is room for the ends only.
        ticks = [tick for tick in MaxNLocator(5).tick_values(*ticks) if tick <= ends["high"]]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    place.tick_params(labelsize=_SMALL, length=2.5, width=0.6)
    place.set_title("|w|", fontsize=_SMALL + 0.5, pad=3)


def _name_axes(axes, names):
    axes.set_ylabel(names[0], fontsize=_SMALL + 0.5, labelpad=2)
    axes.set_xlabel(names[1], fontsize=_SMALL + 0.5, labelpad=1)


def _name_sources(axes, row, width, theme):
    """Writes the sources of the diagonal blocks above their columns; none where they collide."""
    borders = row["borders"][1]
    spans = list(zip(row["sources"], borders[:-1], borders[1:], strict=False))
    inch = width / borders[-1]
    if len(borders) - 1 != len(row["sources"]) or any(
        (stop - start) * inch < _DIGIT * len(name) for name, start, stop in spans
    ):
        return
    for name, start, stop in spans:
        axes.text(
            (start + stop) / 2, 1.02, name, transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=_SMALL, color=theme.muted,
        )  # fmt: skip


def _mark(axes, zoom):
    """Marks the square that is enlarged."""
    (top, left), (bottom, right) = zoom["from"], zoom["to"]
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#000000")
    frame.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground="#ffffff")])
    axes.add_patch(frame)


def _cell_text(cells):
    """Says how many weights a cell of a map stands for."""
    down, across = (int(np.diff(edges).max()) for edges in cells)
    if down == across == 1:
        return "a cell is one weight"
    return f"a cell is the mean |w| of up to {down} × {across} weights"


def _two_lines(path):
    """A path broken at its middle slash."""
    parts = path.split("/")
    if len(parts) < 3:
        return path
    half = (len(parts) + 1) // 2
    return "/".join(parts[:half]) + "/\n" + "/".join(parts[half:])
