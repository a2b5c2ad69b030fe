"""Figure 3: the GLUE average over the steps of pretraining, ours and the paper's."""

from collections.abc import Iterable, Sequence

from glue.reports import averages, published
from glue.reports.score_tables import NOTHING
from glue.results import FineTuning
from trainers.reports import pictures
from trainers.reports.pictures import Picture, Theme


def figure_3_data(runs: Iterable[FineTuning]) -> dict:
    """Everything that Figure 3 draws: lines of the run's and of the paper's models.

    Averages over other groups than those that most are over would not lie on one line with them, so
    they are left out. A deviation of a single run is None.
    """
    every = averages.averages(runs)
    groups = averages.main_groups(every)
    drawn = {key: average for key, average in every.items() if average.groups == groups}
    lines: dict[str, list] = {}
    for (model, step), average in drawn.items():
        lines.setdefault(model, []).append((step, average.mean, average.deviation))
    return {
        "groups": list(groups),
        "left_out": [list(key) for key in every if key not in drawn],
        "run": [_line(model, points) for model, points in lines.items()],
        "paper": [_paper_line(model) for model in published.TABLE_5],
    }


def figure_3(runs: Iterable[FineTuning]) -> Picture:
    """Figure 3 as a picture: our models on the left, the paper's on the right."""
    data = figure_3_data(runs)
    names = ", ".join(line["stage"] for line in data["run"]) or "no model of this run"
    over = averages.groups_note(data["groups"]) if data["groups"] else NOTHING
    others = ", ".join(f"{model} after {steps:,} steps" for model, steps in data["left_out"])
    if others:
        over = f"{over} Left out, as their averages are over other tasks: {others}."
    return Picture(
        "figure3",
        "Figure 3: GLUE average over the steps of pretraining.",
        "Left: this run, with a bar of one population standard deviation where a model was "
        "fine-tuned more than once. Right: the paper, from its Table 5. The two have scales of "
        f"their own. {over}".strip(),
        f"Two line charts of the GLUE average: left {names}; right the paper's baseline, "
        "fusion-prop, self-fusion and T5-SMALL.",
        data,
        draw_figure_3,
    )


def draw_figure_3(data: dict, theme: Theme):
    """Draws the data of `figure_3_data`."""

    def draw(axes, source: str) -> None:
        title = {"run": "This run", "paper": "The paper"}[source]
        pictures.label_axes(axes, "Steps (of a fused model: after it)", "GLUE average", title)
        styles = pictures.line_styles(data[source], theme)
        for line in data[source]:
            bars = [deviation or 0.0 for deviation in line["deviation"]]
            pictures.draw_line(axes, line["x"], line["mean"], line["stage"], styles, bars)

    return pictures.draw_panels(("run", "paper"), draw, (pictures.WIDTH, 3.9))


def _paper_line(model: str) -> dict:
    points = []
    for step, text in zip(published.TABLE_5_STEPS, published.TABLE_5[model], strict=True):
        if text:
            mean, *deviation = map(float, text.split(" ± "))
            points.append((step, mean, deviation[0] if deviation else None))
    return _line(model, points)


def _line(model: str, points: Sequence[tuple[int, float, float | None]]) -> dict:
    """A line through (steps, mean, deviation)."""
    steps, means, deviations = map(list, zip(*points, strict=True))
    role = "source" if model == "small" else "plan"
    return {"stage": model, "role": role, "x": steps, "mean": means, "deviation": deviations}
