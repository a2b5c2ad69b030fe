"""Named axes: what a declaration implies, and what it refuses."""

import numpy as np
import pytest

from keras_fusion.axes import Axes, Joined
from keras_fusion.errors import FusionError
from keras_fusion.layouts import Layout, Run

KERNEL = Axes(("hidden", "heads"), sums=("hidden",))
JOINED = Axes(("hidden", Joined("heads", after=4)), sums=("hidden",))
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
    assert JOINED.slices((4, 12), {"heads": (1, 2)}) == [
        (slice(0, 4), slice(0, 4)),
        (slice(0, 4), slice(4, 12)),
    ]


def test_slices_without_blocks_are_none():
    assert KERNEL.slices((2, 2), {"mlp": (1, 1)}) == []


def test_blocks_that_do_not_divide_their_axis():
    with pytest.raises(FusionError, match=r"`heads`.*size 7.*widths=\(1, 2\)"):
        KERNEL.slices((4, 7), {"heads": (1, 2)})


def test_a_repeated_name():
    with pytest.raises(ValueError, match=r"dims=\('a', 'a'\)"):
        Axes(("a", "a"))


def test_a_sum_over_an_unknown_axis():
    with pytest.raises(ValueError, match=r"sums=\('c',\)"):
        Axes(("a", "b"), sums=("c",))


def placed(layout, source, values):
    """The fused dimension with the values of one source where its runs are."""
    fused = np.zeros(layout.size, int)
    for run in layout.runs(source):
        fused[run.target : run.target + run.length] = values[run.source : run.source + run.length]
    return fused


class TestLayouts:
    """Compared with what numpy makes of arrays that are placed block by block."""

    WIDTHS = (2, 3, 1)

    def values(self, source):
        return 100 * (source + 1) + np.arange(self.WIDTHS[source])

    @pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 1), (1, 4), (2, 5)])
    def test_joined_is_a_reshape(self, before, after):
        layout = Layout.joined(Layout.blocks(self.WIDTHS), before, after)
        factor = np.arange(before)[:, None, None] * 10_000
        rest = np.arange(after)[None, None, :] * 1_000
        expected = np.zeros((before, sum(self.WIDTHS), after), int)
        start = 0
        for source, width in enumerate(self.WIDTHS):
            array = factor + self.values(source)[None, :, None] + rest
            expected[:, start : start + width] = array
            fused = placed(layout, source, array.ravel())
            view = fused.reshape(expected.shape)
            np.testing.assert_array_equal(view[:, start : start + width], array)
            assert not view[:, :start].any() and not view[:, start + width :].any()
            np.testing.assert_array_equal(expected.ravel()[layout.indices(source)], array.ravel())
            start += width
        assert layout.size == expected.size and layout.sizes == tuple(
            before * width * after for width in self.WIDTHS
        )

    def test_stacked_is_a_concatenation_and_what_did_not_grow_is_shared(self):
        first, raw = Layout.blocks(self.WIDTHS), Layout.whole(4, 3)
        layout = Layout.stacked([first, raw, first])
        inputs = -np.arange(1, 5)
        blocks = np.concatenate([self.values(source) for source in range(3)])
        expected = np.concatenate([blocks, inputs, blocks + 1_000])
        for source in range(3):
            units = self.values(source)
            values = np.concatenate([units, inputs, units + 1_000])
            np.testing.assert_array_equal(expected[layout.indices(source)], values)
            assert sum(run.length for run in layout.own[source]) == 2 * self.WIDTHS[source]
            assert layout.shared[source] == (Run(6, self.WIDTHS[source], 4),)

    def test_a_dimension_that_did_not_grow_is_one_run(self):
        whole = Layout.joined(Layout.whole(5, 2), before=3, after=2)
        assert not whole.grows and whole.shared == ((Run(0, 0, 30),),) * 2

    def test_a_joined_dimension_that_its_factors_do_not_divide(self):
        with pytest.raises(FusionError, match="`heads` is joined with factors of 4.*size=7"):
            JOINED.widths([(4, 7), (4, 8)], {"heads"})

    def test_layouts_that_do_not_fit_the_weight(self):
        with pytest.raises(FusionError, match=r"`hidden` has the sizes \(2, 2\).*sizes=\(3, 3\)"):
            KERNEL.layouts({"hidden": (2, 2)}, [(3, 4), (3, 4)])
