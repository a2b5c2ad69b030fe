"""Adafactor (Shazeer and Stern, 2018) as T5X and Mesh TensorFlow define it."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_fusion")
class Adafactor(keras.optimizers.Optimizer):
    """Adafactor without momentum, with the sublinear memory that it is known for.

    For a parameter `p` with gradient `g` at step `t`, counted from 0:

        beta2_t = 1 - (t + 1)^-decay_rate,        s = g^2 + epsilon1
        factored:  r = beta2_t r + (1 - beta2_t) mean(s, axis=largest)
                   c = beta2_t c + (1 - beta2_t) mean(s, axis=second largest)
                   u = g · (r / mean r)^-1/2 · c^-1/2
        otherwise: v = beta2_t v + (1 - beta2_t) s,        u = g · v^-1/2
        p = p - learning_rate · max(RMS(p), epsilon2) · u / max(1, RMS(u) / clipping_threshold)

    A parameter is factored when its two largest dimensions are both at least
    `min_dim_size_to_factor`: it then holds the vectors `r` and `c` and nothing else. Any other
    holds one `v` of its own size. Slots and arithmetic are float32 whatever the dtype of the
    parameter. The result equals `optax.adafactor`.

    `keras.optimizers.Adafactor` is another algorithm: it caps the step at `1/sqrt(t + 1)`, keeps a
    full-size slot beside the factors, and factors every matrix.

    Args:
        learning_rate: float, `LearningRateSchedule` or callable. With
            `multiply_by_parameter_scale` a step relative to the size of the parameter.
        decay_rate: float > 0. How fast the average of squares lengthens with the step.
        clipping_threshold: float > 0, the largest RMS of the update `u`; None for no limit.
        epsilon1: float > 0, added to the squared gradient.
        epsilon2: float > 0, the least parameter scale, so that a parameter can leave zero.
        min_dim_size_to_factor: int >= 1.
        multiply_by_parameter_scale: bool. Without it the learning rate is absolute.
        name: optional string.
        **kwargs: what every Keras optimizer takes: `weight_decay`, `clipnorm`, `clipvalue`,
            `global_clipnorm`, `use_ema`, `ema_momentum`, `ema_overwrite_frequency`,
            `loss_scale_factor`, `gradient_accumulation_steps`.

    Raises:
        ValueError: if an argument is out of range.

    Examples:

    >>> optimizer = Adafactor(learning_rate=InverseSquareRoot(warmup_steps=10_000))
    >>> optimizer.build(model.trainable_variables)
    >>> optimizer.apply(gradients)
    """

    def __init__(
        self,
        learning_rate=0.01,
        decay_rate=0.8,
        clipping_threshold=1.0,
        epsilon1=1e-30,
        epsilon2=1e-3,
        min_dim_size_to_factor=128,
        multiply_by_parameter_scale=True,
        name="adafactor",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        _check_positive("decay_rate", decay_rate)
        _check_positive("epsilon1", epsilon1)
        _check_positive("epsilon2", epsilon2)
        _check_positive("min_dim_size_to_factor", min_dim_size_to_factor)
        if clipping_threshold is not None:
            _check_positive("clipping_threshold", clipping_threshold, " or None for no limit")
        self.decay_rate = decay_rate
        self.clipping_threshold = clipping_threshold
        self.epsilon1 = epsilon1
        self.epsilon2 = epsilon2
        self.min_dim_size_to_factor = min_dim_size_to_factor
        self.multiply_by_parameter_scale = multiply_by_parameter_scale

    def build(self, variables):
        """Creates the slots: `{"r", "c"}` for a factored variable, `{"v"}` for any other."""
        if self.built:
            return
        super().build(variables)
        self._slots = []
        for variable in variables:
            shapes = {}
            if not self._overwrite_variable_with_gradient(variable):
                shapes = slot_shapes(variable.shape, self.min_dim_size_to_factor)
            self._slots.append(
                {key: self._add_slot(variable, key, shape) for key, shape in shapes.items()}
            )

    def _add_slot(self, variable, key, shape):
        # A slot of the variable's own shape is sharded as the variable is; r and c are small.
        layout = getattr(variable, "_layout", None) if key == "v" else None
        prefix = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        return self.add_variable(
            shape=shape, dtype="float32", layout=layout, name=f"{prefix}_{key}"
        )

    def slots_of(self, variable):
        """Returns the slots of one variable by name, `{"r", "c"}` or `{"v"}`."""
        return dict(self._slots[self._get_variable_index(variable)])

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # The scalars of a step are the same for all variables: computed once, not per variable.
        scalars = self._step_scalars(learning_rate)
        super()._backend_update_step(grads, trainable_variables, scalars)

    def _step_scalars(self, learning_rate):
        step = ops.cast(self.iterations, "float32") + 1.0
        decay = 1.0 - ops.power(step, -self.decay_rate)
        # Not step^-decay_rate itself: at a million steps `decay` has lost its low digits, and two
        # weights that do not add up to 1 would bias the averages (by 0.2 %).
        return ops.cast(learning_rate, "float32"), decay, 1.0 - decay

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable and its slots (`learning_rate`: scalar, or the step's scalars)."""
        if not isinstance(learning_rate, tuple):
            learning_rate = self._step_scalars(learning_rate)
        learning_rate, decay, complement = learning_rate
        gradient = ops.cast(_dense(gradient, variable.shape), "float32")
        squares = ops.square(gradient)
        slots = self._slots[self._get_variable_index(variable)]

        def averaged(key, value):
            # epsilon1 is added behind the mean of r and c: the same number, a much smaller array.
            value = complement * (value + self.epsilon1)
            value = decay * ops.convert_to_tensor(slots[key]) + value
            self.assign(slots[key], value)
            return value

        if "v" in slots:
            update = gradient * ops.rsqrt(averaged("v", squares))
        else:
            row, column = factored_axes(variable.shape, self.min_dim_size_to_factor)
            r = averaged("r", ops.mean(squares, axis=column, keepdims=True))
            c = averaged("c", ops.mean(squares, axis=row, keepdims=True))
            # Two factors, not the root of their product, which may underflow.
            update = gradient * ops.rsqrt(r / ops.mean(r, axis=row, keepdims=True)) * ops.rsqrt(c)
        self._assign_update(variable, update, learning_rate)

    def _assign_update(self, variable, update, learning_rate):
        value = ops.cast(ops.convert_to_tensor(variable), "float32")
        # Squares first, then one root of their quotient: with many small variables, operations
        # dominate the cost of a step.
        scale = excess = 1.0
        if self.multiply_by_parameter_scale:
            scale = ops.maximum(ops.mean(ops.square(value)), self.epsilon2**2)
        if self.clipping_threshold is not None:
            limit = self.clipping_threshold**2
            excess = ops.maximum(ops.mean(ops.square(update)), limit) / limit
        step_size = learning_rate * ops.sqrt(scale / excess)
        update = step_size * update
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if dtype in ("float16", "bfloat16"):
            # Subtracted in float32 and rounded once.
            self.assign(variable, ops.cast(value - update, dtype))
        else:
            self.assign_sub(variable, ops.cast(update, dtype))

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        config.update(
            {
                "decay_rate": self.decay_rate,
                "clipping_threshold": self.clipping_threshold,
                "epsilon1": self.epsilon1,
                "epsilon2": self.epsilon2,
                "min_dim_size_to_factor": self.min_dim_size_to_factor,
                "multiply_by_parameter_scale": self.multiply_by_parameter_scale,
            }
        )
        return config


