"""Measuring things in turn, and saying what came out: what all benchmarks do alike."""

import statistics
from collections.abc import Callable, Sequence


def in_turn(runs: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Measures each run once a round.

    The order alternates, so that a drift of the machine's speed favours none.

    Args:
        runs: functions that return what they measured.
        rounds: how often.

    Returns:
        Of each run its figures, round by round.
    """
    found = [[] for _ in runs]
    for index in range(rounds):
        order = list(zip(runs, found, strict=True))
        for run, figures in order if index % 2 else reversed(order):
            figures.append(run())
    return found


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Round by round the first figures over the second ones."""
    return [a / b for a, b in zip(first, second, strict=True)]


def line(name: str, values: Sequence[float], unit: str = "", decimals: int = 2) -> str:
    """Median, minimum and maximum of figures.

    Example:
        >>> line("ratio", [1.0, 2.0, 4.0])
        'ratio            median       2.00   min       1.00   max       4.00'
    """
    named = (("median", statistics.median(values)), ("min", min(values)), ("max", max(values)))
    texts = [f"{what} {value:10.{decimals}f}" for what, value in named]
    return f"{name:16} " + "   ".join([*texts, *([unit] if unit else [])])
