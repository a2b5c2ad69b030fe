"""Pictures of a report: data first, then a drawing of nothing but that data.

Lines differ by colour (Okabe and Ito's palette, made for the colour-blind), by dash and by marker.
Every picture is drawn on a light and on a dark ground.
"""

import dataclasses
import io
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH = 9.2
"""Width in inches of a picture that fills the page."""

DPI = 200
_STYLE = Path(__file__).parent / "templates" / "pictures.mplstyle"
_GROUNDS = ("figure.facecolor", "savefig.facecolor", "axes.facecolor")
_INKS = ("axes.labelcolor", "text.color", "xtick.color", "ytick.color")
_MARKS = 9
_COLUMNS = 3


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of the ground and of what is written on it."""

    name: str
    ground: str
    ink: str
    muted: str
    grid: str
    fused: str
    # Colours of lines that are too dim on this ground, and what replaces each.
    swap: tuple[tuple[str, str], ...] = ()

    def style(self):
        """Context of matplotlib's settings on this ground."""
        colors = {"axes.edgecolor": self.muted, "grid.color": self.grid}
        colors |= dict.fromkeys(_GROUNDS, self.ground) | dict.fromkeys(_INKS, self.ink)
        return matplotlib.rc_context(colors, _STYLE)


INK, ORANGE, SKY, GREEN = "ink", "#e69f00", "#56b4e9", "#009e73"
BLUE, VERMILION, PINK = "#0072b2", "#d55e00", "#cc79a7"

LIGHT = Theme("light", "#ffffff", "#1a1a1a", "#5f6670", "#dcdfe4", "#fdf0b8")
# The palette's two blues change places on a dark ground.
DARK = Theme(
    "dark", "#15181d", "#ececec", "#a0a7b2", "#343a44", "#5a4d10", ((BLUE, SKY), (SKY, BLUE))
)

# Colour, marker and dash of lines: of stages that every run has, and of others in their order.
_KNOWN_LINES = {
    "baseline": (INK, "o", "-"),
    "baseline_longer": (INK, "o", (0, (2, 2))),
    "self_fusion": (VERMILION, "s", "--"),
    "fusion_property": (BLUE, "^", "-."),
    "fusion_rule": (GREEN, "D", (0, (1, 1.2))),
    "figure2_1": (INK, "H", (0, (1, 1.2))),
}
OTHER_LINES = (
    (PINK, "v", (0, (5, 1))),
    (SKY, "P", (0, (3, 1, 1, 1, 1, 1))),
    (ORANGE, "X", (0, (8, 2))),
    (GREEN, "p", "-"),
    (VERMILION, "<", "-."),
    (BLUE, ">", "--"),
    (PINK, "*", "-"),
    (ORANGE, "d", (0, (1, 1.2))),
)
CHART_LINES = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (VERMILION, "D", (0, (1, 1.2))),
    *OTHER_LINES,
)
_SOURCE_MARKERS = ("x", "+", "1", "2", "3", "4")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture."""

    key: str  # name of its file, without the ending
    title: str  # what is written beside it
    caption: str  # what is written beside it
    alt: str  # what it shows, for those who cannot see it
    data: dict  # everything that is drawn, as it goes into `results.json`
    # Function from the data and a `Theme` to a matplotlib `Figure`.
    draw: Callable[[dict, Theme], Figure]
    _files: dict = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def figure(self, theme=LIGHT):
        """The drawn picture."""
        with theme.style():
            return self.draw(self.data, theme)

    def png(self, theme=LIGHT):
        """The picture as the bytes of a PNG file, drawn once."""
        if theme.name not in self._files:
            buffer = io.BytesIO()
            with theme.style():
                figure = self.draw(self.data, theme)
                FigureCanvasAgg(figure)
                figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
            self._files[theme.name] = buffer.getvalue()
        return self._files[theme.name]


def panel(title, x, y, series, scale="linear"):
    """One panel of a chart, as data.

    A series is {"name", "x", "y"} with lists of numbers; None where there is none. With "error",
    a list too, each point has a bar of that length upwards and downwards.
    """
    return {"title": title, "x": x, "y": y, "scale": scale, "series": series}


def chart(key, title, caption, alt, panels):
    """A `Picture` of panels, three to a row; a line has the same style in each."""
    return Picture(key, title, caption, alt, {"panels": list(panels)}, _draw_chart)


def _draw_chart(data, theme):
    panels = data["panels"]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (4.6 * max(columns, 2), 3.5 * rows + 0.5)
    lines = [{"stage": line["name"]} for content in panels for line in content["series"]]
    styles = line_styles(lines, theme, CHART_LINES)

    def content(axes, content):
        label_axes(axes, content["x"], content["y"], content["title"])
        if content["scale"] == "log" and _positive(content["series"]):
            axes.set_yscale("log")
        for line in content["series"]:
            draw_line(axes, line["x"], line["y"], line["name"], styles, line.get("error"))

    return draw_panels(panels, content, size, rows, columns)


def draw_panels(panels, draw, size, rows=1, columns=None, **options):
    """A `Figure` of panels, filled by `draw(axes, panel)`, with one legend below them."""
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns or len(panels), squeeze=False, **options).ravel()
    for axes, content in zip(grid, panels, strict=False):
        draw(axes, content)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles = {}
    for axes in grid[: len(panels)]:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if handles:
        columns = min(4, len(handles))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)
    return figure


def label_axes(axes, x, y, title=""):
    """Names axes, and gives them a grid and round numbers of steps or compute."""
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def draw_line(axes, x, values, name, styles, errors=None):
    """Draws one line with gaps where a value is None, and bars of the length of errors, if any."""
    style = styles[name]
    axes.plot(x, _gaps(values), **{"label": name, "markevery": max(1, len(x) // _MARKS)} | style)
    if errors is not None:
        bars = {"fmt": "none", "ecolor": style["color"], "capsize": 3, "alpha": 0.7}
        axes.errorbar(x, _gaps(values), yerr=_gaps(errors), **bars)


def _gaps(values):
    return [math.nan if value is None else value for value in values]


def _positive(series):
    return any(value is not None and value > 0 for line in series for value in line["y"])


def line_styles(series, theme, others=OTHER_LINES):
    """{stage: keyword arguments} of lines; `others` are styles of stages without one of their own.

    A line whose "role" is "source" is muted, and one whose "repeat_of" names an earlier line is
    that line again, thin and pale.
    """
    others, sources = iter(others * len(series)), iter(_SOURCE_MARKERS * len(series))
    colors = {INK: theme.ink, **dict(theme.swap)}
    styles = {}
    for line in series:
        name = line["stage"]
        if name in styles:
            continue
        if line.get("repeat_of") in styles:
            pale = {"linewidth": 0.9, "marker": "none", "alpha": 0.55, "label": f"_{name}"}
            styles[name] = styles[line["repeat_of"]] | pale
        elif line.get("role") == "source":
            style = {"color": theme.muted, "marker": next(sources), "linewidth": 1.0}
            styles[name] = style
        else:
            color, marker, dash = _KNOWN_LINES.get(name) or next(others)
            styles[name] = {
                "color": colors.get(color, color),
                "marker": marker,
                "linestyle": dash,
                # An edge of the ground's colour sets a filled marker apart from its line.
                "markeredgecolor": theme.ground,
                "markeredgewidth": 0.6,
            }
    return styles
