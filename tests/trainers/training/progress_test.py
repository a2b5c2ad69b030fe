"""The batch that a step takes, and the progress that a checkpoint keeps."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.engines.base import StepSums
from trainers.training.progress import Progress, Window


class Numbers:
    def from_step(self, start):
        return itertools.count(start)


@given(st.sets(st.integers(0, 40)), st.integers(0, 30))
def test_a_step_takes_the_next_batch_that_is_not_skipped(skipped, step):
    order = [index for index in range(100) if index not in skipped]
    progress = Progress(step=step)
    progress.skip(skipped)
    assert progress.batch_index(step) == order[step]
    assert list(itertools.islice(progress.feed(Numbers()), 10)) == order[step : step + 10]


def test_the_iterator_itself_where_nothing_is_left_out():
    source = Numbers()
    source.from_step = lambda start: ("whole", start)
    assert Progress(step=5).feed(source) == ("whole", 5)
    assert Progress(step=5, skipped=[2]).feed(source) == ("whole", 6)


def test_skipped_batches_are_in_order_once():
    progress = Progress(skipped=[5])
    progress.skip([9, 2, 5])
    assert progress.skipped == [2, 5, 9]


def test_json_keeps_it_bit_for_bit():
    sums = StepSums(3, 0.1 + 0.2, 7.0, 2.0, 0.01, largest_gradient=float("nan"))
    progress = Progress(40, 1 / 3, [{"step": 0}], [4], Window().add(sums, 2 / 3))
    restored = Progress.from_dict(
        40, json.loads(json.dumps(progress.to_dict()), parse_constant=pytest.fail)
    )
    assert restored.window.to_dict() == progress.window.to_dict()
    assert restored.window.sums.loss_sum == 0.1 + 0.2 and restored.window.seconds == 2 / 3
    assert (restored.step, restored.device_seconds, restored.curve, restored.skipped) == (
        40,
        1 / 3,
        [{"step": 0}],
        [4],
    )


def test_a_checkpoint_of_an_older_version_skips_nothing():
    restored = Progress.from_dict(3, {"device_seconds": 1.0, "curve": []})
    assert restored == Progress(3, 1.0)
