"""The law of a size: loss against compute of models that are trained from random weights.

    before    L(C) = P + b·log(C₀ / C)                          for C < C₀
    learning  L(C) = E + (P − E)·(1 + (C − C₀) / τ)^−a          from C₀ on

C₀ is where a run leaves its plateau (trainers/advice/plateau.py), each run at its own, and b the
slope before; P, E, τ and a belong to the size. Without a plateau C₀ is the first evaluation, τ = C₀
makes the second line the usual E + A·C^−a, and the first line goes on with its slope.
trainers/advice/fitting.py fits it.

Example:
    >>> law = Law(level=3.2, floor=1.5, scale=1e13, exponent=0.5, leaves=2e13, slope=0.2)
    >>> float(law.compute(law.loss(8e13)))
    8e+13
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Law:
    """Loss against compute; every field a number, or (draws,) of them.

    Args:
        level: P, nats a token where learning begins.
        floor: E, nats a token in the limit.
        scale: τ, compute.
        exponent: a.
        leaves: C₀, compute.
        slope: b, nats for each e-fold of compute before that.
    """

    level: np.ndarray
    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    leaves: np.ndarray
    slope: np.ndarray

    def loss(self, compute) -> np.ndarray:
        """Nats a token after so much compute."""
        beyond = np.maximum(compute - self.leaves, 0.0) / self.scale
        learning = self.floor + (self.level - self.floor) * (1 + beyond) ** -self.exponent
        before = np.log(self.leaves / np.clip(compute, 1e-30 * self.leaves, self.leaves))
        return learning + self.slope * before

    def compute(self, loss) -> np.ndarray:
        """Compute after which the loss is this; infinite where the law never gets there."""
        above = np.maximum(loss - self.level, 0.0)
        before = self.leaves * np.exp(-above / np.maximum(self.slope, 1e-9))
        share = np.clip((loss - self.floor) / (self.level - self.floor), 0.0, 1.0)
        with np.errstate(divide="ignore", over="ignore"):
            ratio = share ** (-1 / self.exponent)
        return np.where(above > 0, before, self.leaves + self.scale * (ratio - 1))


@dataclasses.dataclass(frozen=True)
class Fit:
    """What is known of a size.

    Args:
        law: the most likely one.
        draws: laws of further runs, (draws,) each.
        same: laws of the runs that were fitted, by the curves' names, (draws,) each.
        noise: relative standard deviation of an evaluation about its run's law.
        observed: largest compute of its curves.
        cost_per_step: compute of a step.
        points: evaluations that the law was fitted to.
        has_plateau: whether the curves left one.
    """

    law: Law
    draws: Law
    same: dict[str, Law]
    noise: float
    observed: float
    cost_per_step: float
    points: int
    has_plateau: bool

    def to_dict(self) -> dict:
        """The fit as JSON holds it: the most likely law and what it rests on."""
        law = {name: float(value) for name, value in dataclasses.asdict(self.law).items()}
        kept = ("noise", "observed", "cost_per_step", "points", "has_plateau")
        facts = {name: getattr(self, name) for name in kept}
        return {"law": law, "curves": list(self.same), **facts}


def predict(values, prior: float, weight: float) -> tuple[float, float]:
    """Mean of values, and the standard deviation of a further one about it.

    Their variance is taken together with `weight` values of the variance `prior`².
    """
    values = np.asarray(values, float)
    mean = float(values.mean())
    variance = weight * prior**2 + float(np.sum((values - mean) ** 2))
    variance /= weight + len(values) - 1
    return mean, float(np.sqrt(variance * (1 + 1 / len(values))))
