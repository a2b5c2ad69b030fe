"""What to train with a budget: the big model alone, or smaller ones that are fused into it.

A path is a row of sizes, such as S, L or S, M, L: its first model is trained from random weights,
each further one starts from the one before by fusion with itself, all together for the budget. The
loss at its end follows from the laws of the sizes (laws.py) and from what fusing does (fusions.py),
for each draw of what is not known. Of all paths and of a grid of shares for their stages, that of
the least median is recommended; the first stage is never shorter than its model needs to leave its
plateau.

Shares of the budget, not computes, make the grid: each path at each share can only gain by a larger
budget, so that the least of them does too.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from trainers.advice import fusions
from trainers.advice.fusions import Effect
from trainers.advice.laws import Fit

LEVEL = 0.9
"""Share of the draws that an interval holds."""

FUSE, PERHAPS, SCRATCH = "fuse", "perhaps", "scratch"
SURE = 0.9

WORTH = 0.002
"""Smallest gain, as a share of the loss, for which fusing counts as better."""

FAR = 3.0
"""Beyond so many times the compute observed nothing is called sure."""

FURTHEST = 1000.0

# Shares of the budget that a stage before the last may take.
_FINE = np.unique(np.round(np.append(np.geomspace(1e-3, 0.9, 60), np.linspace(0.02, 0.98, 49)), 5))
_COARSE = np.unique(
    np.round(np.append(np.geomspace(2e-3, 0.9, 18), np.linspace(0.05, 0.95, 19)), 5)
)

# Budgets beside the given one at which is looked whether fusing pays: as many times that.
_OTHERS = np.geomspace(1 / 64, 64, 25)


@dataclasses.dataclass(frozen=True)
class Interval:
    """Median of draws, and what holds `LEVEL` of them."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, draws: np.ndarray) -> "Interval":
        """The interval of (draws,) values."""
        return cls(*(float(q) for q in np.quantile(draws, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))))


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One path with one division of the budget.

    Args:
        sizes: of its stages.
        costs: compute of each stage.
        steps: optimizer steps of each stage.
        loss: nats a token at its end.
        gain: by how much that is below the loss of training from scratch.
        chance: probability that it is below.
    """

    sizes: tuple[str, ...]
    costs: tuple[float, ...]
    steps: tuple[int, ...]
    loss: Interval
    gain: Interval
    chance: float


@dataclasses.dataclass(frozen=True)
class Advice:
    """What is recommended for a budget.

    Args:
        budget: compute.
        unit: "flops" or "device_seconds".
        verdict: "fuse"; "perhaps", where it is better by the median, but not surely or too far
            from what was observed; "scratch" where it is not worth it.
        scratch: loss of the big model trained with all of the budget.
        best: the best path that fuses; None where the budget lets no small model learn first.
        first_cost: compute of its first stage, as each draw would choose it.
        line: candidates of that path by the cost of their first stage (Figure 6).
        within: the best of them whose first stage is no longer than was observed; None if none is.
        pays: smallest and largest of the budgets looked at where fusing is better by the median,
            without a gap around the given one or, if it does not pay there, nearest to it.
        looked_at: smallest and largest of those budgets.
        beyond: size letter to the largest compute that its law is asked for, over what was
            observed of it; `FURTHEST` stands for all that is more.
    """

    budget: float
    unit: str
    verdict: str
    scratch: Interval
    best: Candidate | None
    first_cost: Interval | None
    line: tuple[Candidate, ...]
    within: Candidate | None
    pays: tuple[float, float] | None
    looked_at: tuple[float, float]
    beyond: Mapping[str, float]

    def to_dict(self) -> dict:
        """The advice as JSON holds it."""
        return dataclasses.asdict(self)


def advise(
    budget: float, unit: str, sizes: Sequence[str], fits: Mapping[str, Fit], effect: Effect
) -> Advice:
    """Chooses how to spend a budget on a model of the last size.

    Args:
        budget: compute.
        unit: of the budget and of the curves: "flops" or "device_seconds".
        sizes: from small to big; the last one is wanted.
        fits: size letter to its fit.
        effect: what fusing does.
    """
    scratch = fits[sizes[-1]].draws.loss(budget)
    noise = _noise(effect, len(scratch))
    alone = Interval.of(scratch * np.exp(fits[sizes[-1]].noise * noise))
    pays, looked_at = _pays(budget, sizes, fits, effect)
    beyond = {sizes[-1]: min(FURTHEST, budget / fits[sizes[-1]].observed)}
    found = [_Options(path, budget, fits, effect) for path in _paths(sizes)]
    found = [options for options in found if len(options.shares)]
    if not found:
        return Advice(budget, unit, SCRATCH, alone, None, None, (), None, pays, looked_at, beyond)
    options = min(found, key=lambda options: options.medians.min())
    line = options.line(scratch, noise)
    best = options.candidate(int(options.medians.argmin()), scratch, noise)
    each = options.shares[options.losses.argmin(axis=0), 0] * budget
    beyond |= options.beyond(best.costs)
    seen = [c for c in line if c.costs[0] <= fits[best.sizes[0]].observed]
    return Advice(
        budget=budget,
        unit=unit,
        verdict=_verdict(best, alone, beyond),
        scratch=alone,
        best=best,
        first_cost=Interval.of(each),
        line=line,
        within=min(seen, key=lambda candidate: candidate.loss.median, default=None),
        pays=pays,
        looked_at=looked_at,
        beyond=beyond,
    )


def _noise(effect, draws):
    return np.random.default_rng([len(effect.measured), 2]).standard_normal(draws)


def _verdict(best, scratch, beyond):
    if best.gain.median <= WORTH * scratch.median or best.chance <= 0.5:
        return SCRATCH
    sure = best.chance >= SURE and max(beyond.values()) <= FAR
    return FUSE if sure else PERHAPS


def _paths(sizes):
    """All rows of two or more sizes that end with the last."""
    smaller = sizes[:-1]
    rows = (
        row
        for count in range(1, len(smaller) + 1)
        for row in itertools.combinations(smaller, count)
    )
    return [(*row, sizes[-1]) for row in rows]


class _Options:
    """All divisions of a budget over one path, and the losses that they lead to.

    Args:
        shares: (options, stages) of the budget.
        losses: (options, draws) at the end.
        medians: (options,) of them.
    """

    def __init__(self, sizes, budget, fits, effect):
        self.sizes, self.budget, self.fits, self.effect = sizes, budget, fits, effect
        self.shares = _shares(len(sizes), fits[sizes[0]].law.leaves / budget)
        self.losses = spend(sizes, self.shares * budget, fits, effect)
        self.medians = np.median(self.losses, axis=1)

    def candidate(self, index, scratch, noise):
        costs = self.shares[index] * self.budget
        losses = self.losses[index]
        return Candidate(
            self.sizes,
            tuple(float(cost) for cost in costs),
            tuple(
                round(cost / self.fits[size].cost_per_step)
                for cost, size in zip(costs, self.sizes, strict=True)
            ),
            Interval.of(losses * np.exp(self.effect.noise * noise)),
            Interval.of(scratch - losses),
            float(np.mean(losses < scratch)),
        )

    def line(self, scratch, noise):
        """For each share of the first stage the best division of the rest."""
        firsts = np.unique(self.shares[:, 0])
        rows = (np.flatnonzero(self.shares[:, 0] == first) for first in firsts)
        best = [int(row[self.medians[row].argmin()]) for row in rows]
        return tuple(self.candidate(index, scratch, noise) for index in best)

    def beyond(self, costs):
        """Compute that each size's law is asked for, over what was observed of it."""
        asked = {self.sizes[0]: costs[0]}
        loss = self.fits[self.sizes[0]].law.loss(costs[0])
        speed = float(np.exp(np.median(self.effect.log_speed)))
        for size, cost in zip(self.sizes[1:], costs[1:], strict=True):
            law = self.fits[size].law
            asked[size] = max(law.compute(loss) + speed * cost, self._scratch(size))
            loss = fusions.follow(law, loss, speed, cost)
        return {
            size: min(FURTHEST, float(cost) / self.fits[size].observed)
            for size, cost in asked.items()
        }

    def _scratch(self, size):
        return self.budget if size == self.sizes[-1] else 0.0


