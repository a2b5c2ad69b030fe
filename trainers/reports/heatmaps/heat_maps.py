"""Heat maps of fused kernels over time, and how η grows (the paper's Figures 5 and 8).

The choice of kernels and steps, and their captions. Their numbers: `data`; their drawings:
`drawings`.
"""

import numpy as np

from trainers.errors import UserError
from trainers.reports import numbers
from trainers.reports.comparisons import variations
from trainers.reports.experiments import offsets
from trainers.reports.heatmaps import blocks, data, drawings
from trainers.reports.pictures import Picture

# The paper's Figure 5 shows "the first layers' feed forward kernel".
KERNELS = (
    "encoder/block_0/feed_forward/input_projector/kernel",
    "encoder/block_0/self_attention/query/kernel",
)
NOTHING = "No checkpoint of a fused stage could be read, so there are no heat maps."
# Kind, title and caption of the maps of a kernel.
_OVER_TIME = (
    "heatmap",
    "5: {} over time.",
    "One row per fused stage, one column per saved step. Colour is the size of the weights, "
    "|w|, 0 the lightest; where a cell stands for several weights, their mean. A row has one "
    "scale; what exceeds it, up to one cell in 200 of a map, is black. Lines: borders of the "
    "sources' blocks. Those on the diagonal were trained before the fusion, the others, η, "
    "began at zero or at small noise.",
)
_CLOSE_UP = (
    "closeup",
    "8: {}, whole and where its blocks meet.",
    "Left the whole kernel, with the names of the sources of the blocks on the diagonal; right "
    "the marked square, where blocks meet, one cell per weight. Both have the scale beside them.",
)
# Saved steps of a stage that are read at most for the curve of η, spread evenly.
_CURVE = 40


def heat_maps(run, kernels=None, steps=None, rows=6, columns=8):
    """Heat maps and the curve of η for the fused stages of a run.

    Where the run has offsets of the learning rate, these are shown, from the lowest to the highest,
    as in the paper's Figure 5; else all fused stages, without repeats and stages that only vary
    another. Where kernels or steps are asked for, all fused stages.

    Args:
        kernels: paths of the weights to show; None shows `KERNELS`, or the first ones where the
            models have none of these.
        steps: saved steps to show in heat maps; None spreads over all of them.
        rows, columns: stages and steps that a picture shows at most, spread evenly.

    Returns:
        A tuple of `Picture` and one of paragraphs about what is not shown.

    Raises:
        UserError: a kernel that no fused stage has, or a step that none has saved.
    """
    saved, faults = _open(run, steps, stages_shown(run, bool(kernels or steps)))
    paragraphs = [f"Passed over: {fault}" for fault in faults]
    if not saved:
        return (), (NOTHING, *paragraphs)
    kernels, pictures = _choose(saved, kernels), []
    for path in kernels:
        having = {
            name: stage
            for name, stage in saved.items()
            if path in stage[max(stage)].axes and (not steps or not stage.keys().isdisjoint(steps))
        }
        shown = {name: having[name] for name in spread(list(having), rows)}
        left_out = ", ".join(name for name in saved if name not in shown)
        if left_out:
            paragraphs.append(f"Not among the heat maps of {path}: {left_out}.")
        if shown:
            at = sorted(steps or _columns(shown, columns))
            grid = data.grid(run, shown, path, at)
            columns_shown = ", ".join(map(numbers.count, grid["columns"]))
            alt = f"Heat maps of a kernel over the steps {columns_shown}, a row for each of "
            pictures.append(_picture(*_OVER_TIME, alt, grid, drawings.draw_grid))
            close_up = data.close_up(run, shown, path, steps)
            alt = "Two heat maps of a kernel, whole and enlarged, for each of "
            pictures.append(_picture(*_CLOSE_UP, alt, close_up, drawings.draw_close_up))
    growth = data.growth(saved, kernels)
    if growth["panels"]:
        pictures.append(_growth(growth))
    return tuple(pictures), tuple(paragraphs)


def spread(items, most):
    """At most so many items of a list, evenly, with the first and the last.

    Example:
        >>> spread([1, 2, 3, 4, 5], 3)
        [1, 3, 5]
    """
    if len(items) <= most:
        return list(items)
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]


def stages_shown(run, asked=False):
    """The fused stages whose kernels a report shows."""
    fused = [s for s in run.stages.values() if s.fused]
    if asked:
        return fused
    shifted, left_out = offsets.trained(run), variations(run)
    plain = [s for s in fused if s.repeat == 1 and s.base not in left_out]
    return [point.stage for point in shifted] or plain


def _open(run, steps, stages):
    """{stage: {step: `blocks.Saved`}}, and sentences about what cannot be used."""
    wanted, saved, faults = set(steps or ()), {}, []
    for stage in stages:
        checkpoints, unusable = blocks.open_saved(
            run.workdir / stage.name,
            lambda all_steps: sorted({*spread(all_steps, _CURVE), *wanted.intersection(all_steps)}),
        )
        saved |= {stage.name: checkpoints} if checkpoints else {}
        faults += [f"{stage.name}: {fault}" for fault in unusable]
    present = sorted({step for checkpoints in saved.values() for step in checkpoints})
    if saved and wanted and wanted.isdisjoint(present):
        received = f"steps={list(steps)}. There are {', '.join(map(str, present))}"
        raise UserError("steps at which a fused stage was saved", received, "Choose among these")
    return saved, faults


def _choose(saved, kernels):
    """The kernels to show: those asked for, else the usual ones, else the first."""
    last = [stage[max(stage)] for stage in saved.values()]
    matrices = dict.fromkeys(path for checkpoint in last for path in checkpoint.matrices)
    unknown = [path for path in kernels or () if path not in matrices]
    if unknown:
        raise UserError(
            "kernels of the fused stages, weights of two dimensions such as "
            f"{', '.join(list(matrices)[:3])}",
            f"kernels={unknown}",
            "Choose among these",
        )
    usual = [path for path in KERNELS if path in matrices]
    return list(dict.fromkeys(kernels or ())) or usual or list(last[0].kernels[:2])


def _columns(saved, most):
    """Steps for the columns: spread over all, and at least one of every stage."""
    columns = set(spread(sorted({step for steps in saved.values() for step in steps}), most))
    return sorted(columns | {max(steps) for steps in saved.values() if not columns & set(steps)})


def _picture(kind, title, caption, alt, content, draw):
    """A picture of maps; its caption mentions weights that are NaN or infinite."""
    title = f"Figure {title.format(content['kernel'])}"
    key = f"{kind}_{content['kernel'].removesuffix('/kernel').replace('/', '_')}"
    maps = [part for row in content["rows"] for part in (row, *row.get("maps", ()))]
    values = [part["values"] for part in maps if part.get("values")]
    if not all(np.isfinite(cells).all() for cells in values):
        caption += " Light blue: NaN or infinite."
    stages = ", ".join(row["stage"] for row in content["rows"])
    return Picture(key, title, caption, f"{alt}{stages}.", content, draw)


def _growth(content):
    stages = ", ".join(line["stage"] for line in content["panels"][0]["series"])
    return Picture(
        "eta",
        "How η grows: its root mean square over that of the diagonal blocks.",
        "0: nothing of η is used; 1: η is as large as the blocks of the sources. For all kernels "
        "with two growing axes together: one root mean square over the values of all outside their "
        "diagonal blocks, over one inside.",
        f"Line charts of a ratio over steps, a line for each of {stages}.",
        content,
        drawings.draw_growth,
    )
