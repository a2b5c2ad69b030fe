"""The rule that a collective is put down to, and the largest mesh."""

import pytest

import keras_fusion as kf
from trainers.engines.mesh import T5_LAYOUT, Layout, MeshShape
from trainers.mesh_costs import hlo, measure

MESH = MeshShape.parse("batch:2,model:2")


@pytest.fixture(scope="module")
def model():
    config = kf.models.T5Config(
        vocabulary_size=48,
        num_layers=1,
        num_heads=6,
        hidden_dim=8,
        key_value_dim=4,
        intermediate_dim=20,
    )
    return kf.models.T5(config, seed=0)


def program(groups, source):
    return hlo.Program(
        "HloModule jit_f, num_partitions=4\n\n"
        "ENTRY %main (p: f32[4]) -> f32[4] {\n"
        f'  %p = f32[4]{{0}} parameter(0), metadata={{op_name="{source}"}}\n'
        f"  ROOT %r = f32[4]{{0}} all-reduce(%p), replica_groups={groups}\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("groups", "source", "dims", "rule"),
    [
        ("{{0,1},{2,3}}", "jvp(encoder)/block_0/query/dot_general", "model", "heads:model"),
        ("{{0,1},{2,3}}", "jvp(decoder)/output_projector/dot_general", "model", "mlp:model"),
        ("{{0,1},{2,3}}", "jvp(token_embedding)/gather", "model", "vocab:model"),
        ("{{0,1},{2,3}}", "reduce_sum", "model", "no rule"),
        ("{{0,2},{1,3}}", "jvp(encoder)/block_0/query/dot_general", "batch", "batch:batch"),
        ("{{0,1,2,3}}", "jvp(encoder)/block_0/query/dot_general", "batch+model", "heads:model"),
        ("{{0,1,2,3}}", "reduce_sum", "batch+model", "batch:batch"),
    ],
)
def test_layer_and_mesh_dim_say_which_rule(model, groups, source, dims, rule):
    rules = measure.rules_of_layers(model, T5_LAYOUT)

    (transfer,) = measure.traffic(program(groups, source), MESH, rules)

    assert (transfer.kind, transfer.dims, transfer.rule) == ("all-reduce", dims, rule)
    assert transfer.operations == 1


def test_collective_of_one_device_sends_nothing(model):
    rules = measure.rules_of_layers(model, T5_LAYOUT)

    assert measure.traffic(program("{{0},{1},{2},{3}}", "query"), MESH, rules) == ()


@pytest.mark.parametrize(
    ("layout", "largest"),
    [
        (T5_LAYOUT, {"batch": 32, "model": 2}),  # of 6 heads, 20 of the MLP, 48 tokens
        (Layout.parse("heads:model,vocab:model"), {"model": 6}),
        (Layout.parse("batch:rows,mlp:model"), {"rows": 32, "model": 20}),
        (Layout.parse("batch:batch"), {"batch": 32}),
    ],
)
def test_largest_mesh_divides_all_that_is_sent_to_a_dim(model, layout, largest):
    assert measure.largest_mesh(model, layout, rows=32) == largest
