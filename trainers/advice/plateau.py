"""Where a curve leaves its first plateau.

A small model stays near the loss of unigrams for a while and then, at once, begins to learn from
what stands around a gap. Until then its curve says nothing of what follows: a law fitted to it
would foresee for ever what has only been the wait. So a law is fitted to what comes after.

A plateau is left where the loss against log(compute) turns down: its slope becomes at least
`STEEPER` times what it was. A power law's slope only ever gets flatter, so that a curve without a
plateau has no such place.
"""

import numpy as np

from trainers.advice.curves import Curve

STEEPER = 2.0
"""How many times steeper a curve becomes where it leaves a plateau, at least."""

MOVED = 0.15
"""A curve with no such place has to have fallen by this share since its first evaluation."""

_WINDOW = 5
_CLEARLY = 6.0  # standard deviations of an evaluation


def leaves(curve: Curve) -> int | None:
    """Index of the last point on the plateau; 0 where there is none; None if it is never left.

    Args:
        curve: evaluations after the first step.
    """
    losses = curve.losses
    if len(losses) < 2:
        return None
    turns = _turn(np.log(curve.costs), losses)
    if turns is not None:
        return turns
    return 0 if losses.min() < (1 - MOVED) * losses[0] else None


def slope(curve: Curve, index: int) -> float:
    """Nats by which the loss falls on the plateau while the compute grows e-fold; not below 0."""
    if index < 2:
        return 0.0
    logs = np.log(curve.costs[1 : index + 1])
    return max(0.0, -_line(logs, curve.losses[1 : index + 1])[0])


def _turn(logs, losses):
    """The turn that leaves the smallest error to a line before it and a parabola after it."""
    best, found = np.inf, None
    noise = _noise(losses)
    # The first evaluation still belongs to the fall from random weights.
    for index in range(2, len(losses) - 1):
        before, error = _line(logs[1 : index + 1], losses[1 : index + 1])
        # As steep as it may have been: two noisy points can look flat by chance.
        before = min(0.0, before) - 3 * noise / (logs[index] - logs[1]) / np.sqrt(index)
        end = min(index + _WINDOW, len(losses))
        after, _ = _line(logs[index:end], losses[index:end])
        lowest = index + 1 + int(losses[index + 1 : end].argmin())
        foreseen = losses[index] + before * (logs[lowest] - logs[index])
        if after > STEEPER * before or foreseen - losses[lowest] < _CLEARLY * noise:
            continue
        error += _parabola_error(logs[index:], losses[index:])
        if error < best:
            best, found = error, index
    return found


def _noise(losses):
    """Standard deviation of an evaluation, from second differences, in which trends cancel."""
    bends = np.abs(np.diff(losses, 2))
    found = 1.4826 * np.median(bends) / np.sqrt(6) if len(bends) else 0.0
    return max(found, 1e-3 * losses[-1])


def _line(x, y):
    """Slope and sum of squared errors of a line."""
    fit = np.polyfit(x, y, 1)
    return float(fit[0]), float(np.sum((np.polyval(fit, x) - y) ** 2))


def _parabola_error(x, y):
    if len(x) <= 3:
        return 0.0
    return float(np.sum((np.polyval(np.polyfit(x - x[0], y, 2), x - x[0]) - y) ** 2))
