"""Named axes: what a declaration implies, and what it refuses."""

import pytest

from keras_fusion.axes import Axes
from keras_fusion.errors import FusionError

KERNEL = Axes(("hidden", "heads"), sums=("hidden",))
HEAD = Axes(("hidden", "vocab"), sums=("hidden",))
TABLE = Axes(("vocab", "hidden"))
GROW = frozenset({"hidden", "heads", "mlp"})


def test_outputs_are_the_axes_not_summed_over():
    assert KERNEL.outputs == ("heads",)
    assert TABLE.outputs == ("vocab", "hidden")
    assert Axes(("a", "b", "c"), sums=("c", "a")).outputs == ("b",)


def test_growing_keeps_the_order_of_the_dimensions():
    assert KERNEL.growing({"heads", "hidden", "other"}) == ("hidden", "heads")
    assert TABLE.growing(GROW) == ("hidden",)
    assert TABLE.growing(()) == ()


@pytest.mark.parametrize(
    ("axes", "grow", "divisor"),
    [
        (KERNEL, GROW, 1),
        (TABLE, GROW, 1),
        (HEAD, GROW, 3),  # AVG: sums over what grows, into what does not
        (Axes(("vocab",)), GROW, 3),  # the head's bias
        (HEAD, GROW | {"vocab"}, 1),
    ],
)
def test_only_a_weight_whose_outputs_do_not_grow_is_divided(axes, grow, divisor):
    assert axes.divisor(grow, 3) == divisor


def test_slices_of_three_unequal_blocks():
    blocks = {"hidden": (1, 2, 3), "heads": (2, 2, 4)}
    assert KERNEL.slices((6, 8), blocks) == [
        (slice(0, 1), slice(0, 2)),
        (slice(1, 3), slice(2, 4)),
        (slice(3, 6), slice(4, 8)),
    ]


def test_slices_of_a_joined_axis_are_given_in_heads():
    # 3 heads of 4 entries each.
    assert KERNEL.slices((4, 12), {"heads": (1, 2)}) == [
        (slice(0, 4), slice(0, 4)),
        (slice(0, 4), slice(4, 12)),
    ]


def test_slices_without_blocks_are_none():
    assert KERNEL.slices((2, 2), {"mlp": (1, 1)}) == []


def test_blocks_that_do_not_divide_their_axis():
    with pytest.raises(FusionError, match=r"`heads`.*size 7.*widths=\(1, 2\)"):
        KERNEL.slices((4, 7), {"heads": (1, 2)})


def test_a_repeated_name():
    with pytest.raises(ValueError, match=r"names=\('a', 'a'\)"):
        Axes(("a", "a"))


def test_a_sum_over_an_unknown_axis():
    with pytest.raises(ValueError, match=r"sums=\('c',\)"):
        Axes(("a", "b"), sums=("c",))
