"""Drawings of heat maps and of η's growth, from the data of `trainers.reports.heatmaps.pictures`.

Colours go from light to dark at even steps of lightness, so that they read in grey too, and by the
colour-blind. Places are in inches: the same data gives the same picture.
"""

import itertools
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

_NO_NUMBER = "#56b4e9"
COLORS = colormaps["magma_r"].with_extremes(bad=_NO_NUMBER)
_WIDTH, _NARROWEST = 9.2, 6.4
_LEAST = 0.8
_LEFT, _RIGHT, _GAP = 0.78, 0.72, 0.1
_HEADER, _TITLE, _FOOT, _MARGIN = 0.3, 0.2, 0.44, 0.08
_BAR, _BAR_GAP, _CLOSE_UP_GAP = 0.11, 0.09, 0.62
# Beside a lower panel, a colour scale has its ends written only.
_SHORT = 0.75
_SMALL, _TEXT = 7.5, 9
# Inches that a line and a digit of small text take.
_LINE, _DIGIT = 0.13, 0.066


def draw_grid(data, theme):
    """A row of heat maps for each stage, a column for each step, one colour scale a row."""
    count = len(data["columns"])
    width = min(2.3, max(_LEAST, (_WIDTH - _LEFT - _RIGHT - (count - 1) * _GAP) / count))
    heights = [width * _ratio(row["shape"]) for row in data["rows"]]
    page = _Page(
        max(_NARROWEST, _LEFT + count * width + (count - 1) * _GAP + _RIGHT),
        sum(heights) + len(heights) * (_HEADER + _TITLE + _FOOT) + _MARGIN,
        theme,
    )
    top = _MARGIN
    for row, height in zip(data["rows"], heights, strict=True):
        page.header(top, row)
        top += _HEADER + _TITLE
        for index, each in enumerate(row["maps"]):
            axes = page.panel(_LEFT + index * (width + _GAP), top, width, height)
            title = f"step {numbers.count(each['step'])}"
            axes.set_title(title, fontsize=_SMALL + 0.5, color=theme.ink, pad=3)
            if each["values"] is None:
                _leave_empty(axes, row, theme)
            else:
                _show(axes, each["values"], row)
            _name_axes(axes, None if index else data["axes"], theme)
        page.scale(_LEFT + count * (width + _GAP) - _GAP, top, height, row["scale"])
        top += height + _FOOT
    return page.figure


def draw_close_up(data, theme):
    """For each stage its whole kernel and the place where its blocks meet, side by side."""
    sizes = [_close_up_sizes(row["shape"]) for row in data["rows"]]
    heights = [max(height, side) for _, height, side in sizes]
    title = _TITLE + 0.1
    page = _Page(_WIDTH, sum(heights) + len(heights) * (_HEADER + title + _FOOT) + _MARGIN, theme)
    top = _MARGIN
    for row, (width, height, side) in zip(data["rows"], sizes, strict=True):
        page.header(top, row, (f"step {numbers.count(row['step'])}",))
        top += _HEADER + title
        whole = page.panel(_LEFT, top, width, height)
        _show(whole, row["values"], row)
        _name_axes(whole, data["axes"], theme)
        _name_sources(whole, row, theme)
        _mark(whole, row)
        left = _LEFT + width + _CLOSE_UP_GAP
        zoom = page.panel(left, top, side, side)
        _show_zoom(zoom, row)
        _name_axes(zoom, data["axes"], theme)
        page.scale(left + side, top, side, row["scale"])
        top += max(height, side) + _FOOT
    return page.figure


def draw_growth(data, theme):
    """The ratio of η to the diagonal over steps: all kernels together, then each."""
    panels = data["panels"]
    figure = Figure(figsize=(_WIDTH, 3.3), layout="constrained")
    lines = {line["stage"]: line for panel in panels for line in panel["series"]}
    styles = figures.line_styles(list(lines.values()), theme)
    found = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(found, panels, strict=True):
        name = "RMS of η / RMS of diagonal" if axes is found[0] else ""
        figures.prepare_axes(axes, theme, figures.AXES["steps"], name)
        title = _two_lines(panel["kernel"]) if panel["kernel"] else "all kernels with η"
        axes.set_title(title, fontsize=_TEXT, color=theme.ink)
        for line in panel["series"]:
            values = [float("nan") if value is None else value for value in line["ratio"]]
            axes.plot(line["x"], values, label=line["stage"], **styles[line["stage"]])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(left=0)
    found[0].set_ylim(bottom=0)
    figures.legend_below(figure, found, theme)
    return figure


