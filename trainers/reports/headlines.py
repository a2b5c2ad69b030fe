"""Headlines: the ratios of a plan over its seeds, and whether they may be told as one number."""

import dataclasses
import math
import statistics

from trainers.reports import numbers
from trainers.reports.comparisons import Comparison
from trainers.reports.crossings import COSTS
from trainers.reports.ends import LEVEL, Ends, ends, mean_interval

_PERCENT = f"{100 * LEVEL:g} %"

DEFINITION = (
    "A ratio compares two arms with the same seed. Over several seeds there is an interval of the "
    f"mean of its logarithm, of the level {_PERCENT} by Student's t."
)


@dataclasses.dataclass(frozen=True)
class Headline:
    """A plan against the baseline, over all its seeds."""

    plan: str  # name of its last stage in the first repeat
    repeats: tuple[Comparison, ...]
    ends: Ends | None = None  # at equal compute

    def ratios(self, field):
        """The ratios of one of the `COSTS`, of the seeds that have one."""
        values = (getattr(comparison, f"{field}_ratio") for comparison in self.repeats)
        return [value for value in values if value is not None]

    @property
    def struck(self):
        """(stage, guard) of every guard that struck, seed after seed."""
        return tuple((c.plan, guard) for c in self.repeats for guard in c.struck)

    @property
    def stands(self):
        """True where every seed has its ratios."""
        return len(self.ratios(COSTS[0])) == len(self.repeats)

    def to_dict(self):
        """The headline as an element of `results.json`; no numbers unless it stands."""
        clauses = [{"stage": stage, "guard": guard.clause} for stage, guard in self.struck]
        told = {"plan": self.plan, "seeds": len(self.repeats), "guards": clauses}
        told["at_equal_compute"] = self.ends and self.ends.to_dict()
        return told | {field: self._spread(field) if self.stands else None for field in COSTS}

    def _spread(self, field):
        ratios = self.ratios(field)
        mean, deviation = statistics.fmean(ratios), statistics.pstdev(ratios)
        return {"mean": mean, "deviation": deviation, "interval": paired_interval(ratios)}


def headlines(run, comparisons):
    """The `Headline` of each plan of `compare(run)`, in its order."""
    plans = {}
    for comparison in comparisons:
        plans.setdefault(run.stages[comparison.plan].base, []).append(comparison)
    return tuple(
        Headline(plan, tuple(repeats), ends(run, repeats)) for plan, repeats in plans.items()
    )


def paired_interval(ratios):
    """The interval of the mean ratio over seeds, for the level `LEVEL`; None below two seeds.

    Each ratio is of two arms with the same seed, so pairs are compared and not means. The mean of
    the logarithms has Student's t distribution; the interval's middle is the geometric mean.

    Args:
        ratios: numbers, one for each seed; None is returned where one is not positive.

    Returns:
        (low, high).

    Example:
        >>> low, high = paired_interval([0.5, 0.5, 0.5])
        >>> round(low, 3), round(high, 3)
        (0.5, 0.5)
    """
    if len(ratios) < 2 or min(ratios) <= 0:
        return None
    low, high = mean_interval([math.log(ratio) for ratio in ratios])
    return math.exp(low), math.exp(high)


def interval_text(ratios):
    """The interval of `paired_interval` in words; empty where there is none.

    Example:
        >>> interval_text([0.5, 0.5])
        '95 % interval 0.50 to 0.50'
    """
    ends = paired_interval(ratios)
    return f"{_PERCENT} interval {' to '.join(map(numbers.ratio, ends))}" if ends else ""
