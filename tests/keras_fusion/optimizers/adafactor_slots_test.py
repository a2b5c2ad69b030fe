"""Adafactor's slots: which axes are factored, and how many bytes that saves."""

import math

import keras
import numpy as np
import pytest

from benchmarks.optimizer_memory import slot_bytes, t5_shapes
from keras_fusion.optimizers import Adafactor
from keras_fusion.optimizers.adafactor import factored_axes, slot_shapes
from keras_fusion.schedules import InverseSquareRoot


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((), None),
        ((512,), None),
        ((512, 127), None),
        ((128, 128), (0, 1)),
        ((512, 384), (1, 0)),
        ((384, 512), (0, 1)),
        ((32128, 512), (1, 0)),
        ((32, 12), None),
        ((512, 6, 64), None),
        ((512, 3, 200), (2, 0)),
        ((2, 128, 128), (1, 2)),
    ],
)
def test_two_largest_axes_are_factored(shape, axes):
    assert factored_axes(shape) == axes


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("t5_small", 76_961_152),
        ("t5_medium", 242_002_688),
        ("t5_s", 95_835_520),
        ("t5_m", 317_500_160),
        ("t5_l", 1_138_316_800),
    ],
)
@pytest.mark.one_backend
def test_slot_bytes_of_tables_8_and_9(size, count):
    shapes = t5_shapes(size)
    assert sum(math.prod(shape) for shape in shapes) == count
    expected = 0
    for shape in shapes:
        slots = slot_shapes(shape)
        if len(shape) == 2 and min(shape) >= 128:
            assert set(slots) == {"r", "c"}
            assert sorted(slots["r"] + slots["c"]) == sorted(shape + (1, 1))
            expected += 4 * sum(shape)
        else:
            assert slots == {"v": shape}
            expected += 4 * math.prod(shape)
    adafactor, adamw = slot_bytes(shapes)
    assert adafactor == expected
    assert adamw == 8 * count
    assert adafactor < 0.01 * adamw


@pytest.mark.parametrize("size", ["tiny_s", "tiny_m"])
@pytest.mark.one_backend
def test_no_other_slots_are_allocated(size):
    shapes = t5_shapes(size)
    optimizer = Adafactor(InverseSquareRoot())
    optimizer.build([keras.Variable(np.ones(shape, "float32")) for shape in shapes])
    iteration, *slots = optimizer.variables
    assert iteration.shape == ()
    assert {keras.backend.standardize_dtype(slot.dtype) for slot in slots} == {"float32"}
    assert sum(4 * math.prod(slot.shape) for slot in slots) == slot_bytes(shapes)[0]