class _Page:
    """A figure on which things are placed in inches from its top left corner."""

    def __init__(self, width, height, theme):
        self.figure = Figure(figsize=(width, height))
        self._size, self._theme = (width, height), theme

    def panel(self, left, top, width, height):
        """Axes for a heat map, or for a colour scale."""
        across, down = self._size
        axes = self.figure.add_axes(
            (left / across, 1 - (top + height) / down, width / across, height / down)
        )
        axes.tick_params(colors=self._theme.ink, labelsize=_SMALL, length=2.5, width=0.6, pad=2.5)
        for spine in axes.spines.values():
            spine.set(color=self._theme.muted, linewidth=0.6)
        return axes

    def header(self, top, row, more=()):
        """The stage's name in bold, and after it what the row shows."""
        across, down = self._size
        height = 1 - (top + _HEADER - 0.08) / down
        name = self.figure.text(
            _LEFT / across, height, row["stage"],
            fontsize=_TEXT + 1, fontweight="bold", color=self._theme.ink,
        )  # fmt: skip
        facts = (*more, f"learning rate {row['schedule']}", _cell_text(row["cells"]))
        self.figure.add_artist(
            Annotation(
                "; ".join(facts),
                (1, height),
                xycoords=(name, "figure fraction"),
                xytext=(8, 0),
                textcoords="offset points",
                fontsize=_SMALL + 0.5,
                color=self._theme.muted,
            )  # fmt: skip
        )

    def scale(self, left, top, height, ends):
        """The colour scale of a row, to the right of its last panel."""
        axes = self.panel(left + _BAR_GAP, top, _BAR, height)
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(ends["low"], ends["high"]), COLORS),
            cax=axes,
            extend="max",
            extendfrac=0.06,
        )
        bar.outline.set(edgecolor=self._theme.muted, linewidth=0.6)
        if height < _SHORT:
            ends = [ends["low"], ends["high"]]
            bar.set_ticks(ends, labels=[f"{end:.2g}" for end in ends])
        else:
            bar.locator = MaxNLocator(5)
            bar.update_ticks()
        axes.tick_params(colors=self._theme.ink, labelsize=_SMALL, length=2.5, width=0.6)
        axes.set_title("|w|", fontsize=_SMALL + 0.5, color=self._theme.ink, pad=3)


def _ratio(shape):
    """Height over width of a heat map: that of the kernel, within bounds."""
    return min(1.5, max(0.4, shape[0] / shape[1]))


def _close_up_sizes(shape):
    """Width and height of the whole kernel, and the side of the enlarged square beside it."""
    free, ratio = _WIDTH - _LEFT - _RIGHT - _CLOSE_UP_GAP, _ratio(shape)
    width = free / (1 + min(1, max(0.7, ratio)))
    side = free - width
    width = min(width, 1.2 * side / ratio)
    return width, width * ratio, side


def _show(axes, values, row):
    """A map in units of cells; ticks and lines stand at the blocks' borders."""
    _draw(axes, values, row["scale"])
    down, across = _tick_borders(axes, row)
    for place in down[1:-1]:
        _line(axes.axhline(place))
    for place in across[1:-1]:
        _line(axes.axvline(place))


def _tick_borders(axes, row):
    """Puts ticks where blocks begin and end, and returns their places."""
    places = [
        [cells.index(border) - 0.5 for border in borders]
        for borders, cells in zip(row["borders"], row["cells"], strict=True)
    ]
    _set_ticks(axes, places, row["borders"])
    return places


def _show_zoom(axes, row):
    """Single weights around the place where blocks meet."""
    zoom = row["zoom"]
    _draw(axes, zoom["values"], row["scale"])
    ends = list(zip(zoom["from"], zoom["to"], strict=True))
    borders = [
        [border for border in each if start <= border <= stop]
        for each, (start, stop) in zip(row["borders"], ends, strict=True)
    ]
    labels = [
        sorted({start, *each, stop}) for each, (start, stop) in zip(borders, ends, strict=True)
    ]
    starts = zoom["from"]
    ticks = [[at - start - 0.5 for at in each] for each, start in zip(labels, starts, strict=True)]
    _set_ticks(axes, ticks, labels)
    for place in borders[0]:
        _line(axes.axhline(place - starts[0] - 0.5))
    for place in borders[1]:
        _line(axes.axvline(place - starts[1] - 0.5))


