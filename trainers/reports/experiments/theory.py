"""What section 4 says of fused stages while they trained, and of the order of their ends."""

import statistics

from scipy import stats

from trainers.reports import numbers, pictures, tables
from trainers.reports.experiments import offsets, points
from trainers.reports.sections import Section
from trainers.reports.tables import Cell, Column, Table

KIND = "theory"
_PANELS = (
    ("bracket_drift", "Drift by the bracket", "Share of the step", "log"),
    ("bracket_eta", "Bracket in η", "‖[∇L1, ∇L2]‖ in η", "log"),
    ("bracket_theta", "Bracket outside η", "‖[∇L1, ∇L2]‖ in θ", "log"),
    ("eta_share", "How large η is", "RMS of η over that of θ", "linear"),
    ("second_flatness", "Modified loss: (hα²/4)‖∇L2‖²", "Nats", "log"),
)


def section(run):
    """The section, or None where no stage of the offsets has logged the theory.

    Args:
        run: a `RunHistory`.
    """
    found = sorted(points.shown(run, offsets.PLAN), key=lambda each: each.point["offset"])
    found = [each for each in found if points.logged(run, each.stage, KIND, "bracket")[0]]
    if not found:
        return None
    return Section(
        "What the theory says of the offsets",
        (_figure(run, found), _table(run, found)),
        (
            "Measured in training on a small batch that stays the same (kf.theory.Monitor). L1 is "
            "the loss without η, L2 what η adds; the bracket of their gradients is how the order "
            "of the steps bends the path. All of it is about plain gradient steps with these "
            "learning rates, where the runs take Adafactor's. Lemma 3's zero outside η holds at "
            "η = 0: noise in η takes it away from the start.",
            explains(mean_drifts(run, found), [each.stage.accuracy for each in found]),
        ),
    )


def mean_drifts(run, found):
    """The mean of bracket_drift over the run of each stage."""
    return [
        statistics.fmean(points.logged(run, each.stage, KIND, "bracket_drift")[1]) for each in found
    ]


def explains(drifts, accuracies):
    """Says whether larger brackets go with better ends.

    Args:
        drifts: mean drift of each run.
        accuracies: its accuracy at the end; None where it has none.
    """
    both = [(d, a) for d, a in zip(drifts, accuracies, strict=True) if a is not None]
    if len(both) < 3 or len({d for d, _ in both}) < 2 or len({a for _, a in both}) < 2:
        return "Too few offsets to say whether the bracket explains the order of their ends."
    rank, chance = _rank_correlation(*zip(*both, strict=True))
    direction = "as the bracket would predict" if rank > 0 else "against what it would predict"
    if abs(rank) >= 0.8:
        verdict = f"the order is {direction}"
    elif abs(rank) >= 0.3:
        verdict = f"the order leans {direction}, not clearly"
    else:
        verdict = "the bracket does not explain the order"
    return (
        f"Rank correlation (Spearman) of the mean drift with the accuracy at the end: {rank:+.2f} "
        f"over {len(both)} offsets (p = {chance:.2f}): here {verdict}. The "
        "learning rate drives both, the seed is one, and so few points prove nothing."
    )


def _rank_correlation(drifts, accuracies):
    """Spearman's, and the share of all orders that is as far from none: exact up to seven runs."""

    def rank(drifts):
        return stats.spearmanr(drifts, accuracies).statistic

    found = stats.permutation_test(
        (drifts,), rank, permutation_type="pairings", vectorized=False, rng=0
    )
    return float(found.statistic), float(found.pvalue)


def _figure(run, found):
    panels = []
    for field, title, y, scale in _PANELS:
        lines = []
        for each in found:
            steps, values = points.logged(run, each.stage, KIND, field)
            lines.append({"name": offsets.name(each), "x": steps, "y": values})
        panels.append(pictures.panel(title, points.STEPS, y, lines, scale))
    drift = [
        {"name": offsets.name(each), "x": [each.point["offset"]], "y": [value]}
        for each, value in zip(found, mean_drifts(run, found), strict=True)
    ]
    panels.append(pictures.panel("Mean drift by offset", "Offset, steps", "Mean drift", drift))
    return pictures.chart(
        "theory",
        "Section 4 in the runs of the offsets.",
        "Drift by the bracket: what it adds to the flow over what the gradients do, "
        "(hα/2)‖[∇L1, ∇L2]‖ / ‖∇L1 + α∇L2‖.",
        "Six charts of the bracket, of η and of the modified loss over steps and over the offset.",
        panels,
    )


def _table(run, found):
    terms = ("first_loss", "second_loss", "first_flatness", "second_flatness")
    columns = (
        Column("offset", "Offset, steps"),
        Column("drift", "Mean drift"),
        Column("bracket", "Mean ‖bracket‖"),
        *(Column(term, term.replace("_", " "), "Modified loss at the end") for term in terms),
        Column("eta_share", "η share at the end"),
        Column("accuracy", "Acc., %, at the end"),
        Column("seconds", "Cost of measuring, s"),
    )
    rows = []
    for each, drift in zip(found, mean_drifts(run, found), strict=True):

        def last(field, stage=each.stage):
            values = points.logged(run, stage, KIND, field)[1]
            return values[-1] if values else None

        brackets = points.logged(run, each.stage, KIND, "bracket")[1]
        rows.append(
            (
                Cell(f"{each.point['offset']:+d}", each.point["offset"]),
                tables.figure(drift, _short),
                tables.figure(statistics.fmean(brackets), _short),
                *(tables.figure(last(term), _short) for term in terms),
                tables.figure(last("eta_share"), numbers.ratio),
                tables.figure(each.stage.accuracy, numbers.percent),
                tables.figure(last("total_seconds"), lambda value: f"{value:.1f}"),
            )
        )
    return Table(
        "theory",
        "The bracket and the terms of the modified loss, by offset.",
        columns,
        tuple(rows),
        "The cost of measuring is not in the stages' device-seconds; it includes compiling.",
    )


def _short(value):
    return f"{value:.3g}"