def factored_axes(shape, min_dim_size_to_factor=128):
    """Returns the axes `(row, column)` over which a shape is factored, or None.

    `column` is the largest dimension, `row` the second largest (of equal ones the later axis counts
    as larger), in the order of optax: `r` averages over `column`, `c` over `row`.

    Args:
        shape: tuple of ints.
        min_dim_size_to_factor: int, what both must reach.

    Examples:

    >>> factored_axes((512, 1024)), factored_axes((32128, 512)), factored_axes((512, 64))
    ((0, 1), (1, 0), None)
    """
    if len(shape) < 2:
        return None
    row, column = sorted(range(len(shape)), key=lambda axis: shape[axis])[-2:]
    return (row, column) if shape[row] >= min_dim_size_to_factor else None


def slot_shapes(shape, min_dim_size_to_factor=128):
    """Returns the shapes of a parameter's float32 slots by name, `{"r", "c"}` or `{"v"}`.

    `r` and `c` keep the axis that they are means over, with size 1: they broadcast as they are.

    Args:
        shape: tuple of ints, the parameter's.
        min_dim_size_to_factor: int, see `Adafactor`.

    Examples:

    >>> slot_shapes((512, 1024)), slot_shapes((512,))
    ({'r': (512, 1), 'c': (1, 1024)}, {'v': (512,)})
    """
    shape = tuple(shape)
    axes = factored_axes(shape, min_dim_size_to_factor)
    if axes is None:
        return {"v": shape}
    row, column = axes
    return {
        "r": shape[:column] + (1,) + shape[column + 1 :],
        "c": shape[:row] + (1,) + shape[row + 1 :],
    }


def _dense(gradient, shape):
    """TensorFlow's gradient of a lookup is IndexedSlices, whose repeated rows are to be added."""
    # A tensor of torch has methods of these names.
    if ops.is_tensor(getattr(gradient, "indices", None)):
        return ops.segment_sum(gradient.values, gradient.indices, num_segments=shape[0])
    return ops.convert_to_tensor(gradient)


def _check_positive(name, value, alternative=""):
    if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"`{name}` must be a finite number above 0{alternative}. Received: {name}={value!r}"
        )
