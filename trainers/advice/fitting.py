"""Fits the laws of all sizes together.

Few points beyond a plateau cannot tell a law's floor from its exponent, so that the fit is the mode
of a posterior. Its priors (`PRIORS`) are wide for each size, and tie the sizes to each other
(`TIES`) by what is known of scaling laws: the part of the loss that training removes falls alike
in steps at every size, and the floor goes with a small power of the number of parameters (Kaplan et
al. 2020: 0.076; the floors of Hoffmann et al. 2022 give about 0.09 at 10⁸ parameters). What neither
data nor priors say widens the intervals.

The mode is found by `scipy.optimize.least_squares` on relative errors, soft-L1 against outliers.
The uncertainty are draws from the Gaussian with the Jacobian's covariance, where evaluations count
less than independent ones of a true law would (`TEMPER`, and more if neighbours' errors go
together). To each draw comes what a further run adds: another C₀ and another level, as much as
repeats differ, or as by default where there are none.

Example:
    >>> fits = fit_laws({"S": small_curves, "M": big_curves})
    >>> np.quantile(fits["M"].draws.loss(1e15), (0.05, 0.5, 0.95))
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize

from trainers.advice import plateau
from trainers.advice.curves import Curve
from trainers.advice.laws import Fit, Law, predict
from trainers.errors import UserError

DRAWS = 400
FEWEST_POINTS = 4

# Mean and standard deviation of: log P over the mean loss of the first points fitted; the logit of
# E over the lowest loss seen; log τ over the span of compute seen beyond the plateau; log a.
PRIORS = ((0.0, 0.03), (0.5, 1.0), (0.0, 1.5), (np.log(0.5), 0.6))

# Standard deviations of what a size differs by from the next one in: log E, beyond a power
# `FLOOR_POWER` of the parameters; log τ in steps; log a.
TIES = (0.05, 0.7, 0.3)
FLOOR_POWER = 0.08

TEMPER = 3.0
"""An evaluation counts as one in so many, because the law is only nearly right."""

# Standard deviations between repeats, where nothing is known: of log C₀, of the log of the level.
_LEAVES, _LEVEL = 0.2, 0.01
_OF_PRIOR = 3.0  # as many runs is the default worth
_LEAST_NOISE = 0.002
_SHAPE = 4  # parameters of a size, as in `PRIORS`; after them log C₀ of each curve


def fit_laws(groups: Mapping[str, Sequence[Curve]], draws: int = DRAWS, seed: int = 0):
    """Fits the law of each size.

    Args:
        groups: size letter, from small to big, to curves from random weights with equal learning
            rates.
        draws: how many draws stand for the uncertainty.
        seed: of the draws.

    Returns:
        Size letter to `Fit`.

    Raises:
        UserError: the curves of a size have too few evaluations beyond its plateau.
    """
    sizes = [_Size(name, curves) for name, curves in groups.items()]
    values, noises, covariance = _solve(sizes)
    generator = np.random.default_rng([seed, 0])
    drawn = generator.multivariate_normal(values, covariance, draws, method="eigh").T
    low, high = (np.concatenate(side)[:, None] for side in _bounds(sizes))
    drawn = np.clip(drawn, low, high)
    fits = {}
    for size, part, noise in zip(sizes, _parts(sizes), noises, strict=True):
        fits[size.name] = size.fit(values[part], drawn[part], noise, generator)
    return fits


class _Size:
    """The parts of one size's curves that begin with the last point on a plateau, and its law."""

    def __init__(self, name: str, curves: Sequence[Curve]):
        self.name, self.curves = name, curves
        self.pieces = _beyond_plateaus(name, curves)
        self.has_plateau = any(piece.index > 0 for piece in self.pieces)
        self.starts = np.array([piece.costs[0] for piece in self.pieces])
        self.lowest = min(float(piece.losses.min()) for piece in self.pieces)
        self.first = float(np.mean([piece.losses[0] for piece in self.pieces]))
        self.span = max(float(piece.costs[-1] - piece.costs[0]) for piece in self.pieces)
        self.cost_per_step = self.pieces[0].curve.cost_per_step
        self.parameters = self.pieces[0].curve.parameters
        self.parameter_count = _SHAPE + len(self.pieces) * self.has_plateau

    def guess(self):
        """First values of the parameters."""
        leaves = np.log(self.starts) if self.has_plateau else ()
        return np.array([*(mean for mean, _ in PRIORS), *leaves])

    def bounds(self):
        """The least and the largest values of the parameters: a curve turns near where it did."""
        low = [mean - 6 * deviation for mean, deviation in PRIORS]
        high = [mean + 6 * deviation for mean, deviation in PRIORS]
        for piece in self.pieces if self.has_plateau else ():
            before, here, after = piece.curve.costs[piece.index - 1 : piece.index + 2]
            low.append(np.log(0.01 * here + 0.99 * before))
            high.append(np.log(0.01 * here + 0.99 * after))
        return low, high

    def shape(self, values):
        """P, E, τ and a."""
        level, floor, scale, exponent = values[:_SHAPE]
        floor = self.lowest / (1 + np.exp(-floor))
        return self.first * np.exp(level), floor, self.span * np.exp(scale), np.exp(exponent)

    def slope(self, shape):
        """Slope before C₀: that of the plateaus, or without one that with which learning begins."""
        level, floor, scale, exponent = shape
        if self.has_plateau:
            flattest = max(plateau.slope(p.curve, p.index) for p in self.pieces)
            return flattest * np.ones_like(level)
        return (level - floor) * exponent * self.starts[0] / scale

    def leaves(self, values):
        """C₀ of each curve."""
        if self.has_plateau:
            return np.exp(values[_SHAPE:])
        return self.starts if values.ndim == 1 else self.starts[:, None] * np.ones(values.shape[1])

    def errors(self, values):
        """Relative errors of each curve."""
        shape = self.shape(values)
        return [
            np.log(Law(*shape, start, 0.0).loss(piece.costs) / piece.losses)
            for piece, start in zip(self.pieces, self.leaves(values), strict=True)
        ]

    def fit(self, values, drawn, noise, generator):
        """The `Fit` of the values of this size, and of draws of them."""
        draws = drawn.shape[1]
        mean, spread = predict(np.log(self.leaves(values)), _LEAVES, _OF_PRIOR)
        levels = [float(np.mean(errors)) for errors in self.errors(values)]
        shift = np.exp(predict(levels, _LEVEL, _OF_PRIOR)[1] * generator.standard_normal(draws))
        further = generator.standard_normal(draws) * spread * self.has_plateau
        best, shape = self.shape(values), self.shape(drawn)
        level, floor, scale, exponent = shape
        slope = self.slope(shape)
        names = [piece.curve.name for piece in self.pieces]
        return Fit(
            law=Law(*best, np.exp(mean), self.slope(best)),
            draws=Law(level * shift, floor * shift, scale, exponent, np.exp(mean + further), slope),
            same={
                name: Law(level * shift, floor * shift, scale, exponent, start, slope)
                for name, start in zip(names, self.leaves(drawn), strict=True)
            },
            noise=noise,
            observed=max(float(curve.costs[-1]) for curve in self.curves),
            cost_per_step=self.cost_per_step,
            points=sum(len(piece.costs) for piece in self.pieces),
            has_plateau=self.has_plateau,
        )


