"""Arrays in parts: the same values as whole ones, and no part that does not fit."""

import numpy as np
import pytest

from trainers.checkpoints.parts import SplitArray, joined
from trainers.engines.state import parse_part_name, part_name

WHOLE = np.arange(6 * 8).reshape(6, 8)
# Two runs of rows, three of columns, of different lengths.
PARTS = {(a, b): WHOLE[a:c, b:d] for a, c in ((0, 2), (2, 6)) for b, d in ((0, 1), (1, 5), (5, 8))}


def changed(remove=None, **parts):
    arrays = {part_name("kernel", starts): part for starts, part in PARTS.items()}
    arrays.pop(remove, None)
    return [arrays, parts]


@pytest.mark.parametrize(
    "index",
    [..., slice(1, 3), (..., slice(4, None)), (slice(3, 5), slice(0, 6)), (slice(2), slice(0, 0))],
)
def test_an_index_reads_what_the_whole_array_has_there(index):
    array = SplitArray(PARTS)
    assert (array.shape, array.size, array.ndim, array.dtype) == ((6, 8), 48, 2, WHOLE.dtype)
    np.testing.assert_array_equal(array[index], WHOLE[index])
    np.testing.assert_array_equal(np.asarray(array), WHOLE)


def test_only_the_parts_that_an_index_covers_are_read():
    class Unread(np.ndarray):
        def __getitem__(self, index):
            raise AssertionError("read")

    parts = PARTS | {(2, 5): PARTS[2, 5].view(Unread)}
    np.testing.assert_array_equal(SplitArray(parts)[:, :5], WHOLE[:, :5])
    with pytest.raises(AssertionError, match="read"):
        SplitArray(parts)[3:]


def test_the_files_of_all_hosts_together_have_every_array():
    step = np.array(7)
    names = [part_name("kernel", starts) for starts in PARTS]
    arrays = dict(zip(names, PARTS.values(), strict=True))
    files = [{"step[]": step, **dict(list(arrays.items())[::2])}, dict(list(arrays.items())[1::2])]
    whole = joined(files)
    assert whole.keys() == {"kernel", "step"} and whole["step"] is step
    np.testing.assert_array_equal(whole["kernel"], WHOLE)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (changed(remove="kernel[2,5]"), "'kernel' in parts of which the first or the last"),
        (changed(remove="kernel[0,0]"), "leave a gap"),
        (changed(remove="kernel[0,5]"), "leave a gap"),
        (changed(**{"kernel[0,1]": WHOLE}), "'kernel\\[0,1\\]' twice"),
        (changed(**{"kernel[6]": WHOLE}), "of another rank"),
        (changed(remove="kernel[0,1]", **{"kernel[0,1]": WHOLE}), "do not fit together"),
        (changed(**{"bias[3]": WHOLE[0]}), "'bias' in parts of which the first"),
        (changed(**{"kernel": WHOLE}), "'kernel' for the name of a part"),
        (changed(**{"kernel[-1,0]": WHOLE}), "for the name of a part"),
    ],
)
def test_parts_that_do_not_fit_are_refused(files, fault):
    with pytest.raises(ValueError, match=fault):
        joined(files)


def test_the_name_of_a_part_says_where_it_begins():
    names = [("a/kernel", (0, 128)), ("optimizer/iteration", ()), ("odd[1]", (3,))]
    assert [parse_part_name(part_name(*name)) for name in names] == names
