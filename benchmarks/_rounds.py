"""Measures alternatives in turn and prints the results, for all benchmarks."""

import statistics
from collections.abc import Callable, Sequence


def in_turn(runs: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Measures each run once per round.

    The order alternates, so that a drift of the machine's speed favours none.

    Args:
        runs: functions that return what they measured.
        rounds: how often.

    Returns:
        For each run its figures, round by round.
    """
    measured = [[] for _ in runs]
    for index in range(rounds):
        order = list(zip(runs, measured, strict=True))
        for run, figures in order if index % 2 else reversed(order):
            figures.append(run())
    return measured


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Returns the first figures over the second ones, round by round."""
    return [a / b for a, b in zip(first, second, strict=True)]


def line(name: str, values: Sequence[float], unit: str = "", decimals: int = 2) -> str:
    """Returns a line with the median, minimum and maximum of figures.

    Example:
        >>> line("ratio", [1.0, 2.0, 4.0])
        'ratio            median       2.00   min       1.00   max       4.00'
    """
    named = (("median", statistics.median(values)), ("min", min(values)), ("max", max(values)))
    texts = [f"{label} {value:10.{decimals}f}" for label, value in named]
    return f"{name:16} " + "   ".join([*texts, *([unit] if unit else [])])
