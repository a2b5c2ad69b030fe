"""The repeats of a stage, and figures that are means over them.

A repeat of `baseline` is `baseline_r2`, …, a run with the next seed. Reports show the mean and the
population standard deviation over seeds, as the paper does.
"""

import re
import statistics

from trainers.reports import tables
from trainers.reports.tables import Cell

# A number, its decimals, and a unit.
_PLAIN = re.compile(r"([\d,]+(\.\d+|))((?:\s.*)?)")


def seeds(number):
    """A number of seeds, in words: "1 seed", "3 seeds"."""
    return f"{number} seed" + ("" if number == 1 else "s")


def spread(values, style):
    """Mean and population standard deviation: "45.10 ± 0.20"; one value or equal ones alone.

    The deviation has the decimals of the mean, and they share its unit.

    Args:
        values: numbers, at least one.
        style: function from a number to its text.

    Example:
        >>> spread([90.0, 110.0], lambda seconds: f"{seconds:.0f} s")
        '100 ± 10 s'
    """
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    text = style(mean)
    # Sums of the same terms in another order differ in their last digits.
    if len(values) == 1 or deviation <= 1e-9 * abs(mean):
        return text
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return f"{text} ± {style(deviation)}"
    number, decimals, unit = plain.groups()
    return f"{number} ± {deviation:,.{max(0, len(decimals) - 1)}f}{unit}"


def figure(values, style, otherwise="not recorded"):
    """A cell with the mean over repeats and its spread.

    Args:
        values: one a repeat; None where there is none.
        style: function from a number to its text.
        otherwise: what to say where no repeat has one.
    """
    known = [value for value in values if value is not None]
    if not known:
        return tables.missing(otherwise)
    note = ""
    if len(known) < len(values):
        note = f"{len(known)} of {seeds(len(values))}; the others: {otherwise}."
    return Cell(spread(known, style), statistics.fmean(known), note=note)
