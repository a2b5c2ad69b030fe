"""Laws of loss against compute: of each size, and of what fusing does.

Beyond its plateau a run from random weights follows L(C) = E + A·(C − D)^−a. E, A and a belong to
the size; D is the compute that the run has lost on its plateau. A fused model begins at the loss of
its source, and then follows the law of its own size, g times as fast:
L(x) = L_big(L_big⁻¹(L_small) + g·x) after x of compute of its own.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize

from trainers.advice.curves import Curve
from trainers.errors import UserError

DRAWS = 400
FEWEST_POINTS = 4

# Means and standard deviations of what few evaluations cannot tell: the logit of E over the lowest
# loss, log a, and the logs of the loss and of C − D at the plateau's end over loss and C there.
_MEANS, _DEVIATIONS = np.array([(0.5, 1.0), (np.log(0.5), 0.6), (0.0, 0.03), (-0.5, 0.5)]).T
_BOUNDS = _MEANS - 4 * _DEVIATIONS, _MEANS + 4 * _DEVIATIONS

# Standard deviations by which a further run differs, worth three runs: in the logs of where its
# plateau ends, of its level, and of g; the least one of an evaluation.
_LEAVES, _LEVEL, _SPEED, _NOISE = 0.2, 0.01, 0.5, 0.002
_BLOCK = 4  # neighbouring residuals that are drawn together


@dataclasses.dataclass(frozen=True)
class Law:
    """Loss against compute; every field is a number, or (draws,) of them."""

    level: np.ndarray  # loss until the plateau ends
    floor: np.ndarray  # E
    scale: np.ndarray  # C − D where the plateau ends
    exponent: np.ndarray  # a
    leaves: np.ndarray  # C where the plateau ends

    def loss(self, compute) -> np.ndarray:
        """Nats per token after so much compute."""
        ratio = 1 + np.maximum(compute - self.leaves, 0.0) / self.scale
        return self.floor + (self.level - self.floor) * ratio**-self.exponent

    def compute(self, loss) -> np.ndarray:
        """Compute after which the loss is this; infinite where the law never gets there."""
        share = np.clip((loss - self.floor) / (self.level - self.floor), 0.0, 1.0)
        with np.errstate(divide="ignore", over="ignore"):
            return self.leaves + self.scale * (share ** (-1 / self.exponent) - 1)

    def follow(self, start, compute) -> np.ndarray:
        """Loss of a model that begins at a loss, and follows the law for so much compute."""
        # Below the law's floor there is nothing to follow: the model stays where it is.
        return np.minimum(start, self.loss(self.compute(start) + compute))


@dataclasses.dataclass(frozen=True)
class Fit:
    """Law of a size, (draws,) laws of further runs, and what they rest on."""

    law: Law
    draws: Law
    speed: np.ndarray  # (draws,) of g of a further fusion
    noise: float  # relative standard deviation of an evaluation
    observed: float  # largest compute of a curve
    cost_per_step: float
    curves: tuple[str, ...]  # names of their curves
    fused: Mapping[str, float]  # g of each self-fusion, by name


def fit(curves: Sequence[Curve], fused: Sequence[Curve] = (), seed: int = 0) -> Fit:
    """Fits the law of one size to relative errors, robustly, and g of what was fused into it.

    The law's uncertainty is a bootstrap over the residuals, with one Gauss-Newton step for each
    draw. A further run has another end of the plateau and another level.

    Raises:
        UserError: too few evaluations are beyond a plateau.
    """
    pieces = _beyond_plateaus(curves)
    ends = np.array([curve.costs[0] for curve in pieces])
    first, lowest = np.mean([c.losses[0] for c in pieces]), min(c.losses.min() for c in pieces)

    def law(values, leaves):
        floor, exponent, level, scale = values
        floor, level = lowest / (1 + np.exp(-floor)), first * np.exp(level)
        return Law(level, floor, ends.mean() * np.exp(scale), np.exp(exponent), leaves)

    def errors(values):
        return [np.log(law(values, c.costs[0]).loss(c.costs) / c.losses) for c in pieces]

    def residuals(values, noise):
        return np.append(np.concatenate(errors(values)) / noise, (values - _MEANS) / _DEVIATIONS)

    values, noise = _MEANS, 0.01
    for _ in range(3):
        solution = optimize.least_squares(
            residuals, values, bounds=_BOUNDS, loss="soft_l1", f_scale=2.0, args=(noise,)
        )
        values, left = solution.x, np.concatenate(errors(solution.x))
        noise = float(np.sqrt(np.sum(left**2) / max(1, len(left) - len(values)) + _NOISE**2))

    generator = np.random.default_rng(seed)
    blocks = generator.integers(len(left), size=(-(-len(left) // _BLOCK), 1, DRAWS))
    rows = (blocks + np.arange(_BLOCK)[:, None]).reshape(-1, DRAWS)[: len(left)] % len(left)
    drawn = (left / (np.std(left) + 1e-9))[rows], generator.standard_normal((4, DRAWS))
    drawn = values[:, None] + np.linalg.pinv(solution.jac) @ np.concatenate(drawn)
    draws = law(np.clip(drawn.T, *_BOUNDS).T, np.exp(_further(np.log(ends), _LEAVES, generator)))
    level = _further([part.mean() for part in errors(values)], _LEVEL, generator)
    shift = np.exp(level - level.mean() + noise * generator.standard_normal(DRAWS))
    best = law(values, float(np.exp(np.log(ends).mean())))
    speeds = {c.name: _log_speed(c, best) for c in fused if c.size == curves[0].size}
    return Fit(
        best,
        dataclasses.replace(draws, level=draws.level * shift, floor=draws.floor * shift),
        np.exp(_further([0.0, *speeds.values()], _SPEED, generator)),
        noise,
        observed=float(max(curve.costs[-1] for curve in curves)),
        cost_per_step=float(curves[0].costs[-1] / curves[0].steps[-1]),
        curves=tuple(curve.name for curve in pieces),
        fused={name: float(np.exp(log)) for name, log in speeds.items()},
    )


def _further(values, deviation, generator):
    """Draws of a further value beside some."""
    variance = 3 * deviation**2 + np.sum((values - np.mean(values)) ** 2)
    variance *= (1 + 1 / len(values)) / (3 + len(values))
    return np.mean(values) + np.sqrt(variance) * generator.standard_normal(DRAWS)


def _log_speed(curve, law):
    def residuals(log):
        losses = law.follow(curve.source[0], np.exp(log) * curve.costs)
        return np.append(np.log(losses / curve.losses) / 0.01, log / (2 * _SPEED))

    return optimize.least_squares(residuals, [0.0], bounds=(-4, 4), loss="soft_l1").x[0]


def _beyond_plateaus(curves):
    """The parts of the curves beyond their plateaus, of those that show enough."""
    pairs = [(c, plateau_end(c)) for c in curves]
    counts = [0 if end is None else len(c.costs) - 1 - end for c, end in pairs]
    enough = [pair for pair, count in zip(pairs, counts, strict=True) if count >= FEWEST_POINTS]
    if not enough:
        shown = (f"{c.name} {n} of {len(c.costs)}" for c, n in zip(curves, counts, strict=True))
        raise UserError(
            f"curves of each size with {FEWEST_POINTS} evaluations beyond their plateau",
            ", ".join(shown) or "no curve",
            "Train longer, or evaluate more often",
        )
    # Where some left a plateau, one that shows none was not evaluated early enough to tell.
    return [c.part(slice(end, None)) for c, end in [p for p in enough if p[1]] or enough]


def plateau_end(curve: Curve) -> int | None:
    """Index of the last evaluation on the plateau; 0 without one; None if it is never left.

    There the slope over log(compute) becomes twice as steep; that of a power law only gets flatter.
    A curve without such a place has to have fallen by 15 % since its first evaluation.
    """
    logs, losses, errors = np.log(curve.costs), curve.losses, {}
    bends = np.abs(np.diff(losses, 2))  # in which trends cancel
    noise = max(np.median(bends) / 1.65 if len(bends) else 0.0, 1e-3 * losses.min(initial=9.0))
    # The first evaluation still belongs to the fall from random weights.
    for index in range(2, len(losses) - 1):
        line, before, *_ = np.polyfit(logs[1 : index + 1], losses[1 : index + 1], 1, full=True)
        # The slope as it may have been: two noisy evaluations can look flat by chance.
        slope = min(0.0, line[0]) - 3 * noise / (logs[index] - logs[1]) / np.sqrt(index)
        x, y = logs[index:] - logs[index], losses[index:] - losses[index]
        steep = np.polyfit(x[:5], y[:5], 1)[0] <= 2 * slope
        if steep and max(slope * x[:5] - y[:5]) >= 6 * noise:
            errors[index] = sum(before) + sum(np.polyfit(x, y, min(2, len(x) - 1), full=True)[1])
    if errors:
        return min(errors, key=errors.get)
    return 0 if len(losses) > 1 and losses.min() < 0.85 * losses[0] else None
