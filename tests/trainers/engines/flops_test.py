"""FLOPs of a step against a count by hand and against the products of the graph that runs."""

import math

import pytest
import tensorflow as tf

import keras_fusion as kf
from trainers.engines.flops import planned_step_flops, step_flops
from trainers.engines.losses import loss_sums
from trainers.engines.state import state_variables

BATCH, ENCODER, DECODER = 2, 12, 5
V1_0 = {"tie_embedding_weights": True, "use_gated_activation": False, "activation": "relu"}


def config(**fields):
    sizes = {
        "vocabulary_size": 128,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "key_value_dim": 4,
        "intermediate_dim": 16,
    }
    return kf.models.T5Config(**(sizes | fields))


def product_flops(graph):
    """FLOPs of all matrix products in a graph, but for its einsums: those of position biases.

    These are lookups in a table, written as products.
    """
    total = 0
    for operation in graph.get_operations():
        if operation.type == "MatMul":
            rows, columns = operation.outputs[0].shape
            inner = operation.inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
            total += 2 * rows * columns * inner
        elif operation.type in ("BatchMatMul", "BatchMatMulV2"):
            inner = operation.inputs[0].shape[-2 if operation.get_attr("adj_x") else -1]
            total += 2 * math.prod(operation.outputs[0].shape) * inner
    return total


def measured(model):
    """FLOPs of the products of one forward pass, and of one with its gradients."""
    tokens = {
        "encoder_token_ids": tf.zeros((BATCH, ENCODER), tf.int32),
        "decoder_token_ids": tf.zeros((BATCH, DECODER), tf.int32),
    }

    def forward():
        return loss_sums(model(tokens, training=False), tf.ones((BATCH, DECODER), tf.int32)).loss

    def step():
        with tf.GradientTape() as tape:
            loss = forward()
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    functions = [tf.function(f).get_concrete_function() for f in (forward, step)]
    return [product_flops(function.graph) for function in functions]


@pytest.mark.parametrize(
    "fields",
    [{}, pytest.param(V1_0, marks=pytest.mark.slow)],  # what is planned is compared with both
    ids=["v1.1", "v1.0"],
)
def test_counts_the_products_that_the_graph_has(fields):
    model = kf.models.T5(config(**fields), seed=0)
    flops = step_flops(model, BATCH, ENCODER, DECODER)
    forward, step = measured(model)
    assert flops.forward == forward
    assert flops.total == pytest.approx(step, rel=0.03)


def test_counts_a_fused_model_with_its_zero_blocks():
    small = kf.models.T5(config(), seed=0)
    big = small.fuse(kf.models.T5(config(), seed=1))
    forward, _ = measured(big)
    assert step_flops(big, BATCH, ENCODER, DECODER).forward == forward
    plain = kf.models.T5(config(hidden_dim=16, num_heads=4, intermediate_dim=32), seed=0)
    assert step_flops(big, 1, 3, 2) == step_flops(plain, 1, 3, 2)


def test_equals_a_count_by_hand():
    model = kf.models.T5(config(), seed=0)
    flops = step_flops(model, 3, ENCODER, DECODER)
    projection = 8 * 8  # hidden x (heads x key_value)
    mlp = 3 * 8 * 16
    encoder = 12 * (4 * projection + mlp)
    decoder = 5 * (4 * projection + 2 * projection + mlp + 8 * 128) + 12 * 2 * projection
    scores = 12 * 12 * 8 + 5 * 5 * 8 + 5 * 12 * 8
    assert flops.weights == 3 * 2 * (encoder + decoder)
    assert flops.attention == 3 * 2 * 2 * scores
    assert flops.total == 3 * (flops.weights + flops.attention)


def test_says_how():
    flops = step_flops(kf.models.T5(config(), seed=0), 1, 1, 1)
    assert "2 FLOPs for each entry of a matrix" in flops.method
    assert "\n" not in flops.method


def test_weights_without_a_sum_cost_nothing():
    model = kf.models.T5(config(), seed=0)
    matrices = [v for name, v in state_variables(model).items() if name.endswith("kernel")]
    flops = step_flops(model, 1, 1, 1)
    assert flops.weights == 2 * sum(math.prod(v.shape) for v in matrices)


@pytest.mark.parametrize(
    "fields",
    [{"num_layers": 2}, {"use_gated_activation": False, "tie_embedding_weights": True}],
)
def test_what_is_planned_is_what_a_model_costs(fields):
    model_config = config(**fields)
    counted = step_flops(kf.models.T5(model_config, seed=0), BATCH, ENCODER, DECODER)
    assert planned_step_flops(model_config, BATCH, ENCODER, DECODER) == counted.total
