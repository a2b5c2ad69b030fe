"""Notation of the tables: the axes of a weight in one line.

    "+hidden heads head_dim"      a kernel that sums over `hidden`
    "hidden +heads*head_dim"      a transposed one, whose heads are joined with their size
    "3*heads*head_dim"            query, key and value side by side
    "vocabulary hidden"           a table that is looked up
    "norm: hidden"                a norm's scale or shift
    "equal: head_dim"             must be equal in every source
    "kept"                        no axis grows: that of the first source

A prime marks a second axis of the same growth: `"+hidden hidden'"`.
"""

import dataclasses
import functools
import re

from keras_fusion.axes import Axes, Joined

NORM = "norm"
EQUAL = "equal"
KEPT = "kept"
_KINDS = (NORM, EQUAL)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A weight's entry in a table.

    Args:
        dims: For each dimension, the names and numbers whose product it is, in row-major order.
        sums: Names that the weight's operation sums over.
        kind: `"norm"`, `"equal"`, `"kept"`, or empty.
    """

    dims: tuple[tuple[str, ...], ...]
    sums: tuple[str, ...] = ()
    kind: str = ""

    def axes(self, sizes):
        """`Axes` of the weight.

        Args:
            sizes: `{name: size}` of the factors that no growth changes, such as a head's size.
        """
        return Axes(
            tuple(_axis(factors, sizes) for factors in self.dims),
            sums=self.sums,
            averages=self.kind not in _KINDS,
        )


@functools.cache
def parse(text):
    """The `Entry` that a line of a table stands for.

    Raises:
        ValueError: The line is not in the notation.

    Examples:
        >>> parse("hidden +heads*head_dim").sums
        ('heads',)
    """
    if text == KEPT:
        return Entry((), kind=KEPT)
    kind, colon, rest = text.partition(":")
    kind, rest = (kind.strip(), rest) if colon else ("", text)
    dims, sums = [], []
    for dim in rest.split():
        factors = tuple(dim.lstrip("+").split("*"))
        if not all(re.fullmatch(r"[a-z_]+'?|\d+", factor) for factor in factors):
            raise ValueError(f"Expected names and numbers joined by `*`. Received: {text!r}")
        dims.append(factors)
        if dim.startswith("+"):
            sums.append(_named(factors))
    if kind not in (*_KINDS, "") or not dims:
        raise ValueError(f"Expected axes, with one of {_KINDS} before them. Received: {text!r}")
    return Entry(tuple(dims), tuple(sums), kind)


def _named(factors):
    """Name of the factor that may grow: the first that is no number."""
    return next((factor for factor in factors if not factor.isdigit()), "*".join(factors))


def _axis(factors, sizes):
    name = _named(factors)
    if len(factors) == 1:
        return name
    place = factors.index(name)
    return Joined(name, _product(factors[:place], sizes), _product(factors[place + 1 :], sizes))


def _product(factors, sizes):
    size = 1
    for factor in factors:
        size *= int(factor) if factor.isdigit() else sizes[factor]
    return size
