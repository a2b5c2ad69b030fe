"""Steps of a device compile with XLA: static shapes, nothing of the host, the same numbers.

A TPU runs nothing else, so this is as near as a processor comes to one.
"""

import keras
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.models import generation
from tests.keras_fusion.models import tiny
from trainers.engines.base import StepOptions

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the engine of the tensorflow backend"
)

# Operations that ask the host, or whose result has a shape that depends on the values.
HOST_ONLY = {
    "Assert",
    "DynamicPartition",
    "EagerPyFunc",
    "ListDiff",
    "Print",
    "PrintV2",
    "PyFunc",
    "PyFuncStateless",
    "RandomShuffle",
    "StringFormat",
    "Unique",
    "UniqueV2",
    "UniqueWithCounts",
    "UniqueWithCountsV2",
    "Where",
}
CLIPPED_IN_MICROBATCHES = StepOptions(clip_norm=0.1, microbatches=2)
BATCH = tiny.batch(padding=True, targets=True, size=4)


def steps_of(options, dropout=0.0):
    """The steps of one replica, with a fresh nano T5."""
    from trainers.engines.tensorflow_steps import ReplicaSteps

    model = tiny.model(dropout=dropout, num_layers=1)
    # Factored slots also at this size.
    optimizer = kf.optimizers.Adafactor(0.01, min_dim_size_to_factor=8)
    optimizer.build(model.trainable_variables)
    return ReplicaSteps(model, optimizer, options, num_replicas=1)


def tensors(arguments):
    import tensorflow as tf

    return tf.nest.map_structure(tf.convert_to_tensor, arguments)


def concrete(function, *arguments, jit_compile=True):
    """The function as one graph for these arguments, and its results."""
    import tensorflow as tf

    arguments = tensors(arguments)
    function = tf.function(function, jit_compile=jit_compile).get_concrete_function(*arguments)
    return function, lambda: function(*arguments)


def nodes(graph):
    """All nodes of a graph and of the functions that it calls."""
    definition = graph.as_graph_def()
    return [*definition.node, *(n for f in definition.library.function for n in f.node_def)]


def host_only(graph):
    """Names of the operations that only a host can do."""
    import tensorflow as tf

    strings = {n.op for n in nodes(graph) for a in n.attr.values() if a.type == tf.string}
    return {node.op for node in nodes(graph)} & HOST_ONLY | strings


def unknown_shapes(graph):
    return [
        f"{op.name}: {output.shape}"
        for op in graph.get_operations()
        for output in op.outputs
        if not output.shape.is_fully_defined()
    ]


def assert_is_for_a_device(function):
    assert len(nodes(function.graph)) > 100
    assert not host_only(function.graph)
    assert not unknown_shapes(function.graph)


def test_what_a_device_cannot_do_is_found():
    import tensorflow as tf

    def bad(x):
        tf.print(x)
        return tf.where(x > 0)

    function, _ = concrete(bad, np.ones(3, np.float32), jit_compile=False)
    assert {"PrintV2", "StringFormat", "Where"} <= host_only(function.graph)
    assert any("Where" in name for name in unknown_shapes(function.graph))
    loop, _ = concrete(
        lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: (bad(y), y)[1:], (x,)),
        np.ones(3, np.float32),
        jit_compile=False,
    )
    assert "Where" in host_only(loop.graph)


def test_training_step_is_for_a_device():
    function, _ = concrete(steps_of(StepOptions(), 0.1).train, BATCH, 14.0)
    assert_is_for_a_device(function)


@pytest.mark.slow  # compiling is most of it; the evaluation step below compiles
def test_training_step_is_for_a_device_and_gives_the_same_weights():
    def values(steps, sums):
        weights = (v.numpy() for v in (*steps.model.weights, *steps.optimizer.variables))
        return [*weights, *(value.numpy() for value in sums)]

    plain, compiled = (steps_of(CLIPPED_IN_MICROBATCHES) for _ in range(2))
    sums, *_ = plain.train(tensors(BATCH), 14.0)
    function, run = concrete(compiled.train, BATCH, 14.0)
    assert_is_for_a_device(function)
    sums_of_run, *_ = run()
    for value, right in zip(values(compiled, sums_of_run), values(plain, sums), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)


@pytest.mark.slow  # the first test of a step has dropout, the one above compiles
def test_training_step_with_dropout_compiles():
    steps = steps_of(CLIPPED_IN_MICROBATCHES, dropout=0.5)
    seeds = [v.numpy() for v in steps.model.non_trainable_variables]
    function, run = concrete(steps.train, BATCH, 14.0)
    assert_is_for_a_device(function)
    sums, *_ = run()
    assert np.isfinite(sums.loss.numpy())
    after = [v.numpy() for v in steps.model.non_trainable_variables]
    assert seeds
    assert not any(np.array_equal(a, b) for a, b in zip(seeds, after, strict=True))


def test_evaluation_step_is_for_a_device_and_gives_the_same_sums():
    steps = steps_of(StepOptions())
    function, run = concrete(steps.evaluate, BATCH)
    assert_is_for_a_device(function)
    (plain,), (compiled,) = steps.evaluate(tensors(BATCH)), run()
    np.testing.assert_allclose([v.numpy() for v in compiled], [v.numpy() for v in plain], rtol=1e-6)


@pytest.mark.slow  # generation_test.py runs the same graph
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_k": 3}])
def test_decoding_is_for_a_device_and_gives_the_same_tokens(sampling):
    tokens, mask = BATCH["encoder_token_ids"], BATCH["encoder_padding_mask"]
    model = tiny.model(num_layers=1)
    decode = generation.decoding(model, max_length=6, seed=1, **sampling)
    function, run = concrete(decode, tokens, mask)
    assert_is_for_a_device(function)
    if not sampling:  # XLA draws other random numbers.
        expected = model.generate(tokens, mask, max_length=6, seed=1)
        assert expected.shape == (4, 6)
        np.testing.assert_array_equal(run().numpy(), expected)


@pytest.mark.slow  # above, the graph of sampling has only what a device can do
def test_sampling_compiles():
    tokens, mask = BATCH["encoder_token_ids"], BATCH["encoder_padding_mask"]
    model = tiny.model(num_layers=1)
    decode = generation.decoding(model, max_length=6, seed=1, temperature=0.7, top_k=3)
    _, run = concrete(decode, tokens, mask)
    assert run().shape == (4, 6)