@dataclasses.dataclass(frozen=True)
class _Piece:
    """The part of a curve that begins with the last point on its plateau."""

    curve: Curve
    index: int

    @property
    def costs(self):
        return self.curve.costs[self.index :]

    @property
    def losses(self):
        return self.curve.losses[self.index :]


def _beyond_plateaus(name, curves):
    found = [(curve, plateau.leaves(curve)) for curve in curves]
    counts = [0 if i is None else len(curve.costs) - 1 - i for curve, i in found]
    pieces = [_Piece(*piece) for piece, n in zip(found, counts, strict=True) if n >= FEWEST_POINTS]
    if not pieces:
        each = (
            f"{curve.name} {count} of {len(curve.costs)}"
            for curve, count in zip(curves, counts, strict=True)
        )
        raise UserError(
            f"Expected a curve of size {name} with at least {FEWEST_POINTS} evaluations beyond "
            f"its plateau. Received: {', '.join(each)}. Train it longer, or evaluate more often."
        )
    # Where some left a plateau, one that shows none was not evaluated early enough to tell.
    return [piece for piece in pieces if piece.index > 0] or pieces


def _parts(sizes):
    """The slice of all parameters that belongs to each size."""
    ends = np.cumsum([size.parameter_count for size in sizes])
    return [slice(end - size.parameter_count, end) for size, end in zip(sizes, ends, strict=True)]