def spend(
    sizes: Sequence[str], costs: np.ndarray, fits: Mapping[str, Fit], effect: Effect
) -> np.ndarray:
    """Losses at the end of a path.

    Args:
        sizes: of its stages.
        costs: (options, stages) compute.
        fits: size letter to its fit.
        effect: what fusing does.

    Returns:
        (options, draws) nats a token.
    """
    loss = fits[sizes[0]].draws.loss(costs[:, :1])
    for stage, size in enumerate(sizes[1:], start=1):
        start = loss * np.exp(effect.penalty)
        speed = np.exp(effect.log_speed)
        loss = fusions.follow(fits[size].draws, start, speed, costs[:, stage : stage + 1])
    return loss


def _shares(stages, least):
    """(options, stages) divisions in which the first stage has at least a share of `least`."""
    grid = _FINE if stages == 2 else _COARSE
    rows = [
        (*row, 1 - sum(row))
        for row in itertools.product(grid, repeat=stages - 1)
        if row[0] >= least and sum(row) < 0.995
    ]
    return np.array(rows, float).reshape(-1, stages)


def _pays(budget, sizes, fits, effect):
    """The run of budgets nearest to the given one at which fusing is better by the median."""
    budgets = budget * _OTHERS
    better = [_is_better(other, sizes, fits, effect) for other in budgets]
    looked_at = (float(budgets[0]), float(budgets[-1]))
    if not any(better):
        return None, looked_at
    middle = len(budgets) // 2
    near = min(np.flatnonzero(better), key=lambda index: abs(index - middle))
    first = last = int(near)
    while first > 0 and better[first - 1]:
        first -= 1
    while last < len(budgets) - 1 and better[last + 1]:
        last += 1
    return (float(budgets[first]), float(budgets[last])), looked_at


def _is_better(budget, sizes, fits, effect):
    scratch = fits[sizes[-1]].draws.loss(budget)
    options = (_Options(path, budget, fits, effect) for path in _paths(sizes))
    return any(
        np.median(scratch - o.losses[o.medians.argmin()]) > WORTH * np.median(scratch)
        for o in options
        if len(o.shares)
    )
