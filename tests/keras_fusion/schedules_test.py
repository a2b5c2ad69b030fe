"""The inverse square root schedule against the figures of the paper's section 5.4."""

import decimal

import keras
import numpy as np
import pytest
from keras import ops

from keras_fusion.schedules import InverseSquareRoot, LinearDecay, LinearWarmup


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_flat_then_inverse_square_root():
    schedule = InverseSquareRoot()
    assert rates(schedule, [0, 1, 9_999, 10_000]) == pytest.approx([0.01] * 4, rel=1e-7)
    assert rates(schedule, [40_000, 1_000_000]) == pytest.approx([0.005, 0.001], rel=1e-7)


def test_negative_offset_holds_the_maximum_until_step_60k():
    schedule = InverseSquareRoot(offset=-50_000)
    assert rates(schedule, [0, 50_000, 60_000]) == pytest.approx([0.01] * 3, rel=1e-7)
    assert float(schedule(60_001)) < 0.01 - 1e-8
    assert float(schedule(90_000)) == pytest.approx(0.005, rel=1e-7)


def test_positive_offset_starts_lower():
    schedule = InverseSquareRoot(offset=50_000)
    assert float(schedule(0)) == pytest.approx(0.004472136, rel=1e-7)
    assert float(schedule(50_000)) == pytest.approx(10**-2.5, rel=1e-7)


def test_scale_multiplies_the_whole_curve():
    plain, scaled = InverseSquareRoot(100), InverseSquareRoot(100, scale=0.5)
    steps = [0, 100, 12_345]
    assert rates(scaled, steps) == pytest.approx([r / 2 for r in rates(plain, steps)], rel=1e-7)


@pytest.mark.parametrize("step", [2**24 + 1, 2**31 - 1 - 50_000, 1_234_567_891])
@pytest.mark.parametrize("kind", ["python", "numpy", "tensor"])
def test_large_steps_are_added_in_integers(step, kind):
    given = {
        "python": lambda: step,
        "numpy": lambda: np.int64(step),
        "tensor": lambda: ops.convert_to_tensor(step, dtype="int32"),
    }[kind]()
    # At 2^24 and above float32 cannot count: -step + 10_001 would come out as 10_000 or 10_002.
    schedule = InverseSquareRoot(10_000, offset=10_001 - step)
    expected = float(1 / decimal.Decimal(10_001).sqrt())
    assert float(schedule(given)) == pytest.approx(expected, rel=2e-7)
    far = InverseSquareRoot(10_000, offset=50_000)
    expected = float(1 / decimal.Decimal(step + 50_000).sqrt())
    assert float(far(given)) == pytest.approx(expected, rel=2e-7)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32", "bfloat16"])
def test_any_number_type_and_shape(dtype):
    if dtype == "int64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no int64 by default")
    steps = ops.cast(ops.convert_to_tensor([0, 100, 128]), dtype)
    result = ops.convert_to_numpy(InverseSquareRoot(100, offset=16)(steps))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [0.1, 116**-0.5, 1 / 12], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "float16", "float32"])
def test_ramps_take_any_number_type_and_end_far_away(dtype):
    # 100 - 105 would wrap around in unsigned integers, and int16 would cut 100,000.
    plain = InverseSquareRoot(4)
    step = ops.convert_to_tensor(np.asarray(105), dtype=dtype)
    assert float(LinearDecay(plain, 10, end=100)(step)) == 0
    assert float(LinearDecay(plain, 10, end=100_000)(step)) == pytest.approx(105**-0.5, rel=1e-6)
    assert float(LinearWarmup(plain, 10, start=106)(step)) == 0
    assert float(LinearWarmup(plain, 10, start=100)(step)) == pytest.approx(0.6 * 105**-0.5)


def test_ramps_count_python_integers_beyond_32_bits():
    decay = LinearDecay(InverseSquareRoot(4), steps=4, end=2**34)
    assert float(decay(2**34 - 1)) == pytest.approx(0.25 * 2**-17, rel=1e-6)


def test_config_round_trip_in_safe_mode():
    schedule = InverseSquareRoot(123, offset=-45, scale=0.5)
    config = keras.optimizers.schedules.serialize(schedule)
    restored = keras.optimizers.schedules.deserialize(config)
    assert isinstance(restored, InverseSquareRoot)
    assert restored.get_config() == schedule.get_config()
    assert float(restored(1_000)) == float(schedule(1_000))


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"warmup_steps": 0}, "warmup_steps=0"),
        ({"warmup_steps": 1.5}, "warmup_steps=1.5"),
        ({"warmup_steps": True}, "warmup_steps=True"),
        ({"offset": 0.5}, "offset=0.5"),
        ({"offset": "50K"}, "offset='50K'"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"scale": None}, "scale=None"),
    ],
)
def test_bad_arguments_are_named(arguments, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        InverseSquareRoot(**arguments)


def test_a_linear_ramp_ends_on_the_schedule():
    plain = InverseSquareRoot(4)
    ramp = LinearWarmup(plain, steps=4, start=100)
    parts = {100: 0.25, 101: 0.5, 102: 0.75, 103: 1.0, 104: 1.0}
    expected = [part * float(plain(step)) for step, part in parts.items()]
    assert rates(ramp, parts) == pytest.approx(expected, rel=1e-6)
    assert float(ramp(90)) == 0
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ramp))
    assert rates(again, [101, 200]) == rates(ramp, [101, 200])
    with pytest.raises(ValueError, match="Received: steps=0"):
        LinearWarmup(plain, steps=0)


def test_a_decay_ends_near_zero():
    plain = InverseSquareRoot(4)
    decay = LinearDecay(plain, steps=4, end=100)
    parts = {0: 1.0, 95: 1.0, 96: 1.0, 97: 0.75, 98: 0.5, 99: 0.25}
    expected = [part * float(plain(step)) for step, part in parts.items()]
    assert rates(decay, parts) == pytest.approx(expected, rel=1e-6)
    assert float(decay(100)) == float(decay(200)) == 0
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(decay))
    assert rates(again, [0, 98]) == rates(decay, [0, 98])
    with pytest.raises(ValueError, match="`end` an integer. Received: steps=4, end=0.5"):
        LinearDecay(plain, steps=4, end=0.5)
    with pytest.raises(ValueError, match="Received: schedule=0.1"):
        LinearDecay(0.1, steps=4, end=100)
