"""Learning-rate schedules of T5's pretraining, and ramps of any schedule."""

import math
import numbers

import keras
from keras import ops

__all__ = ["inverse_square_root", "InverseSquareRoot", "LinearDecay", "LinearWarmup"]


def inverse_square_root(step, warmup_steps, offset=0, scale=1.0):
    """Returns `InverseSquareRoot`'s learning rate of an integer step as a Python float."""
    return scale / math.sqrt(max(step + offset, warmup_steps))


@keras.saving.register_keras_serializable(package="keras_fusion")
class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """Flat, then falling with the inverse square root of the step.

    `lr(n) = scale / sqrt(max(n + offset, warmup_steps))`, `n` counted from 0: T5's schedule, which
    has no ramp. The offset is that of the paper's section 5.4: a positive one starts the run
    further down the curve (`offset=50_000` starts at 0.00447), a negative one holds the maximum
    for longer (`offset=-50_000` holds 0.01 until step 60,000). T5X's `step_offset` has the
    opposite sign.

    An integer step is added to the offset in integers, so that steps beyond 2^24, which float32
    cannot tell apart, still come out as the exact sum rounded once.

    Args:
        warmup_steps: int >= 1. Steps for which the rate is flat (at `offset=0`), hence also what
            sets its maximum, `scale / sqrt(warmup_steps)`.
        offset: int, in steps.
        scale: float > 0. Multiplies the whole curve.
        name: optional string, kept for Keras' schedules' sake.

    Raises:
        ValueError: if an argument is of the wrong kind or out of range.

    Examples:

    >>> round(float(InverseSquareRoot(10_000)(40_000)), 6)
    0.005
    """

    def __init__(self, warmup_steps=10_000, offset=0, scale=1.0, name="inverse_square_root"):
        super().__init__()
        if not _is_int(warmup_steps) or warmup_steps < 1:
            raise ValueError(
                "`warmup_steps` must be an integer of at least 1 (1 means no flat part). "
                f"Received: warmup_steps={warmup_steps!r}"
            )
        if not _is_int(offset):
            raise ValueError(
                "`offset` must be an integer number of steps (positive starts lower, negative "
                f"holds the maximum longer). Received: offset={offset!r}"
            )
        if not isinstance(scale, numbers.Real) or not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"`scale` must be a finite number above 0. Received: scale={scale!r}")
        self.warmup_steps = int(warmup_steps)
        self.offset = int(offset)
        self.scale = float(scale)
        self.name = name

    def __call__(self, step):
        """Returns the learning rate of `step` (int, or a scalar or array of any number type)."""
        if _is_int(step):
            rate = inverse_square_root(int(step), self.warmup_steps, self.offset, self.scale)
            return ops.convert_to_tensor(rate, dtype="float32")
        position = ops.maximum(_widened(step) + self.offset, self.warmup_steps)
        return self.scale / ops.sqrt(ops.cast(position, "float32"))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "warmup_steps": self.warmup_steps,
            "offset": self.offset,
            "scale": self.scale,
            "name": self.name,
        }


class _Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule times a factor, which `_factor` gives for a float32 step."""

    def __init__(self, schedule, steps, edge):
        super().__init__()
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            raise ValueError(
                "`schedule` must be a `LearningRateSchedule`, such as `InverseSquareRoot()`. "
                f"Received: schedule={schedule!r}"
            )
        if not _is_int(steps) or steps < 1 or not _is_int(edge):
            raise ValueError(
                f"`steps` must be an integer of at least 1, and `{self._EDGE}` an integer. "
                f"Received: steps={steps!r}, {self._EDGE}={edge!r}"
            )
        self.schedule, self.steps = schedule, int(steps)
        setattr(self, self._EDGE, int(edge))

    def __call__(self, step):
        """Returns the learning rate of `step` (int, or a scalar or array of any number type)."""
        if _is_int(step):
            steps = float(self._steps_of_ramp(int(step)))
        else:
            steps = self._steps_of_ramp(_widened(step))
        factor = ops.convert_to_tensor(steps, dtype="float32") / self.steps
        return self.schedule(step) * ops.clip(factor, 0.0, 1.0)

    def get_config(self):
        """Returns the constructor's arguments."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "steps": self.steps, self._EDGE: getattr(self, self._EDGE)}

    @classmethod
    def from_config(cls, config):
        """Returns the schedule of what `get_config` returned."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["steps"], config[cls._EDGE])


@keras.saving.register_keras_serializable(package="keras_fusion")
class LinearWarmup(_Ramp):
    """Linear ramp from zero onto another schedule.

    `lr(n) = schedule(n) · min(1, (n - start + 1) / steps)`: `steps` steps after `start`, which is
    not 0 where an optimizer has steps behind it, the learning rate is the schedule's again.

    Args:
        schedule: a `LearningRateSchedule`.
        steps: int >= 1. Steps of the ramp.
        start: int, the optimizer's step count at which the ramp begins.

    Raises:
        ValueError: if an argument is of the wrong kind or out of range.

    Examples:

    >>> rewarmed = LinearWarmup(InverseSquareRoot(1000), steps=50, start=4000)
    """

    _EDGE = "start"

    def __init__(self, schedule, steps, start=0):
        super().__init__(schedule, steps, start)

    def _steps_of_ramp(self, step):
        return step - self.start + 1


@keras.saving.register_keras_serializable(package="keras_fusion")
class LinearDecay(_Ramp):
    """Another schedule, and at the end a linear ramp from it towards zero.

    `lr(n) = schedule(n) · min(1, (end - n) / steps)`, `n` counted from 0: the last step of all,
    `end - 1`, has the share `1 / steps`. A run that ends without such a ramp has a higher loss
    than one that learned as much and ends with it, so that runs of unequal learning rates can be
    compared only with it.

    Args:
        schedule: a `LearningRateSchedule`.
        steps: int >= 1. Steps of the ramp.
        end: int, the optimizer's step count at which training ends.

    Raises:
        ValueError: if an argument is of the wrong kind or out of range.

    Examples:

    >>> decayed = LinearDecay(InverseSquareRoot(1000), steps=100, end=5000)
    """

    _EDGE = "end"

    def __init__(self, schedule, steps, end):
        super().__init__(schedule, steps, end)

    def _steps_of_ramp(self, step):
        return self.end - step


# Number types that cannot hold a usual step plus a usual offset, or no negative number.
_NARROW = ("int8", "int16", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16")


def _widened(step):
    """Tensor of steps, of a number type in which sums and differences of steps are right."""
    step = ops.convert_to_tensor(step)
    kind = keras.backend.standardize_dtype(step.dtype)
    if kind in _NARROW:
        step = ops.cast(step, "float32" if "float" in kind else "int32")
    return step


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
