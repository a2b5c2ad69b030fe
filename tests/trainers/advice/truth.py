"""Curves from laws that are known, written down here once more. For tests only."""

import dataclasses

import numpy as np

from trainers.advice.curves import Curve

# A plateau at 3.2 nats, then a power law; costs in units of a small model's step.
SMALL = {"level": 3.2, "floor": 1.9, "scale": 900.0, "exponent": 0.5, "leaves": 1500.0}
BIG = {"level": 3.2, "floor": 1.7, "scale": 3600.0, "exponent": 0.5, "leaves": 6600.0}
PLATEAU_SLOPE = 0.18
STEP = {"S": 1.0, "M": 4.0, "L": 16.0}


def loss(law, cost):
    """Nats per token after so much compute."""
    cost = np.asarray(cost, float)
    after = (
        law["floor"]
        + (law["level"] - law["floor"])
        / (1 + np.maximum(cost - law["leaves"], 0) / law["scale"]) ** law["exponent"]
    )
    return after + PLATEAU_SLOPE * np.log(np.maximum(law["leaves"] / np.maximum(cost, 1), 1))


def fused_loss(small, big, first, cost, speed=1.0):
    """Loss of a model fused after `first` of compute, `cost` later; found by bisection."""
    start = loss(small, first)
    low, high = np.ones_like(start), np.full_like(start, 1e15)
    for _ in range(200):
        middle = np.sqrt(low * high)
        above = loss(big, middle) > start
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.minimum(start, loss(big, high + speed * np.asarray(cost, float)))


def best_fusion(small, big, budget, points=2000):
    """Cost of the first stage at which the fused model ends lowest, and that loss."""
    firsts = np.linspace(small["leaves"], 0.98 * budget, points)
    ends = fused_loss(small, big, firsts, budget - firsts)
    return firsts[int(np.argmin(ends))], ends.min()


def curve(law, size, until, noise=0.003, seed=0, name=None, points=25, leaves=None):
    """Evaluations of a model from random weights, up to a cost."""
    law = law if leaves is None else {**law, "leaves": leaves}
    costs = np.linspace(until / points, until, points)
    return _curve(name or f"w/{size}_{seed}", size, costs, loss(law, costs), noise, seed)


def fused(small, big, first, until, noise=0.003, seed=0, speed=1.0, points=14):
    """Evaluations of a model of size M that was fused after `first` of compute."""
    costs = np.linspace(until / points, until, points)
    losses = fused_loss(small, big, first, costs, speed)
    made = _curve(f"w/fused_{seed}_{first}", "M", costs, losses, noise, seed)
    source = float(loss(small, first)), float(first)
    return dataclasses.replace(made, sources=("small_0",), source=source)


def _curve(name, size, costs, losses, noise, seed):
    ripple = np.random.default_rng([seed, len(costs), ord(size)]).standard_normal(len(costs))
    return Curve(name, size, costs, losses * np.exp(noise * ripple), np.round(costs / STEP[size]))


def scratch_curves(small_until=6000.0, big_until=24000.0, **how):
    """A small and a big model's curves."""
    return curve(SMALL, "S", small_until, **how), curve(BIG, "M", big_until, **how)
