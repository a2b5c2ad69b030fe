"""Adafactor against optax's, on every kind of weight that a T5 has, and its memory."""

import functools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from keras import ops

from benchmarks.optimizer_memory import measure
from keras_fusion.optimizers import Adafactor
from keras_fusion.schedules import InverseSquareRoot

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="about a feature of TensorFlow"
)

# All weights of a T5, scaled down, on both sides of the limit of 128 for factoring.
SHAPES = {
    "embedding": (256, 128),
    "head": (128, 256),
    "query": (128, 130),
    "attention output": (130, 128),
    "square": (128, 128),
    "mlp": (160, 200),
    "mlp output": (200, 160),
    "one side too small": (127, 256),
    "tiny kernel": (16, 24),
    "position bias": (32, 6),
    "norm": (128,),
    "small norm": (16,),
    "scalar": (),
    "three axes": (130, 3, 140),
    "three axes, last smallest": (140, 130, 2),
}


def gradients(shapes, steps, seed):
    """Gradients of very different sizes, with an all-zero row and column where there are rows."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(steps):
        step = []
        for shape in shapes:
            gradient = rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 1)
            if len(shape) == 2:
                gradient[1] = 0
                gradient[:, 2] = 0
            step.append(gradient.astype("float32"))
        result.append(step)
    return result


def parameters(shapes, seed=1):
    rng = np.random.default_rng(seed)
    # The last one is below epsilon2, where the scale of the parameter is cut off.
    scales = [10.0 ** rng.uniform(-2, 1) for _ in shapes[:-1]] + [1e-5]
    return [
        (s * rng.normal(size=shape)).astype("float32")
        for s, shape in zip(scales, shapes, strict=True)
    ]


def run_optax(initial, grads, **arguments):
    transform = optax.adafactor(**arguments)
    update = jax.jit(transform.update)
    values = [jnp.asarray(value) for value in initial]
    state = transform.init(values)
    for step in grads:
        updates, state = update([jnp.asarray(g) for g in step], state, values)
        values = optax.apply_updates(values, updates)
    return [np.asarray(value) for value in values]


def compiled(optimizer, variables):
    """`optimizer.apply` on lists of arrays, compiled in the manner of the backend."""
    optimizer.build(variables)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda step: optimizer.apply(step, variables))
    if keras.backend.backend() == "jax":
        stateless = jax.jit(optimizer.stateless_apply)

        def apply(step):
            values, state = stateless(
                [v.value for v in optimizer.variables], step, [v.value for v in variables]
            )
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            for variable, value in zip(optimizer.variables, state, strict=True):
                variable.assign(value)

        return apply
    return lambda step: optimizer.apply(step, variables)


def run_ours(initial, grads, traced=True, **arguments):
    variables = [keras.Variable(value) for value in initial]
    optimizer = Adafactor(**arguments)
    if traced:
        apply = compiled(optimizer, variables)
    else:
        apply = functools.partial(optimizer.apply, trainable_variables=variables)
    for step in grads:
        apply([ops.convert_to_tensor(g) for g in step])
    return [ops.convert_to_numpy(variable) for variable in variables]


def assert_equal_values(ours, reference, names=tuple(SHAPES)):
    for name, a, b in zip(names, ours, reference, strict=True):
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert error <= 1e-6, f"{name}: {error}"


@pytest.mark.parametrize("scheduled", [pytest.param(False, marks=pytest.mark.slow), True])
def test_equals_optax_over_many_steps(scheduled):
    shapes = list(SHAPES.values())
    initial, grads = parameters(shapes), gradients(shapes, 20, seed=2)
    rate, reference_rate = 0.01, 0.01
    if scheduled:
        rate = InverseSquareRoot(10, offset=-5)

        def reference_rate(step):
            return 1.0 / jnp.sqrt(jnp.maximum(step - 5.0, 10.0))

    ours = run_ours(initial, grads, learning_rate=rate)
    reference = run_optax(initial, grads, learning_rate=reference_rate)
    assert_equal_values(ours, reference)
    # The oracle moved: a comparison of two runs that did nothing would say nothing.
    for a, b in zip(ours, initial, strict=True):
        assert np.linalg.norm(a - b) > 1e-3 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({"decay_rate": 0.6, "clipping_threshold": None}, None),
        ({"clipping_threshold": 2.0, "min_dim_size_to_factor": 16}, None),
        ({"multiply_by_parameter_scale": False}, None),
        ({"epsilon1": 1e-3}, {"eps": 1e-3}),
    ],
)
@pytest.mark.one_backend
def test_arguments_mean_the_same_as_in_optax(arguments, reference):
    names = ("query", "tiny kernel", "norm", "three axes")
    shapes = [SHAPES[name] for name in names]
    initial, grads = parameters(shapes), gradients(shapes, 5, seed=3)
    # Tracing takes longer than five steps; the test above is traced.
    ours = run_ours(initial, grads, traced=False, learning_rate=0.01, **arguments)
    reference = arguments if reference is None else reference
    assert_equal_values(ours, run_optax(initial, grads, learning_rate=0.01, **reference), names)


def test_formula_in_double_precision_on_one_factored_step():
    rng = np.random.default_rng(4)
    value, gradient = rng.normal(size=(2, 128, 150))
    squares = gradient**2
    update = gradient / np.sqrt(np.outer(squares.mean(1), squares.mean(0)) / squares.mean())
    update /= max(1.0, np.sqrt(np.mean(update**2)))
    expected = value - 0.1 * np.sqrt(np.mean(value**2)) * update
    (result,) = run_ours(
        [value.astype("float32")], [[gradient.astype("float32")]], learning_rate=0.1
    )
    np.testing.assert_allclose(result, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("start", [0, 10, 10**6])
def test_average_stays_unbiased_late_in_training(start):
    """At a constant gradient v is g²; weights that do not add up to 1 would pull it away."""
    variable = keras.Variable(np.ones(4, "float32"))
    optimizer = Adafactor(0.01)
    apply = compiled(optimizer, [variable])
    optimizer.iterations.assign(start)
    gradient = np.asarray([1e-8, 1e-3, 1.0, 300.0], "float32")
    slot = optimizer.slots_of(variable)["v"]
    slot.assign(gradient**2)
    for _ in range(200):
        apply([ops.convert_to_tensor(gradient)])
    np.testing.assert_allclose(ops.convert_to_numpy(slot), gradient**2, rtol=2e-5)


@tensorflow_only
def test_fewer_graph_operations_than_adamw():
    optimizers = {"ours": Adafactor(0.01), "AdamW": keras.optimizers.AdamW(0.01)}
    shapes = [(128, 128), (128, 256), (32, 8), (128,)] * 3
    results = measure(optimizers, shapes, steps=1, rounds=1)
    assert results["ours"][1] < results["AdamW"][1]
    assert all(milliseconds > 0 for milliseconds, _ in results.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_floats_have_float32_state_and_round_once(dtype):
    rng = np.random.default_rng(5)
    shapes = [(130, 140), (16,)]
    initial = [ops.cast(rng.normal(size=s).astype("float32"), dtype) for s in shapes]
    grads = [ops.cast(rng.normal(size=s).astype("float32"), dtype) for s in shapes]
    wide = run_ours(
        [ops.convert_to_numpy(ops.cast(value, "float32")) for value in initial],
        [[ops.convert_to_numpy(ops.cast(g, "float32")) for g in grads]],
        learning_rate=0.01,
    )
    variables = [keras.Variable(value, dtype=dtype) for value in initial]
    optimizer = Adafactor(0.01)
    optimizer.apply(grads, variables)
    for variable, expected in zip(variables, wide, strict=True):
        assert keras.backend.standardize_dtype(variable.dtype) == dtype
        rounded = ops.cast(ops.cast(expected, dtype), "float32")
        np.testing.assert_array_equal(
            ops.convert_to_numpy(ops.cast(variable, "float32")), ops.convert_to_numpy(rounded)
        )
        for slot in optimizer.slots_of(variable).values():
            assert keras.backend.standardize_dtype(slot.dtype) == "float32"


@pytest.mark.one_backend
def test_zero_gradients_leave_finite_state_and_the_parameter():
    variables = [keras.Variable(np.ones(shape, "float32")) for shape in [(128, 128), (5,)]]
    optimizer = Adafactor(0.01)
    for _ in range(3):
        optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    for variable in variables:
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), 1.0)
        for slot in optimizer.slots_of(variable).values():
            np.testing.assert_allclose(ops.convert_to_numpy(slot), 1e-30, rtol=1e-5)


def test_parameter_at_zero_moves():
    (result,) = run_ours([np.zeros(4, "float32")], [[np.ones(4, "float32")]], learning_rate=0.5)
    np.testing.assert_allclose(result, -0.5 * 1e-3, rtol=1e-6)


@pytest.mark.one_backend
def test_weight_decay_and_clipping_are_keras_own():
    initial, gradient = np.full(4, 2.0, "float32"), np.full(4, 8.0, "float32")
    (plain,) = run_ours([initial], [[gradient]], learning_rate=0.1)
    (decayed,) = run_ours([initial], [[gradient]], learning_rate=0.1, weight_decay=0.5)
    # Keras decays first, so the parameter's scale is that of the decayed parameter.
    np.testing.assert_allclose(plain, 2.0 * 0.9, rtol=1e-6)
    np.testing.assert_allclose(decayed, 2.0 * 0.95 * 0.9, rtol=1e-6)
    for clip in ("clipnorm", "global_clipnorm"):
        variable = keras.Variable(initial)
        optimizer = Adafactor(0.1, **{clip: 1.0})
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        slot = ops.convert_to_numpy(optimizer.slots_of(variable)["v"])
        np.testing.assert_allclose(slot, 0.25, rtol=1e-5)


@pytest.mark.one_backend
def test_ema_keeps_an_average():
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer = Adafactor(0.1, use_ema=True, ema_momentum=0.5)
    optimizer.apply([ops.ones(3)], [variable])
    optimizer.finalize_variable_values([variable])
    assert 0.0 < float(variable[0]) < 1.0


def test_config_round_trip_in_safe_mode():
    optimizer = Adafactor(
        InverseSquareRoot(7, 3),
        decay_rate=0.7,
        clipping_threshold=None,
        epsilon1=1e-20,
        epsilon2=1e-2,
        min_dim_size_to_factor=64,
        multiply_by_parameter_scale=False,
        weight_decay=0.1,
    )
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(restored, Adafactor)
    assert restored.get_config() == optimizer.get_config()


def test_saved_model_resumes_where_it_was(tmp_path):
    def data():
        rng = np.random.default_rng(6)
        return rng.normal(size=(8, 130)).astype("float32"), rng.normal(size=(8, 140))

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((130,)), keras.layers.Dense(140)])
    model.compile(Adafactor(InverseSquareRoot(5)), loss="mse")
    model.fit(*data(), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    for network in (model, restored):
        network.fit(*data(), epochs=2, verbose=0)
    for a, b in zip(model.variables, restored.variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {"decay_rate": 0.0},
        {"clipping_threshold": -1.0},
        {"epsilon1": 0.0},
        {"epsilon2": float("nan")},
        {"min_dim_size_to_factor": 0},
    ],
)
def test_bad_arguments_are_named(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Received: {name}="):
        Adafactor(0.01, **arguments)


@tensorflow_only
def test_lookup_gradients_with_repeated_rows():
    import tensorflow as tf

    table = np.random.default_rng(7).normal(size=(6, 3)).astype("float32")
    ids = [4, 1, 4, 4]
    results = []
    for sparse in (True, False):
        variable = keras.Variable(table)
        with tf.GradientTape() as tape:
            rows = tf.gather(variable.value, ids)
            loss = tf.reduce_sum(rows * tf.range(1.0, 13.0)[:, None][:4])
        gradient = tape.gradient(loss, variable.value)
        assert isinstance(gradient, tf.IndexedSlices)
        gradient = gradient if sparse else tf.convert_to_tensor(gradient)
        optimizer = Adafactor(0.1)
        optimizer.apply([gradient], [variable])
        results.append(variable.numpy())
    np.testing.assert_array_equal(*results)
    assert np.any(results[0][4] != table[4])
    np.testing.assert_array_equal(results[0][0], table[0])


@tensorflow_only
@pytest.mark.slow
def test_many_steps_in_one_function_under_a_mirrored_strategy(tmp_path):
    shapes = [(128, 130), (6, 3), (4,)]
    initial, grads = parameters(shapes), gradients(shapes, 6, seed=8)
    stacked = [np.stack(arrays) for arrays in zip(*grads, strict=True)]
    arrays = {f"value_{i}": value for i, value in enumerate(initial)}
    arrays |= {f"gradient_{i}": value for i, value in enumerate(stacked)}
    np.savez(tmp_path / "input.npz", **arrays)
    module = "tests.keras_fusion.optimizers.mirrored_worker"
    command = [sys.executable, "-m", module, "2"]
    command += [str(tmp_path / "input.npz"), str(tmp_path / "output.npz")]
    root = pathlib.Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = run_optax(
        initial, grads, learning_rate=lambda n: 1 / jnp.sqrt(jnp.maximum(1.0 * n, 2.0))
    )
    with np.load(tmp_path / "output.npz") as result:
        for name, value in zip(result.files, expected, strict=True):
            np.testing.assert_allclose(result[name], value, rtol=1e-5, atol=1e-6)
