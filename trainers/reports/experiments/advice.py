"""How good the advice of `trainers.advise` would have been on this run."""

from trainers.errors import UserError
from trainers.reports import numbers, tables
from trainers.reports.sections import Section
from trainers.reports.tables import Cell, Column, Table

_TITLE = "The advice, tested on what it did not see"
_KINDS = {
    "continued": "the rest of a curve, from its beginning",
    "unseen": "a curve from random weights, from others of its size",
    "fused": "self-fusions, from the laws and other self-fusions",
}


def section(run):
    """The section, or None where the plan when_to_fuse was not asked for.

    Args:
        run: a `RunHistory`.
    """
    if not run.experiment("when_to_fuse"):
        return None
    # It reads runs with this package, and takes SciPy's optimizers.
    from trainers import advice
    from trainers.advice import choice, texts

    try:
        curves = advice.read_curves([run], "flops")
        sizes = advice.sizes_of([c for c in curves if c.size in "SM"])
        scores = advice.backtest(curves, sizes)
        fits, effect = advice.learn(curves, sizes)
        budget = max(run.experiment("when_to_fuse")["facts"]["budgets"])
        flops = run.experiment("when_to_fuse")["facts"]["unit"] == "flops"
        lines = (
            texts.describe(advice.advise(budget, "flops", sizes, fits, effect), fits, effect)
            if flops
            else ()
        )
    except UserError as error:
        return Section(_TITLE, paragraphs=(f"There is no advice from this run yet: {error}",))
    return Section(
        _TITLE,
        (_table(scores),),
        (
            "trainers.advise fits laws of loss against compute to the curves of a run. Each row "
            "leaves something out, and forecasts it. An interval should hold "
            f"{choice.LEVEL:.0%} of what is seen; "
            "evaluations of one run go together, so a share over few runs is a rough one.",
        ),
        tuple(line.strip() for line in lines),
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
    rows = []
    for score in scores:
        found = score.to_dict()
        rows.append(
            (
                tables.label(_KINDS.get(found["kind"], found["kind"])),
                Cell(f"{found['share']:.0%}", found["share"]),
                Cell(numbers.count(found["runs"]), found["runs"]),
                Cell(numbers.count(found["points"]), found["points"]),
                *(
                    tables.figure(found[name], lambda v: f"{100 * v:.2f}", otherwise="no forecast")
                    for name in ("error", "end_error", "bias")
                ),
                tables.figure(
                    found["coverage"], lambda v: f"{100 * v:.0f}", otherwise="no forecast"
                ),
                Cell(numbers.count(found["refused"]), found["refused"]),
            )
        )
    return Table(
        "advice_backtest",
        "Forecasts of validation losses that the advice did not see.",
        columns,
        tuple(rows),
        "Bias above 0: forecast too high.",
    )
