"""How good the advice's forecasts are, on what it did not see.

- `continued`: every curve from random weights is cut at a share of its compute, the laws are fitted
  to the beginnings, and the rest of each curve is forecast.
- `unseen`: a curve is left out, and forecast from the other curves of its size.
- `fused`: all runs that one source was fused into with itself at one step are left out, and
  forecast from the laws and from what the other fused runs showed, as the advice does it: not from
  the source's own loss.

Each forecast is an interval that should hold `choice.LEVEL` of the evaluations. Evaluations of one
run go together, so that a share over few runs is a rough one; the number of runs stands beside it.

Example:
    >>> [score.to_dict() for score in backtest(curves, ("S", "M"))]
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from trainers.advice import choice, fusions, plateau
from trainers.advice.curves import Curve, best_rate
from trainers.advice.fitting import fit_laws
from trainers.errors import UserError

SHARES = (0.5, 0.6, 0.7, 0.8)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Evaluations of one run beside what was forecast for them.

    Args:
        name: of the curve.
        losses: (points,) that were observed.
        medians, low, high: (points,) of the forecast.
    """

    name: str
    losses: np.ndarray
    medians: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, curve: Curve, losses: np.ndarray, draws: np.ndarray) -> "Forecast":
        """The forecast that (points, draws) draws make."""
        edges = ((1 - choice.LEVEL) / 2, 0.5, (1 + choice.LEVEL) / 2)
        low, medians, high = np.quantile(draws, edges, axis=1)
        return cls(curve.name, losses, medians, low, high)

    @property
    def errors(self) -> np.ndarray:
        """(points,) relative errors; above 0 where the forecast was too high."""
        return self.medians / self.losses - 1

    @property
    def covered(self) -> np.ndarray:
        """(points,) whether the interval held what was observed."""
        return (self.low <= self.losses) & (self.losses <= self.high)


@dataclasses.dataclass(frozen=True)
class Score:
    """How one kind of forecast did.

    Args:
        kind: "continued", "unseen" or "fused".
        share: of each curve that was seen; 0 where none of it was.
        forecasts: of each run.
        refused: runs for which there was no forecast.
    """

    kind: str
    share: float
    forecasts: tuple[Forecast, ...]
    refused: tuple[str, ...]

    def to_dict(self) -> dict:
        """Numbers of runs and evaluations, errors and coverage; None without a forecast."""
        found = {"kind": self.kind, "share": self.share, "runs": len(self.forecasts)}
        found |= {"refused": len(self.refused), "level": choice.LEVEL}
        each = self.forecasts
        if not each:
            return found | {
                "points": 0,
                **dict.fromkeys(("error", "end_error", "bias", "coverage")),
            }
        errors = np.concatenate([f.errors for f in each])
        return found | {
            "points": len(errors),
            "error": float(np.median(np.abs(errors))),
            "end_error": float(np.median([abs(f.errors[-1]) for f in each])),
            "bias": float(np.median(errors)),
            "coverage": float(np.mean(np.concatenate([f.covered for f in each]))),
        }


def backtest(curves: Sequence[Curve], sizes: Sequence[str], shares=SHARES, seed: int = 0):
    """Scores all kinds of forecasts.

    Args:
        curves: of stages from random weights and of fused ones.
        sizes: from small to big.
        shares: of the curves that `continued` may see.
        seed: of the draws.

    Returns:
        A tuple of `Score`.
    """
    groups = {s: best_rate([c for c in curves if c.size == s and not c.sources]) for s in sizes}
    merged = [c for c in curves if fusions.source_loss(c) is not None and c.size in groups]
    return (
        *(continued(groups, share, seed) for share in shares),
        unseen(groups, seed),
        fused(groups, merged, seed),
    )


def continued(groups, share: float, seed: int = 0) -> Score:
    """Forecasts the rest of every curve from the beginnings of all."""
    begun = {s: [c.until(share * c.costs[-1]) for c in curves] for s, curves in groups.items()}
    whole = [curve for curves in groups.values() for curve in curves]
    forecasts = []
    fits = _fit_what_can_be(begun, seed)
    for curve in whole:
        if curve.size not in fits or curve.name not in fits[curve.size].same:
            continue
        fit = fits[curve.size]
        later = curve.costs > share * curve.costs[-1]
        draws = fit.same[curve.name].loss(curve.costs[later][:, None])
        draws = draws * _noise(fit.noise, draws.shape, seed)
        forecasts.append(Forecast.of(curve, curve.losses[later], draws))
    return _score("continued", share, forecasts, whole)


def unseen(groups, seed: int = 0) -> Score:
    """Forecasts every curve beyond its plateau from the others of its size."""
    whole = [curve for curves in groups.values() for curve in curves if plateau.leaves(curve)]

    def forecast(curve):
        others = {s: [c for c in curves if c is not curve] for s, curves in groups.items()}
        fit = fit_laws(others, seed=seed)[curve.size]
        later = slice(plateau.leaves(curve) + 1, None)
        draws = fit.draws.loss(curve.costs[later][:, None])
        return Forecast.of(curve, curve.losses[later], draws * _noise(fit.noise, draws.shape, seed))

    return _score("unseen", 0.0, _all(forecast, whole), whole)


def fused(groups, curves: Sequence[Curve], seed: int = 0) -> Score:
    """Forecasts self-fusions from the laws and from those of other sources."""

    def forecast(curve):
        fits = fit_laws(groups, seed=seed)
        small = _source_size(curve, groups)
        others = [c for c in curves if not _shares_source(c, curve)]
        effect = fusions.learn(others, fits, seed=seed)
        first = np.full(len(curve.costs), curve.sources[0].cost)
        costs = np.stack([first, curve.costs], axis=1)
        draws = choice.spend((small, curve.size), costs, fits, effect)
        return Forecast.of(curve, curve.losses, draws * _noise(effect.noise, draws.shape, seed))

    return _score("fused", 0.0, _all(forecast, curves), curves)


def _source_size(curve, groups):
    smaller = [
        size for size in groups if size in "SML" and "SML".find(size) < "SML".find(curve.size)
    ]
    if not smaller:
        raise UserError(f"Expected a smaller size than {curve.size}. Received: {list(groups)}.")
    return smaller[-1]


def _shares_source(curve, other):
    one, another = curve.sources[0], other.sources[0]
    return (one.loss, one.cost) == (another.loss, another.cost)


def _fit_what_can_be(groups, seed):
    """Fits of all sizes together, or of those that can be fitted if some cannot."""
    fitted = {}
    for size, curves in groups.items():
        try:
            fit_laws({size: curves}, draws=2, seed=seed)
        except UserError:
            continue
        fitted[size] = curves
    return fit_laws(fitted, seed=seed) if fitted else {}


def _all(forecast: Callable[[Curve], Forecast], curves):
    """Forecasts of the curves for which there is one."""
    found = []
    for curve in curves:
        try:
            found.append(forecast(curve))
        except UserError:
            continue
    return found


def _score(kind, share, forecasts, curves):
    known = {forecast.name for forecast in forecasts}
    refused = tuple(curve.name for curve in curves if curve.name not in known)
    return Score(kind, share, tuple(forecasts), refused)


def _noise(noise, shape, seed):
    return np.exp(noise * np.random.default_rng([seed, 3]).standard_normal(shape))
