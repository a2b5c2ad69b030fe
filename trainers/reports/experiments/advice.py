"""Backtest of the advice of `trainers.advise` on this run."""

from trainers.errors import UserError
from trainers.reports import numbers, tables
from trainers.reports.tables import Section

_TITLE = "The advice, tested on what it did not see"
_KINDS = {
    "continued": "the rest of a curve, from its beginning",
    "unseen": "a curve from random weights, from others of its size",
    "fused": "self-fusions, from the laws and other self-fusions",
}


def section(run):
    """Returns the section, or None where the plan when_to_fuse was not asked for."""
    if not run.experiment("when_to_fuse"):
        return None
    # SciPy's optimizers take a while to import.
    from trainers.advice import choice, curves

    try:
        read = curves.read_curves([run], "flops")
        groups = curves.by_size([curve for curve in read if curve.size in "SM"])
        scores = choice.backtest(groups, curves.self_fusions(read, groups))
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
    def count(name):
        return lambda score: tables.figure(score[name], numbers.count)

    def percent(name):
        return lambda score: tables.figure(score[name], _percent, otherwise="no forecast")

    columns = (
        ("kind", "Forecast", "", lambda score: tables.label(_KINDS[score["kind"]])),
        ("share", "Seen of the curve", "", lambda s: tables.figure(s["share"], "{:.0%}".format)),
        ("runs", "Runs", "", count("runs")),
        ("points", "Evaluations", "", count("points")),
        ("error", "Median error, %", "Loss", percent("error")),
        ("end_error", "At the end, %", "Loss", percent("end_error")),
        ("bias", "Bias, %", "Loss", percent("bias")),
        ("coverage", "In the interval, %", "", percent("coverage")),
        ("refused", "Runs without a forecast", "", count("refused")),
    )
    title = "Forecasts of validation losses that the advice did not see."
    bias = "Bias above 0: forecast too high."
    return tables.tabulate("advice_backtest", title, scores, columns, bias)


def _percent(share):
    return f"{100 * share:.2f}"
