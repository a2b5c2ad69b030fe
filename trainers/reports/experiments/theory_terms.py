"""The terms of section 4 of fused stages while they trained, and the order of their ends."""

import statistics

from scipy import stats

from trainers.reports import numbers, pictures, tables
from trainers.reports.experiments import offsets, points
from trainers.reports.tables import Section

KIND = "theory"
_PANELS = (
    ("bracket_drift", "Drift by the bracket", "Share of the step", "log"),
    ("bracket_eta", "Bracket in η", "‖[∇L1, ∇L2]‖ in η", "log"),
    ("bracket_theta", "Bracket outside η", "‖[∇L1, ∇L2]‖ in θ", "log"),
    ("eta_share", "How large η is", "RMS of η over that of θ", "linear"),
    ("second_flatness", "Modified loss: (hα²/4)‖∇L2‖²", "Nats", "log"),
)
_TERMS = ("first_loss", "second_loss", "first_flatness", "second_flatness")
_ABOUT = (
    "Measured in training on a small batch that stays the same (kf.theory.Monitor). L1 is the loss "
    "without η, L2 what η adds. The bracket of their gradients measures how far the order of the "
    "steps bends the path. All of it is about plain gradient steps with these learning rates; the "
    "runs take Adafactor's. Lemma 3's zero outside η holds at η = 0: noise in η moves away from it "
    "at the start."
)


def section(run):
    """The section, or None where no stage of the offsets has logged the theory."""
    shown = [p for p in offsets.trained(run) if points.logged(run, p, KIND, "bracket")[0]]
    if not shown:
        return None
    drifts = [statistics.fmean(points.logged(run, p, KIND, "bracket_drift")[1]) for p in shown]
    by_offset = [
        {"name": point.name, "x": [point.settings["offset"]], "y": [drift]}
        for point, drift in zip(shown, drifts, strict=True)
    ]
    panels = [
        points.logged_panel(run, shown, KIND, field, title, y, scale)
        for field, title, y, scale in _PANELS
    ]
    chart = pictures.chart(
        KIND,
        "Section 4 in the runs of the offsets.",
        "Drift by the bracket: what it adds to the flow over what the gradients do, "
        "(hα/2)‖[∇L1, ∇L2]‖ / ‖∇L1 + α∇L2‖.",
        "Six charts of the bracket, of η and of the modified loss over steps and over the offset.",
        [*panels, pictures.panel("Mean drift by offset", "Offset, steps", "Mean drift", by_offset)],
    )
    return Section(
        "The theory and the offsets",
        (chart, _table(run, shown)),
        (_ABOUT, explains(drifts, [point.stage.accuracy for point in shown])),
    )


def explains(drifts, accuracies):
    """Says if larger mean drifts occur with better accuracies at the end, where they are known."""
    both = [(d, a) for d, a in zip(drifts, accuracies, strict=True) if a is not None]
    if len(both) < 3 or len({d for d, _ in both}) < 2 or len({a for _, a in both}) < 2:
        return "Too few offsets to say if the bracket explains the order of their ends."
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
        f"over {len(both)} offsets (p = {chance:.2f}): here {verdict}. The learning rate drives "
        "both, there is one seed, and so few points prove nothing."
    )


def _rank_correlation(drifts, accuracies):
    """Spearman's, and the share of orders as far from none as this one: exact up to seven runs."""
    result = stats.permutation_test(
        (drifts,),
        lambda order: stats.spearmanr(order, accuracies).statistic,
        permutation_type="pairings",
        vectorized=False,
        rng=0,
    )
    return float(result.statistic), float(result.pvalue)


def _table(run, shown):
    def mean(field):
        return points.last(run, KIND, field, numbers.short, statistics.fmean)

    def last(field, style=numbers.short):
        return points.last(run, KIND, field, style)

    def accuracy(point):
        return tables.figure(point.stage.accuracy, numbers.percent)

    group = "Modified loss at the end"
    columns = (
        offsets.OFFSET,
        ("drift", "Mean drift", "", mean("bracket_drift")),
        ("bracket", "Mean ‖bracket‖", "", mean("bracket")),
        *((term, term.replace("_", " "), group, last(term)) for term in _TERMS),
        ("eta_share", "η share at the end", "", last("eta_share", numbers.ratio)),
        ("accuracy", "Acc., %, at the end", "", accuracy),
        ("seconds", "Cost of measuring, s", "", last("total_seconds", numbers.tenth)),
    )
    return tables.tabulate(
        KIND,
        "The bracket and the terms of the modified loss, by offset.",
        shown,
        columns,
        "The cost of measuring is not in the stages' device-seconds; it includes compiling.",
    )
