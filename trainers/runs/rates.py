"""Learning rates that records tell of."""

import math
from collections.abc import Mapping


def learning_rate(schedule: Mapping, step: int, steps: int) -> float:
    """Learning rate that a record's schedule has at a step of a stage of `steps` steps.

    Example:
        >>> rate = {"warmup_steps": 4, "offset": 0, "scale": 1.0, "decay_steps": 10}
        >>> learning_rate(rate, 3, 100), learning_rate(rate, 99, 100) * 99**0.5
        (0.5, 0.1)
    """
    rate = schedule["scale"] / math.sqrt(max(step + schedule["offset"], schedule["warmup_steps"]))
    for ramp, place in (("rewarmup_steps", step + 1), ("decay_steps", steps - step)):
        if schedule.get(ramp):
            rate *= min(1, place / schedule[ramp])
    return rate
