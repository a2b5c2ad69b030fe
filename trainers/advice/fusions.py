"""What fusing does to a curve: a model of it, learned from self-fusions where there are any.

A model that is fused begins near the loss of what it was fused from, and then follows the law of
its own size from the compute at which that law has this loss:

    L(x) = L_B(L_B⁻¹(L_S·e^δ) + g·x)

after x of compute of its own. δ is what noise costs at the start, g how fast it learns for its
compute: 1 as if it had been trained from random weights until there, below 1 where the small
model's weights hold it back. Both are measured on every self-fusion, as that is what is advised
(several models make an ensemble, which begins below their own loss and costs more): δ before its
first step, g by least squares over its curve. What a further one will have is drawn about their
mean; their variance, and with few runs also their mean, are taken together with a default (δ:
0 ± 0.01, log g: 0 ± 0.5, worth one run for the mean and three for the variance).

Example:
    >>> effect = learn([curve for curve in curves if curve.sources], fits)
    >>> effect.speed_draws.mean()
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize

from trainers.advice.curves import Curve
from trainers.advice.fitting import DRAWS
from trainers.advice.laws import Fit, Law

_PENALTY, _SPEED = 0.01, 0.5
_OF_MEAN, _OF_VARIANCE = 1.0, 3.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one fused run showed.

    Args:
        name: of its curve.
        penalty: δ; None where it was not evaluated before its first step.
        log_speed: log g.
        noise: relative root mean square error of its evaluations about L(x).
    """

    name: str
    penalty: float | None
    log_speed: float
    noise: float


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a further fusion will do.

    Args:
        penalty: (draws,) of δ.
        log_speed: (draws,) of log g.
        noise: relative standard deviation of an evaluation about L(x).
        measured: the runs that it was learned from; empty if none.
    """

    penalty: np.ndarray
    log_speed: np.ndarray
    noise: float
    measured: tuple[Measured, ...]


def learn(curves: Sequence[Curve], fits: Mapping[str, Fit], draws: int = DRAWS, seed: int = 0):
    """Learns from fused runs what fusing does.

    Args:
        curves: of fused stages; those of other sizes than `fits` has, of several sources, or of
            one whose loss is not known, are left out.
        fits: size letter to the fit of models from random weights.
        draws: number of draws.
        seed: of the draws.

    Returns:
        An `Effect`.
    """
    measured = tuple(
        measure(curve, fits[curve.size].law)
        for curve in curves
        if curve.size in fits and source_loss(curve) is not None and len(curve.costs) >= 3
    )
    generator = np.random.default_rng([seed, 1])
    penalties = [run.penalty for run in measured if run.penalty is not None]
    noises = [run.noise for run in measured]
    return Effect(
        _draw(penalties, _PENALTY, draws, generator),
        _draw([run.log_speed for run in measured], _SPEED, draws, generator),
        float(np.median(noises)) if noises else max(fit.noise for fit in fits.values()),
        measured,
    )


def source_loss(curve: Curve) -> float | None:
    """Loss of what a stage was fused with itself from; None for others, or if it is not known."""
    return curve.sources[0].loss if len(curve.sources) == 1 else None


def measure(curve: Curve, law: Law) -> Measured:
    """Measures δ and log g on one fused run.

    Args:
        curve: of the fused stage.
        law: of its size.
    """
    before = source_loss(curve)
    penalty = None if curve.start is None else float(np.log(curve.start / before))
    start = before if curve.start is None else curve.start

    def errors(log_speed):
        return np.log(follow(law, start, np.exp(log_speed[0]), curve.costs) / curve.losses)

    def residuals(log_speed):
        return np.append(errors(log_speed) / 0.01, log_speed / (2 * _SPEED))

    found = optimize.least_squares(residuals, [0.0], bounds=(-4, 4), loss="soft_l1")
    noise = float(np.sqrt(np.mean(errors(found.x) ** 2)))
    return Measured(curve.name, penalty, float(found.x[0]), noise)


def follow(law: Law, start, speed, cost) -> np.ndarray:
    """Loss of a model that begins at a loss and then follows a law.

    Args:
        law: of the model's size.
        start: nats a token at its beginning.
        speed: g.
        cost: compute of its own.
    """
    # Below the law's floor there is nothing to follow: the model stays where it is.
    return np.minimum(start, law.loss(law.compute(start) + speed * cost))


def _draw(values, prior, draws, generator):
    """Draws of a further value: normal about the mean, all with a default of `prior`."""
    values = np.asarray(values, float)
    count = len(values)
    mean = values.sum() / (_OF_MEAN + count)
    squares = np.sum((values - mean) ** 2) + _OF_MEAN * mean**2
    variance = (_OF_VARIANCE * prior**2 + squares) / (_OF_VARIANCE + count)
    deviation = np.sqrt(variance * (1 + 1 / (_OF_MEAN + count)))
    return mean + deviation * generator.standard_normal(draws)
