"""The forms of numbers in reports."""

import re
import statistics

# A number, its decimals, and a unit.
_PLAIN = re.compile(r"([\d,]+(\.\d+|))((?:\s.*)?)")


def letter(index):
    """0 → "a", 25 → "z", 26 → "aa": the marks of footnotes."""
    text = ""
    while index >= 0:
        index, text = index // 26 - 1, chr(ord("a") + index % 26) + text
    return text


def count(value):
    """A number of things: 1234567 → "1,234,567"."""
    return f"{round(value):,}"


def scientific(value):
    """Three digits: 1234567 → "1.23e+6", in the paper's way of writing."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent):+d}"


def seconds(value):
    """Device-seconds with a space that does not break: "42.1 s", "1,234 s"."""
    return f"{value:,.1f}\u00a0s" if abs(value) < 100 else f"{value:,.0f}\u00a0s"


percent = "{:.2f}".format
"""An accuracy that is in per cent already: 45.123 → "45.12"."""

ratio = "{:.2f}".format
"""A share of the baseline's compute: 0.8249 → "0.82"."""

short = "{:.3g}".format
"""Three significant digits: 0.0123456 → "0.0123"."""

fine = "{:.4f}".format
"""Four decimals: a loss per token or a distance whose small differences matter."""

tenth = "{:.1f}".format
"""One decimal: 3.14 → "3.1"."""


def loss(value):
    """A loss: 3.185 per token, 2,976 per batch, and above ten thousand as the paper's 4.53e+4."""
    if abs(value) >= 1e4:
        return scientific(value)
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def steps(value):
    """A number of steps: 1250 → "1,250 steps"."""
    return f"{count(value)} steps"


def seeds(number):
    """A number of seeds: "1 seed", "3 seeds"."""
    return f"{number} seed" + ("" if number == 1 else "s")


def spread(values, style):
    """Mean and population standard deviation: "45.10 ± 0.20"; one value or equal ones alone.

    The deviation has the decimals of the mean, and they share its unit. `style` is a function from
    a number to its text.

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


def terms(parts, style, total=None):
    """The parts of a sum and what they add up to: "1 s + 2 s = 3 s"; a single part alone."""
    total = total or style(sum(parts))
    return total if len(parts) == 1 else f"{' + '.join(map(style, parts))} = {total}"


def schedule(settings):
    """The inverse square root schedule of a record as a formula; n is the step from 0.

    Example: {"warmup_steps": 300, "offset": 0, "scale": 1.0} → "1/√max(n, 300)".
    """
    offset, ramp, decay = (
        settings.get(name) for name in ("offset", "rewarmup_steps", "decay_steps")
    )
    moved = "n" if not offset else f"n {'+' if offset > 0 else '−'} {abs(offset):g}"
    rising = f", from 0 in the first {count(ramp)} steps" if ramp else ""
    falling = f", to 0 in the last {count(decay)} steps" if decay else ""
    return f"{settings['scale']:g}/√max({moved}, {settings['warmup_steps']:g}){rising}{falling}"
