"""The drawing of which stage is fused from which (the paper's Figure 2, for the run at hand)."""

import itertools
from collections import Counter

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from trainers.reports import numbers
from trainers.reports.comparisons import variations
from trainers.reports.pictures import Picture
from trainers.reports.stage_tables import INITS
from trainers.runs.history import FINISHED

# Inches of a column of boxes and of a row; gaps in parts of them.
_WIDTH, _HEIGHT = 2.2, 1.26
_GAP_X, _GAP_Y = 0.6, 0.26
# Half the distance of the two lines of a self-fusion, in rows.
_DOUBLE = 0.045
_ABSENT = "not in this folder"


def graph(run):
    """The stages and links of a run, as data; without repeats and stages that only vary another.

    Columns are depths: a stage stands right of all its sources.
    """
    left_out = variations(run)
    stages = [s for s in run.stages.values() if s.repeat == 1 and s.name not in left_out]
    stages = stages or list(run.stages.values())
    depths = {}
    for stage in stages:
        for source in stage.sources:
            depths.setdefault(source, 0)
        depths[stage.name] = 1 + max((depths[source] for source in stage.sources), default=-1)
    rows, nodes = Counter(), []
    for name in sorted(depths, key=depths.get):
        column = depths[name]
        place = {"stage": name, "column": column, "row": rows[column]}
        nodes.append(place | _describe(run, name))
        rows[column] += 1
    links = [
        {"source": source, "target": stage.name, "self_fusion": stage.init == "self_fusion"}
        for stage in stages
        for source in dict.fromkeys(stage.sources)
    ]
    return {"nodes": nodes, "links": links}


def draw_graph(data, theme):
    """Draws boxes from left to right; a double arrow is a self-fusion, yellow a fused model."""
    sizes = Counter(node["column"] for node in data["nodes"])
    width, height = len(sizes) + _GAP_X * (len(sizes) - 1), max(sizes.values())
    figure = Figure(figsize=(_WIDTH * width + 0.3, _HEIGHT * height + 0.1), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.02, width + 0.02), ylim=(height, 0))
    axes.axis("off")
    places = {}
    for node in data["nodes"]:
        free = height - sizes[node["column"]]
        x, y = node["column"] * (1 + _GAP_X), free / 2 + node["row"]
        places[node["stage"]] = (x, y)
        _draw_node(axes, node, x, y, theme)
    for target, links in itertools.groupby(data["links"], key=lambda link: link["target"]):
        # Arrows that end at the same box share its left side, so that they do not merge.
        links = sorted(links, key=lambda link: places[link["source"]][1])
        for index, link in enumerate(links, start=1):
            x, y = places[link["source"]]
            end = places[target][1] + _GAP_Y / 2 + (1 - _GAP_Y) * index / (len(links) + 1)
            for shift in (-_DOUBLE, _DOUBLE) if link["self_fusion"] else (0,):
                arrow = {"arrowstyle": "-|>", "shrinkA": 1, "shrinkB": 1, "mutation_scale": 12}
                arrow |= {"color": theme.ink, "linewidth": 1.1}
                start = (x + 1, y + 0.5 + shift)
                axes.annotate("", (places[target][0], end + shift), start, arrowprops=arrow)
    return figure


def fusion_graph(run):
    """The drawing of a run's stages."""
    data = graph(run)
    links = [f"{link['source']} to {link['target']}" for link in data["links"]]
    return Picture(
        "graph",
        "The stages, and what each is fused from.",
        "Yellow boxes are fused models; the others start from scratch, or continue a model as it "
        "is; a double line is a self-fusion; a dashed box is not finished, or not in this folder. "
        "Repeats, and stages that only vary another, are left out.",
        f"A graph with the links {', '.join(links) or 'none'}.",
        data,
        draw_graph,
    )


def _describe(run, name):
    stage = run.stages.get(name)
    if stage is None:
        return {"lines": [_ABSENT], "fused": False, "state": _ABSENT}
    size = f"size {stage.size}"
    if stage.parameters:
        size += f", {numbers.scientific(stage.parameters)} parameters"
    trained = f"{numbers.count(stage.steps)} steps{'' if stage.finished else ' so far'}"
    lines = [size, f"{INITS.get(stage.init, stage.init)}, {trained}"]
    return {"lines": lines, "fused": stage.fused, "state": stage.status}


def _draw_node(axes, node, x, y, theme):
    """Draws a box of width 1 that fills the middle of a row."""
    box = FancyBboxPatch(
        (x, y + _GAP_Y / 2),
        1,
        1 - _GAP_Y,
        boxstyle="round,pad=0,rounding_size=0.04",
        mutation_aspect=_WIDTH / _HEIGHT,
        facecolor=theme.fused if node["fused"] else theme.ground,
        edgecolor=theme.ink,
        linewidth=1.1,
        linestyle="-" if node["state"] == FINISHED else (0, (4, 3)),
    )
    axes.add_patch(box)
    center = {"ha": "center", "va": "center"}
    axes.text(x + 0.5, y + 0.33, node["stage"], fontsize=11, fontweight="bold", **center)
    for index, line in enumerate(node["lines"]):
        axes.text(x + 0.5, y + 0.54 + 0.17 * index, line, fontsize=8.5, **center)
