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
    n = max(step + schedule["offset"], schedule["warmup_steps"])
    decay = schedule.get("decay_steps")
    return schedule["scale"] / math.sqrt(n) * (min(1, (steps - step) / decay) if decay else 1)
