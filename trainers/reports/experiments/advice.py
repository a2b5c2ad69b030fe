"""Backtest of the advice of `trainers.advise` on this run."""

from trainers.errors import UserError
from trainers.reports import numbers, tables
from trainers.reports.tables import Cell, Column, Section, Table

_TITLE = "The advice, tested on what it did not see"
_KINDS = {
    "continued": "the rest of a curve, from its beginning",
    "unseen": "a curve from random weights, from others of its size",
    "fused": "self-fusions, from the laws and other self-fusions",
}


def section(run):
    """Returns the section, or None where the plan when_to_fuse was not asked for.

    Args:
        run: a `RunHistory`.
    """
    if not run.experiment("when_to_fuse"):
        return None
    # SciPy's optimizers take a while to import.
    from trainers.advice import choice, curves

    try:
        read = curves.read_curves([run], "flops")
        groups = curves.by_size([curve for curve in read if curve.size in "SM"])
        scores = choice.backtest(groups, [curve for curve in read if curve.source])
    except UserError as error:
        return Section(_TITLE, paragraphs=(f"There is no advice from this run yet: {error}",))
    return Section(
        _TITLE,
        (_table(scores),),
        (
            "trainers.advise fits laws of loss against compute to the curves of a run. Each row "
            "leaves something out, and forecasts it. An interval should hold "
            f"{choice.LEVEL:.0%} of what is seen; evaluations of one run go together, so a share "
            "over few runs is a rough one.",
        ),
    )


def _table(scores):
    columns = (
        Column("kind", "Forecast", align="left"),
        Column("share", "Seen of the curve"),
        Column("runs", "Runs"),
        Column("points", "Evaluations"),
        Column("error", "Median error, %", "Loss"),
        Column("end_error", "At the end, %", "Loss"),
        Column("bias", "Bias, %", "Loss"),
        Column("coverage", "In the interval, %"),
        Column("refused", "Runs without a forecast"),
    )
    rows = [
        (
            tables.label(_KINDS[score["kind"]]),
            Cell(f"{score['share']:.0%}", score["share"]),
            *(Cell(numbers.count(score[name]), score[name]) for name in ("runs", "points")),
            *(
                tables.figure(score[name], _percent, otherwise="no forecast")
                for name in ("error", "end_error", "bias", "coverage")
            ),
            Cell(numbers.count(score["refused"]), score["refused"]),
        )
        for score in scores
    ]
    return Table(
        "advice_backtest",
        "Forecasts of validation losses that the advice did not see.",
        columns,
        tuple(rows),
        "Bias above 0: forecast too high.",
    )


def _percent(share):
    return f"{100 * share:.2f}"
