"""The private names of Keras that the project uses do what it expects of them."""

import keras
import numpy as np
import pytest

from keras_fusion import _keras


def model():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))


def test_children_and_layers_in():
    block = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")], name="block")
    outer = keras.Sequential([keras.Input((3,)), block, keras.layers.Dense(1, name="b")])
    assert [layer.name for layer in _keras.children(outer)][1:] == ["block", "b"]
    names = [layer.name for layer in _keras.layers_in(outer)]
    assert names[0] == outer.name and {"block", "a", "b"} <= set(names)


def test_seed_generators():
    assert len(_keras.seed_generators(keras.layers.Dropout(0.5))) == 1
    assert not _keras.seed_generators(keras.layers.Dense(2))


def test_class_to_make():
    class Own(keras.Model):
        pass

    class Sized(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((3,))
            super().__init__(inputs, keras.layers.Dense(units)(inputs))

    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2)(inputs)
    stack = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    plain = _keras.class_to_make(keras.Model(inputs, outputs))
    assert isinstance(plain(inputs, outputs, name="a"), keras.Model)
    assert _keras.class_to_make(Own(inputs, outputs)) is Own
    assert _keras.class_to_make(Sized(2)) is plain
    assert _keras.class_to_make(stack) is keras.Sequential


def test_masks_of_symbolic_tensors():
    tokens = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(4, 2, mask_zero=True)(tokens)
    assert _keras.mask_of(tokens) is None and _keras.mask_of(x[:, :2]) is None
    assert _keras.mask_of(x).shape == (None, 3)
    cut = keras.ops.take(x, [1, 0], axis=-1)
    _keras.set_mask(cut, _keras.mask_of(x))
    assert _keras.mask_of(keras.layers.Dense(2)(cut)) is _keras.mask_of(x)


def test_deferred_variables_hold_nothing_until_they_are_initialized():
    with _keras.deferred():
        layer = keras.layers.Embedding(10**9, 10**6)
        small = keras.layers.Dense(2)
        layer.build()
        small.build((None, 3))
    assert layer.embeddings.shape == (10**9, 10**6)
    with keras.StatelessScope():
        pass
    assert _keras.value_of(small.kernel) is None
    assert _keras.initializer_of(small.kernel) is not None
    _keras.initialize(small.kernel, keras.initializers.Constant(2.0))
    _keras.initialize(small.bias)
    assert _keras.initializer_of(small.kernel) is None
    np.testing.assert_array_equal(small.get_weights()[0], np.full((3, 2), 2.0))
    np.testing.assert_array_equal(small.get_weights()[1], np.zeros(2))


def test_functional_models_are_known_from_others():
    class OwnCall(keras.Sequential):
        def call(self, inputs):
            return inputs

    class Subclassed(keras.Model):
        pass

    assert _keras.is_functional(model())
    assert _keras.is_functional(keras.Sequential([keras.Input((1,))]))
    assert not _keras.is_functional(OwnCall([keras.Input((1,))]))
    assert not _keras.is_functional(Subclassed())
    assert not _keras.is_functional(keras.layers.Dense(1))


def test_nodes_have_operation_arguments_and_outputs():
    functional = model()
    entry, call = _keras.nodes(functional)
    assert entry.is_input and not call.is_input
    assert call.operation.name == "head"
    assert call.arguments.args == (functional.inputs[0],) and call.arguments.kwargs == {}
    assert call.outputs == functional.outputs


def test_structures():
    inputs = {"a": keras.Input((1,), name="a"), "b": keras.Input((1,), name="b")}
    functional = keras.Model(inputs, [keras.layers.Add()([inputs["a"], inputs["b"]])])
    into, out = _keras.structures(functional)
    assert set(into) == {"a", "b"} and isinstance(out, list)


def test_compile_arguments_are_those_that_were_given():
    functional = model()
    assert _keras.compile_arguments(functional) is None
    loss = lambda target, output: 0.0  # noqa: E731
    functional.compile("sgd", loss, metrics=["mae"])
    arguments = _keras.compile_arguments(functional)
    assert arguments["loss"] is loss and arguments["metrics"] == ["mae"]


def test_adam_slots():
    functional = model()
    optimizer = keras.optimizers.AdamW()
    optimizer.build(functional.trainable_variables)
    kernel = functional.get_layer("head").kernel
    assert [slot.shape for slot in _keras.adam_slots(optimizer, kernel)] == [(3, 2)] * 2


def test_own_variables_are_those_of_no_sublayer():
    norm = keras.layers.BatchNormalization()
    outer = keras.Sequential([keras.Input((3,)), norm])
    assert _keras.own_variables(outer) == []
    names = [variable.name for variable in _keras.own_variables(norm)]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_kept_initializers_give_no_variable_a_value():
    with _keras.kept_initializers():
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        optimizer = keras.optimizers.SGD(0.1)
    assert _keras.value_of(layer.kernel) is None
    assert _keras.value_of(optimizer.iterations) is not None
    _keras.initialize(layer.kernel, keras.initializers.Constant(2.0))
    np.testing.assert_array_equal(layer.kernel, np.full((3, 2), 2.0))
    after = keras.layers.Dense(2)
    after.build((None, 3))
    assert _keras.value_of(after.kernel) is not None


def test_set_value_forgets_the_initializer():
    with _keras.deferred():
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
    value = keras.ops.ones((2,))
    _keras.set_value(layer.bias, value)
    assert _keras.value_of(layer.bias) is value
    assert _keras.initializer_of(layer.bias) is None


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="shardings are JAX's")
def test_assigned_values_go_where_the_sharding_says():
    import jax

    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
    _keras.set_sharding(layer.bias, sharding)
    layer.bias.assign(np.ones(2, np.float32))
    assert layer.bias.value.sharding == sharding


def test_an_optimizer_that_sums_no_gradients_applies_them_as_they_are():
    optimizer = keras.optimizers.SGD(1.0)
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    pairs = [(keras.ops.ones((2,)), layer.bias)]
    if keras.backend.backend() == "tensorflow":
        _keras.sum_no_gradients(optimizer)
        assert optimizer._all_reduce_sum_gradients(pairs) is pairs
    optimizer.apply_gradients(pairs)
    np.testing.assert_array_equal(layer.bias, -np.ones(2))


def test_the_configuration_of_an_optimizer_holds_its_schedule():
    class Own(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    optimizer = keras.optimizers.SGD(Own(), momentum=0.5)
    schedule = _keras.optimizer_config(optimizer)["learning_rate"]
    assert (
        isinstance(schedule, Own)
        and schedule is _keras.optimizer_config(optimizer)["learning_rate"]
    )
    assert _keras.optimizer_config(keras.optimizers.SGD(0.25))["learning_rate"] == 0.25


def test_node_of_is_the_call_that_made_a_tensor():
    functional = model()
    assert _keras.node_of(functional.outputs[0]) is _keras.nodes(functional)[1]
