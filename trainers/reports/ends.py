"""The ends of two arms that spent the same compute: differences that need no crossing.

A ratio of compute exists only where a plan reaches the baseline's accuracy, and where the learning
rate decays at the end of both arms, it is decided in the last steps of either. The difference of
their ends exists for every seed, and has an interval over seeds.
"""

import dataclasses
import math
import statistics

from scipy.special import stdtrit

from trainers.reports import guards, numbers
from trainers.reports.comparisons import cost_before, own_cost

LEVEL = 0.95
"""The level of `mean_interval`."""

SAME = 0.02
"""The largest difference of the FLOPs of two arms that are taken for the same compute."""

DEFINITION = (
    f"Ends are compared where the FLOPs of both arms differ by at most {100 * SAME:g} %, and both "
    "or neither have a decay of the learning rate: the difference is of two arms with the same "
    "seed, its interval that of the mean by Student's t."
)


@dataclasses.dataclass(frozen=True)
class Ends:
    """A plan's ends minus the baseline's, an element for each seed with both at one compute."""

    losses: tuple[float, ...]  # nats per token
    accuracies: tuple[float, ...]  # points of per cent
    repeats: tuple[int, ...]  # the seeds' numbers, from 1
    seeds: int  # all that the plan has, those without both ends too

    def to_dict(self):
        """The differences as an element of `results.json`."""
        values = {"losses": self.losses, "accuracies": self.accuracies}
        intervals = {f"{name}_interval": mean_interval(value) for name, value in values.items()}
        return dataclasses.asdict(self) | intervals

    def __str__(self):
        count = len(self.repeats)
        # A seed that diverged, or is not finished, is no reason to leave the others out.
        of = numbers.seeds(self.seeds) if count == self.seeds else f"{count} of {self.seeds} seeds"
        seeds = f"; means of {of}, {LEVEL:.0%} intervals" if count > 1 else f"; {of}"
        seeds = seeds if self.seeds > 1 else ""
        loss = _text(self.losses, ".3f", "nats per token")
        accuracy = _text(self.accuracies, ".2f", "points")
        return (
            f"At equal compute, its end minus the baseline's: loss {loss}, accuracy {accuracy}"
            f"{seeds.replace('%', ' %')}."
        )


def ends(run, repeats):
    """The `Ends` of a plan's comparisons; None where no seed has both arms at one compute.

    A seed counts only where both arms have a decay of the learning rate, or neither has one.
    """
    told = []
    for comparison in repeats:
        plan, baseline = run.stages[comparison.plan], run.stages[comparison.baseline]
        before, last, whole = cost_before(run, plan.name), own_cost(plan), own_cost(baseline)
        if not (plan.finished and baseline.finished) or None in (before, last, whole):
            continue
        is_same = math.isclose((before + last).flops, whole.flops, rel_tol=SAME)
        values = (plan.loss_per_token, baseline.loss_per_token, plan.accuracy, baseline.accuracy)
        if is_same and not guards.one_decay(plan, baseline) and None not in values:
            told.append((values[0] - values[1], values[2] - values[3], plan.repeat))
    return Ends(*zip(*told, strict=True), len(repeats)) if told else None


def mean_interval(values):
    """The interval of the mean over seeds by Student's t, for the level `LEVEL`.

    Args:
        values: numbers, one for each seed.

    Returns:
        (low, high), or None below two seeds.

    Example:
        >>> low, high = mean_interval([1.0, 3.0])
        >>> round(low, 2), round(high, 2)  # 12.71 standard errors, which are 1, to either side
        (-10.71, 14.71)
    """
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * error
    middle = statistics.fmean(values)
    return middle - reach, middle + reach


def _text(values, form, unit):
    """Mean with its sign and its unit, and in brackets its interval."""

    def signed(value):
        return f"{value:+{form}}".replace("-", "−")

    interval = mean_interval(values)
    text = f"{signed(statistics.fmean(values))} {unit}"
    return f"{text} ({' to '.join(map(signed, interval))})" if interval else text