def _draw(axes, values, scale):
    image = np.ma.masked_invalid(np.asarray(values, np.float64))
    axes.imshow(
        image,
        cmap=COLORS,
        vmin=scale["low"],
        vmax=scale["high"],
        aspect="auto",
        interpolation="nearest",
    )


def _set_ticks(axes, places, labels):
    """Ticks at all places; labels where there is room."""
    width, height = _inches(axes)
    axes.set_yticks(places[0], _with_room(places[0], labels[0], height, _LINE))
    room = _DIGIT * (len(str(labels[1][-1])) + 1)
    axes.set_xticks(places[1], _with_room(places[1], labels[1], width, room))


def _inches(axes):
    """Width and height of axes."""
    return axes.get_position().size * axes.figure.get_size_inches()


def _with_room(places, labels, length, room):
    """The labels of an axis of some inches, without those nearer than `room` to one before."""
    inch = length / (places[-1] - places[0])
    texts, before = [], -math.inf
    for place, label in zip(places, labels, strict=True):
        last = place == places[-1]
        if last or min(place - before, places[-1] - place) * inch >= room:
            texts.append(str(label))
            before = place
        else:
            texts.append("")
    return texts


def _line(line):
    """A border of blocks: dark with a light edge, so that it shows on every colour."""
    line.set(color="#000000", linewidth=0.5)
    line.set_path_effects([patheffects.withStroke(linewidth=1.4, foreground="#ffffff")])


def _name_axes(axes, names, theme):
    """Names of the kernel's axes at the sides; None leaves only the ticks."""
    if names is None:
        axes.tick_params(left=False, labelleft=False, labelbottom=False)
        return
    axes.set_ylabel(names[0], fontsize=_SMALL + 0.5, color=theme.ink, labelpad=2)
    axes.set_xlabel(names[1], fontsize=_SMALL + 0.5, color=theme.ink, labelpad=1)


def _name_sources(axes, row, theme):
    """The sources of the diagonal blocks, above the columns of each; none where they collide."""
    borders, cells = row["borders"][1], row["cells"][1]
    if len(borders) - 1 != len(row["sources"]):
        return
    places = [cells.index(border) for border in borders]
    inch = _inches(axes)[0] / places[-1]
    spans = zip(row["sources"], itertools.pairwise(places), strict=True)
    if any((stop - start) * inch < _DIGIT * len(name) for name, (start, stop) in spans):
        return
    for name, (start, stop) in zip(row["sources"], itertools.pairwise(places), strict=True):
        axes.text(
            ((start + stop) / 2 - 0.5), 1.02, name, transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=_SMALL, color=theme.muted,
        )  # fmt: skip


def _mark(axes, row):
    """The square that is enlarged."""
    zoom = row["zoom"]
    (top, left), (bottom, right) = (
        [
            np.interp(place, cells, range(len(cells))) - 0.5
            for place, cells in zip(zoom[end], row["cells"], strict=True)
        ]
        for end in ("from", "to")
    )
    frame = Rectangle(
        (left, top), right - left, bottom - top, fill=False, edgecolor="#000000", linewidth=1.0
    )
    frame.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground="#ffffff")])
    axes.add_patch(frame)


def _leave_empty(axes, row, theme):
    """The place of a map that there is none of, with the ticks that it would have."""
    axes.set_facecolor(theme.ground)
    down, across = _tick_borders(axes, row)
    axes.set_xlim(across[0], across[-1])
    axes.set_ylim(down[-1], down[0])
    axes.text(
        0.5, 0.5, "not saved", transform=axes.transAxes, ha="center", va="center",
        fontsize=_SMALL, color=theme.muted,
    )  # fmt: skip


def _cell_text(cells):
    """How many weights a cell of a map stands for."""
    down, across = (int(np.diff(each).max()) for each in cells)
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
