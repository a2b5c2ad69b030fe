"""The data of heat maps and of η's growth, for the drawings and for `results.json`.

`saved` is stage → step → `blocks.Saved`, `path` a kernel.
"""

import numpy as np

from trainers.reports import numbers
from trainers.reports.heatmaps import blocks

# About the largest numbers of cells along an axis: of a heat map over time, of one alone.
_GRID, _WHOLE = 64, 256
# The enlarged part: values to either side of a border, and at most this share of the kernel.
_REACH, _SHARE = 32, 4
# The share of the cells of each heat map that lie within the colour scale.
_WITHIN = 0.995


def grid(run, saved, path, columns):
    """Heat maps of one kernel, stage by step, as data; None where a step is not saved.

    `cells` are the borders of the cells, `values` the mean |w| of each.
    """
    rows = []
    for name, steps in saved.items():
        row = _row(run, name, steps, path, _GRID)
        maps = [{"step": step, "values": _map(steps, step, path, row)} for step in columns]
        row["scale"] = _scale([content["values"] for content in maps if content["values"]])
        rows.append(row | {"maps": maps})
    return {"kernel": path, "axes": _axes(saved, path), "columns": list(columns), "rows": rows}


def close_up(run, saved, path, among=None):
    """A kernel of every stage at its last step (among some), whole and where its blocks meet.

    The zoom has |w| of every single weight from one corner to another.
    """
    rows = []
    for name, steps in saved.items():
        step = max(step for step in steps if not among or step in among)
        row = _row(run, name, steps, path, _WHOLE)
        reach = max(1, min(_REACH, min(row["shape"]) // (2 * _SHARE)))
        region = blocks.corner(row["borders"], reach)
        zoom = {
            "from": [along.start for along in region],
            "to": [along.stop for along in region],
            "values": _rounded(np.abs(np.asarray(steps[step].weights[path][region], np.float64))),
        }
        values = _map(steps, step, path, row)
        row["scale"] = _scale([values, zoom["values"]])
        sources = source_names(run.stages[name], max(map(len, row["borders"])) - 1)
        rows.append(row | {"step": step, "sources": sources, "values": values, "zoom": zoom})
    return {"kernel": path, "axes": _axes(saved, path), "rows": rows}


def growth(saved, kernels):
    """The RMS of η over that of the diagonal blocks at every saved step, of all and of each kernel.

    The kernel of the panel of all together is None; kernels without η have no panel.
    """

    def all_sizes(at):
        sizes = {path: blocks.eta_sizes(at.weights[path], at.borders(path)) for path in at.kernels}
        return sizes | {None: sum(sizes.values())} if sizes else {}

    sizes = {n: {step: all_sizes(at) for step, at in steps.items()} for n, steps in saved.items()}

    def series(name, path):
        sums = {step: of[path] for step, of in sizes[name].items() if path in of}
        eta, diagonal = zip(*map(blocks.rms, sums.values()), strict=True) if sums else ((), ())
        return {
            "stage": name,
            "role": "plan",
            "x": list(sums),
            "eta_rms": list(eta),
            "diagonal_rms": list(diagonal),
            "ratio": [blocks.ratio(squares) for squares in sums.values()],
        }

    panels = []
    for path in (None, *kernels):
        lines = [line for line in (series(name, path) for name in saved) if line["x"]]
        if lines:
            panels.append({"kernel": path, "series": lines})
    return {"panels": panels}


def _row(run, name, steps, path, most):
    """The data that the maps of a stage share."""
    last = steps[max(steps)]
    borders = last.borders(path)
    return {
        "stage": name,
        "schedule": numbers.schedule(run.stages[name].learning_rate),
        "shape": list(last.weights[path].shape),
        "borders": [list(edges) for edges in borders],
        "cells": [list(blocks.bands(edges, most)) for edges in borders],
    }


def _map(steps, step, path, row):
    """Mean |w| of every cell; None where the step was not saved."""
    if step not in steps:
        return None
    return _rounded(blocks.cells(steps[step].weights[path], row["cells"]))


def _scale(maps):
    """The ends of a row's colour scale: 0, and a number above all but a few cells of each map."""
    tops = [0.0]
    for content in maps:
        values = np.asarray(content, np.float64)
        values = np.sort(values[np.isfinite(values)])
        tops.append(float(values[int(_WITHIN * (len(values) - 1))]) if len(values) else 0.0)
    return {"low": 0.0, "high": max(tops) or 1.0, "within": _WITHIN}


def _axes(saved, path):
    axes = next(iter(next(iter(saved.values())).values())).axes[path]
    return [f"{name} ({'in' if name in axes.sums else 'out'})" for name in axes.names]


def source_names(stage, count):
    """Names of the sources of each block; numbers where the blocks are not one per source."""
    if len(stage.sources) == count:
        return list(stage.sources)
    names = stage.sources * count if len(stage.sources) == 1 else ("",) * count
    return [name or f"source {index}" for index, name in enumerate(names[:count], start=1)]


def _rounded(values):
    """Nested lists with three digits: enough for a picture, and a fifth of the space."""
    return [[float(f"{value:.3g}") for value in row] for row in values.tolist()]
