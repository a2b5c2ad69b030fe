"""The ratio of compute as a curve over the accuracy reached: what a plan costs at every goal.

A single goal is a choice, and a ratio at it may be luck. The curve has the ratio for every accuracy
that both arms reached: the cost at which the running best of the plan's evaluations gets there, all
its stages counted, over the cost at which that of the baseline does.
"""

import statistics

import numpy as np

from trainers.reports.comparisons import ancestors
from trainers.reports.crossings import COSTS, best_accuracy, first_crossing, with_accuracy

POINTS = 121
"""Accuracies of a curve, evenly spaced from the lowest to the highest."""


def shared_range(plan, baseline):
    """The accuracies that two curves both reached after their start: (low, high), or None.

    The lowest is the higher of their first evaluations: below it a plan has not begun, and the
    cost of its sources is no price of an accuracy. The highest is the lower of their best ones.
    """
    curves = with_accuracy(plan), with_accuracy(baseline)
    if not all(curves):
        return None
    low = max(curve[0].accuracy for curve in curves)
    high = min(map(best_accuracy, curves))
    return (low, high) if low < high else None


def ratio_curve(before, plan, baseline, accuracies):
    """The cost of a plan over that of its baseline where each first reaches some accuracies.

    Args:
        before: `Cost` of all stages that the plan comes from.
        plan, baseline: evaluations of the plan's last stage, and of the baseline.
        accuracies: in per cent.

    Returns:
        {"flops": ratios, "device_seconds": ratios}, a number for each accuracy; None where an arm
        does not reach it, or the baseline has it for nothing.

    Example:
        A source cost 1000 FLOPs. The plan goes from 30 to 50 % for 1000 more, the baseline from 0
        to 40 % for 4000: 40 % costs (1000 + 500) / 4000 = 0.375 of the baseline's FLOPs.
    """
    ratios = {field: [] for field in COSTS}
    for accuracy in accuracies:
        crossing, end = first_crossing(plan, accuracy), first_crossing(baseline, accuracy)
        cost = crossing and before + crossing.cost
        for field, values in ratios.items():
            whole = end and getattr(end.cost, field)
            values.append(getattr(cost, field) / whole if cost and whole else None)
    return ratios


def ratio_curves(run, comparisons):
    """The ratio curve of each plan of `compare(run)`, as data; means over the seeds.

    Returns:
        A list of {"stage", "seeds", "accuracy", "sources", "flops", "device_seconds"}: accuracies
        that all seeds of both arms reached; the best accuracy of the stages that the plan comes
        from; and for each cost {"mean", "deviation"}, lists with a number per accuracy or None.
    """
    plans = {}
    for comparison in comparisons:
        if comparison.before is not None:
            plans.setdefault(run.stages[comparison.plan].base, []).append(comparison)
    curves = (_over_seeds(run, plan, repeats) for plan, repeats in plans.items())
    return [curve for curve in curves if curve]


def _over_seeds(run, plan, repeats):
    pairs = [(run.stages[c.plan].curve, run.stages[c.baseline].curve) for c in repeats]
    ranges = [shared_range(*pair) for pair in pairs]
    if None in ranges:
        return None
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    if low >= high:
        return None
    accuracies = np.linspace(low, high, POINTS).tolist()
    # Rounding may lift the last one above what was reached.
    accuracies[-1] = high
    ratios = [
        ratio_curve(comparison.before, *pair, accuracies)
        for comparison, pair in zip(repeats, pairs, strict=True)
    ]
    curve = {"stage": plan, "seeds": len(repeats), "accuracy": accuracies}
    curve["sources"] = _best_source(run, repeats)
    for field in COSTS:
        columns = list(zip(*(seed[field] for seed in ratios), strict=True))
        curve[field] = {
            "mean": [None if None in column else statistics.fmean(column) for column in columns],
            "deviation": [
                None if None in column else statistics.pstdev(column) for column in columns
            ],
        }
    return curve


def _best_source(run, repeats):
    """The best accuracy of the stages that the plan comes from, over its seeds; None without."""
    names = {name for c in repeats for name in ancestors(run, c.plan) if name in run.stages}
    best = (best_accuracy(run.stages[name].curve) for name in names)
    return max((accuracy for accuracy in best if accuracy is not None), default=None)
