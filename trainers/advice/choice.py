"""Chooses how to spend a budget: on the big model alone, or on a small one that is fused into it.

A small model is trained from random weights, for no less than its plateau, and fused with itself
into the big one, which is trained with the rest. Of all smaller sizes and a grid of shares of the
budget, that of the least median loss is recommended.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from trainers.advice.laws import Fit, fit, plateau_end
from trainers.errors import UserError

LEVEL = 0.9  # share of the draws in an interval; a gain of this probability is sure
WORTH = 0.002  # smallest gain, as a share of the loss, for which fusing counts as better
FAR = 3.0  # beyond so many times the compute observed nothing is sure
FUSE, PERHAPS, SCRATCH = "fuse", "perhaps", "scratch"

_SHARES = np.unique(np.round([*np.geomspace(1e-3, 0.9, 60), *np.linspace(0.02, 0.98, 49)], 5))


def interval(draws: np.ndarray) -> dict[str, float | list]:
    """Returns "low", "median" and "high" of (…, draws) values; `LEVEL` of them are between."""
    edges = np.quantile(draws, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2), axis=-1)
    return dict(zip(("low", "median", "high"), edges.tolist(), strict=True))


def advise(budget: float, unit: str, fits: Mapping[str, Fit]) -> dict:
    """Chooses how to spend a budget, in the unit of the curves, on a model of the last size.

    Returns:
        As JSON holds it: the verdict; the loss from random weights ("scratch"); the best two
        stages, if a small model leaves its plateau, and those "within" what was observed of it; the
        cost of the first stage as each draw would choose it; how far "beyond" what was observed.
    """
    *smaller, big = fits
    costs = budget * _SHARES
    options = [(size, cost) for size in smaller for cost in costs[costs >= fits[size].law.leaves]]
    last, beyond = fits[big], {big: budget / fits[big].observed}
    scratch = last.draws.loss(budget)
    advice = {"budget": budget, "unit": unit, "verdict": SCRATCH, "scratch": interval(scratch)}
    advice |= {"best": None, "within": None, "first_cost": None, "beyond": beyond}
    if not options:
        return advice

    firsts = np.array([cost for _, cost in options])
    starts = np.array([fits[size].draws.loss(cost) for size, cost in options])
    losses = last.draws.follow(starts, last.speed * (budget - firsts)[:, None])
    medians = np.median(losses, axis=1)

    def candidate(allowed):
        if not any(allowed):
            return None
        index = int(np.where(allowed, medians, np.inf).argmin())
        costs = {options[index][0]: float(firsts[index]), big: float(budget - firsts[index])}
        gain = scratch - losses[index]
        return {
            "sizes": list(costs),
            "costs": list(costs.values()),
            "steps": [round(cost / fits[size].cost_per_step) for size, cost in costs.items()],
            "loss": interval(losses[index]),
            "gain": interval(gain),
            "chance": float(np.mean(gain > 0)),
        }

    advice["best"] = best = candidate(firsts > 0)
    advice["within"] = candidate([cost <= fits[size].observed for size, cost in options])
    advice["first_cost"] = interval(firsts[losses.argmin(axis=0)])
    asked = {best["sizes"][0]: best["costs"][0]}
    asked[big] = max(budget, last.law.compute(best["loss"]["median"]))
    beyond |= {size: min(cost / fits[size].observed, 1e3) for size, cost in asked.items()}
    if best["gain"]["median"] > WORTH * np.median(scratch):
        sure = best["chance"] >= LEVEL and max(beyond.values()) <= FAR
        advice["verdict"] = FUSE if sure else PERHAPS
    return advice


def backtest(groups, fused, shares=(0.5, 0.6, 0.7, 0.8)) -> list[dict]:
    """Scores forecasts of what the advice did not see, of curves by size and of self-fusions.

    "continued" is the rest of a curve, from the beginnings of all of its size; "unseen" a curve
    beyond its plateau, from the others of its size; "fused" a self-fusion, from the laws and from
    self-fusions of other sources. Evaluations of one run go together: over few runs a share is
    rough. Errors are relative, and their medians are given: absolute, at the ends of runs, and with
    their sign (above 0: forecast too high).
    """
    curves = [curve for group in groups.values() for curve in group]
    smaller = dict(zip(list(groups)[1:], groups, strict=False))

    def continued(curve, share):
        seen = [c.part(c.costs <= share * c.costs[-1]) for c in groups[curve.size]]
        begun, rest = seen[groups[curve.size].index(curve)], curve.costs > share * curve.costs[-1]
        fitted = fit(seen)
        if curve.name not in fitted.curves:
            raise UserError(f"{curve.name} shows too little beyond its plateau.")
        law = dataclasses.replace(fitted.draws, leaves=begun.costs[plateau_end(begun)])
        return curve.losses[rest], law.loss(curve.costs[rest, None])

    def unseen(curve, _):
        rest = slice(plateau_end(curve) + 1, None)
        law = fit([c for c in groups[curve.size] if c is not curve]).draws
        return curve.losses[rest], law.loss(curve.costs[rest, None])

    def merged(curve, _):
        start = fit(groups[smaller[curve.size]]).draws.loss(curve.source[1])
        big = fit(groups[curve.size], [c for c in fused if c.source != curve.source])
        return curve.losses, big.draws.follow(start, big.speed * curve.costs[:, None])

    kinds = [("continued", share, continued, curves) for share in shares]
    kinds.append(("unseen", 0.0, unseen, [c for c in curves if plateau_end(c)]))
    kinds.append(("fused", 0.0, merged, [c for c in fused if c.size in smaller]))
    return [_score(*kind) for kind in kinds]


def _score(kind, share, forecast, curves):
    errors, held = [], []
    for curve in curves:
        try:
            losses, draws = forecast(curve, share)
        except UserError:
            continue
        bounds = interval(draws)
        errors.append(bounds["median"] / losses - 1)
        held.append((bounds["low"] <= losses) & (losses <= bounds["high"]))
    score = {"kind": kind, "share": share, "runs": len(errors)}
    score |= {"refused": len(curves) - len(errors), "points": sum(map(len, errors))}
    every, ends = np.concatenate([[], *errors]), [abs(error[-1]) for error in errors]
    values = {"error": abs(every), "end_error": ends, "bias": every}
    values = {name: float(np.median(value)) if errors else None for name, value in values.items()}
    return score | values | {"coverage": float(np.concatenate(held).mean()) if errors else None}