def _bounds(sizes):
    return zip(*(size.bounds() for size in sizes), strict=True)


def _solve(sizes):
    """The parameters, each size's noise of an evaluation, and the parameters' covariance."""
    values = np.concatenate([size.guess() for size in sizes])
    low, high = (np.concatenate(side) for side in _bounds(sizes))
    parts, noises = _parts(sizes), [0.01] * len(sizes)
    for _ in range(3):
        found = optimize.least_squares(
            _residuals,
            values,
            bounds=(low, high),
            loss="soft_l1",
            f_scale=2.0,
            args=(sizes, noises),
        )
        values = found.x
        noises = [_noise(size, values[part]) for size, part in zip(sizes, parts, strict=True)]
    jacobian = optimize.approx_fprime(values, _residuals, 1e-6, sizes, noises)
    weights = [
        np.full(sum(len(e) for e in errors), 1 / max(TEMPER, _together(errors)))
        for errors in (size.errors(values[p]) for size, p in zip(sizes, parts, strict=True))
    ]
    weights = np.concatenate([*weights, np.ones(len(jacobian) - sum(map(len, weights)))])
    information = (jacobian * weights[:, None]).T @ jacobian
    return values, noises, np.linalg.inv(information + 1e-9 * np.eye(len(values)))


def _residuals(values, sizes, noises):
    """Errors over their noise, then what the priors and the ties between sizes say."""
    parts = _parts(sizes)
    errors = [
        error / noise
        for size, part, noise in zip(sizes, parts, noises, strict=True)
        for error in size.errors(values[part])
    ]
    priors = [
        (value - mean) / deviation
        for part in parts
        for value, (mean, deviation) in zip(values[part][:_SHAPE], PRIORS, strict=True)
    ]
    return np.concatenate([*errors, priors, _ties(values, sizes, parts)])


def _ties(values, sizes, parts):
    shapes = [size.shape(values[part]) for size, part in zip(sizes, parts, strict=True)]
    found = []
    for (small, of_small), (big, of_big) in zip(
        list(zip(sizes, shapes, strict=True))[:-1],
        list(zip(sizes, shapes, strict=True))[1:],
        strict=True,
    ):
        expected = FLOOR_POWER * np.log(big.parameters / small.parameters)
        steps = (of_small[2] / small.cost_per_step) / (of_big[2] / big.cost_per_step)
        floor, scale, exponent = TIES
        found += [
            (np.log(of_small[1] / of_big[1]) - expected) / floor,
            np.log(steps) / scale,
            np.log(of_small[3] / of_big[3]) / exponent,
        ]
    return found


def _noise(size, values):
    errors = np.concatenate(size.errors(values))
    freedom = max(1, len(errors) - len(values))
    return max(_LEAST_NOISE, float(np.sqrt(np.sum(errors**2) / freedom)))


def _together(errors):
    """How many evaluations are worth one independent one, by the correlation of neighbours."""
    errors = [e - e.mean() for e in errors]
    total = sum(float(np.sum(e**2)) for e in errors)
    lagged = sum(float(np.sum(e[1:] * e[:-1])) for e in errors)
    correlation = float(np.clip(lagged / max(total, 1e-30), 0.0, 0.7))
    return (1 + correlation) / (1 - correlation)
