"""Tables as plain text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[str]:
    """Returns a line per row, with two spaces between columns.

    Args:
        rows: texts, as many in each row.
        numbers: indices of the columns whose texts end at the same place.

    Example:
        >>> aligned([("name", "bytes"), ("kernel", "8")], numbers=[1])
        ['name    bytes', 'kernel      8']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    places = [(str.rjust if at in numbers else str.ljust) for at in range(len(widths))]
    return [
        "  ".join(
            place(text, width) for place, text, width in zip(places, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
