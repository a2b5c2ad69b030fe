"""Points where a learning curve reaches an accuracy, and what its stage has cost by then."""

import dataclasses

COSTS = ("flops", "device_seconds")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Compute: floating-point operations, and seconds times devices."""

    flops: float = 0.0
    device_seconds: float = 0.0

    def __add__(self, other):
        return Cost(self.flops + other.flops, self.device_seconds + other.device_seconds)

    def __mul__(self, share):
        return Cost(self.flops * share, self.device_seconds * share)


@dataclasses.dataclass(frozen=True)
class Crossing:
    """The point where a curve reaches an accuracy: steps and cost of its own stage alone."""

    step: float
    cost: Cost


def with_accuracy(curve):
    """The evaluations of a curve whose accuracy is a number."""
    return [point for point in curve if point.accuracy is not None]


def by_loss(curve):
    """The evaluations with a loss, whose "accuracy" is its negative: what rises is better."""
    points = [point for point in curve if point.loss_per_token is not None]
    return [dataclasses.replace(point, accuracy=-point.loss_per_token) for point in points]


def best_accuracy(curve):
    """The best accuracy of a curve in per cent, or None without an evaluation."""
    return max((point.accuracy for point in with_accuracy(curve)), default=None)


def first_crossing(curve, accuracy):
    """The `Crossing` where the running best of evaluations first reaches an accuracy, or None.

    Example: evaluations 30, 50, 40, 60 at the steps 0, 1, 2, 3 reach 55 at step 2.5, since the
    running best is 30, 50, 50, 60.
    """
    best = previous = None
    for point in with_accuracy(curve):
        if point.accuracy >= accuracy:
            return _between(previous, best, point, accuracy)
        best = point.accuracy if best is None else max(best, point.accuracy)
        previous = point
    return None


def lasting_crossing(curve, accuracy):
    """The point from which no later evaluation of a curve falls below an accuracy, or None."""
    points = with_accuracy(curve)
    below = max((i for i, point in enumerate(points) if point.accuracy < accuracy), default=-1)
    if below == len(points) - 1:
        return None
    last = points[below] if below >= 0 else None
    return _between(last, last and last.accuracy, points[below + 1], accuracy)


def crossing_without_peak(curve, accuracy):
    """`first_crossing`, where a peak that reaches the accuracy first counts as its neighbours do.

    A peak is an evaluation above both its neighbours; it is lowered to the higher of them. The
    first and the last evaluation are none.

    Example: 30, 50, 41 at the steps 0, 1, 2 reach 40 at step 10/11, as 30, 41, 41 do.
    """
    points = with_accuracy(curve)
    index = next((i for i, point in enumerate(points) if point.accuracy >= accuracy), 0)
    if 0 < index < len(points) - 1:
        before, peak, after = points[index - 1 : index + 2]
        lowered = min(peak.accuracy, max(before.accuracy, after.accuracy))
        points[index] = dataclasses.replace(peak, accuracy=lowered)
    return first_crossing(points, accuracy)


def _between(previous, best, point, accuracy):
    """The point between two evaluations where the line from `best` to `point` is `accuracy`."""
    if previous is None:
        return Crossing(point.step, Cost(point.flops, point.device_seconds))
    share = (accuracy - best) / (point.accuracy - best)

    step, *costs = (
        getattr(previous, field) + share * (getattr(point, field) - getattr(previous, field))
        for field in ("step", *COSTS)
    )
    return Crossing(step, Cost(*costs))
