"""Mesh TensorFlow's syntax, and what named axes make of it; no device is needed."""

import keras
import pytest

import keras_fusion as kf
from trainers.engines import sharding
from trainers.engines.mesh import T5_LAYOUT, Layout, MeshShape, check_devices
from trainers.errors import UserError


@pytest.fixture(scope="module")
def t5():
    """Six heads of size 4, as few as tell heads from a joined axis."""
    return kf.models.T5(
        kf.models.T5Config(
            vocabulary_size=64,
            num_layers=1,
            num_heads=6,
            hidden_dim=8,
            intermediate_dim=36,
            key_value_dim=4,
        ),
        seed=0,
    )


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and "Expected" in message and "Received: " in message
    return message


@pytest.mark.parametrize(
    "text", ["batch:2,model:4", "batch:2.model:4", "batch:2;model:4 ", " batch:2 model:4"]
)
def test_every_separator_of_mesh_tensorflow(text):
    shape = MeshShape.parse(text)
    assert shape.dims == (("batch", 2), ("model", 4))
    assert shape.size == 8
    assert (shape.along("model"), shape.along("other"), str(shape)) == (4, 1, "batch:2,model:4")


@pytest.mark.parametrize(
    "text",
    ["", "batch", "batch:", ":2", "batch:2:3", "batch:two", "batch:0", "model:-1", "a:1,a:2"],
)
def test_meshes_that_are_none(text):
    with pytest.raises(UserError) as error:
        MeshShape.parse(text)
    assert "batch:2,model:4" in one_line(error)


def test_layout_knows_mesh_tensorflows_names():
    layout = Layout.parse("batch:batch,d_ff:model;d_model:other")
    assert [layout.dim(name) for name in ("batch", "mlp", "hidden", "heads")] == [
        "batch",
        "model",
        "other",
        None,
    ]
    assert Layout.parse("batch:batch,heads:model,mlp:model,vocab:model") == T5_LAYOUT
    assert Layout.parse(str(T5_LAYOUT)) == T5_LAYOUT


@pytest.mark.parametrize("text", ["", "heads", "heads:", "heads:model:2"])
def test_layouts_that_are_none(text):
    with pytest.raises(UserError) as error:
        Layout.parse(text)
    assert "heads:model" in one_line(error)


@pytest.mark.parametrize("text", ["heads:model,heads:batch", "mlp:model,d_ff:batch"])
def test_an_axis_on_two_mesh_dimensions(text):
    with pytest.raises(UserError, match="on model and on batch"):
        Layout.parse(text)


def test_weights_are_split_by_their_declared_axes(t5):
    specs = sharding.weight_specs(t5, MeshShape.parse("batch:2,model:2"))
    assert set(specs) == set(kf.layers.tree.weight_axes(t5))
    block = "encoder/block_0"
    expected = {
        f"{block}/self_attention/query/kernel": (None, "model"),
        f"{block}/self_attention/attention_output/kernel": ("model", None),
        f"{block}/feed_forward/gate_projector/kernel": (None, "model"),
        f"{block}/feed_forward/output_projector/kernel": ("model", None),
        f"{block}/feed_forward_norm/scale": (None,),
        "encoder/position_bias/table": (None, "model"),
        "token_embedding/embeddings": ("model", None),
        "head/kernel": (None, "model"),
    }
    assert {path: specs[path] for path in expected} == expected


def test_rules_without_a_mesh_dimension_have_no_effect(t5):
    # Nor do they clash: heads and hidden would, on a mesh with both.
    layout = Layout.parse("batch:batch,heads:model,hidden:model,vocab:rows")
    specs = sharding.weight_specs(t5, MeshShape.parse("batch:5"), layout)
    assert {dim for spec in specs.values() for dim in spec} == {None}


def test_names_alone_do_not_split(t5):
    mesh_shape = MeshShape.parse("model:2")
    plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="query")])
    assert sharding.weight_specs(plain, mesh_shape) == {}
    with pytest.raises(UserError, match="which are batch. Received"):
        sharding.weight_specs(plain, mesh_shape, T5_LAYOUT)


def test_a_rule_that_names_no_axis(t5):
    with pytest.raises(UserError) as error:
        sharding.weight_specs(
            t5, MeshShape.parse("model:2"), Layout.parse("head:model,heads:model")
        )
    message = one_line(error)
    assert "batch, buckets, heads, hidden, mlp, vocab" in message
    assert "with head." in message


@pytest.mark.parametrize(
    ("layout", "tensor"),
    [
        (
            "hidden:model,mlp:model",
            "hidden and mlp of encoder/block_0/feed_forward/input_projector",
        ),
        ("vocab:model,hidden:model", "vocab and hidden of token_embedding/embeddings"),
        ("buckets:model,heads:model", "buckets and heads of encoder/position_bias/table"),
        ("batch:model,heads:model", "batch and heads of activations (batch, heads)"),
    ],
)
def test_two_dimensions_of_a_tensor_on_one_mesh_dimension(t5, layout, tensor):
    with pytest.raises(UserError) as error:
        sharding.weight_specs(t5, MeshShape.parse("batch:1,model:2"), Layout.parse(layout))
    assert tensor in one_line(error)


def test_heads_are_not_split(t5):
    # The joined axis of 24 units has the divisor 4, six heads have not.
    assert sharding.axis_sizes(t5)["heads"] == 6
    with pytest.raises(UserError) as error:
        sharding.weight_specs(t5, MeshShape.parse("model:4"), Layout.parse("heads:model"))
    message = one_line(error)
    assert "heads=6" in message and "Take 1, 2, 3 or 6," in message
    lonely = kf.layers.FusableMultiHeadAttention(6, 4, use_bias=False)
    lonely.build((None, 3, 8), (None, 3, 8))
    assert sharding.axis_sizes(lonely)["heads"] == 6


def test_a_joined_axis_is_split_by_the_factor_that_has_the_name():
    layer = kf.layers.FusableDense(12, axes=["hidden", kf.Joined("units", after=4)])
    layer.build((None, 8))
    assert sharding.axis_sizes(layer) == {"hidden": 8, "units": 3}
    layout = Layout.parse("units:model")
    assert sharding.weight_specs(layer, MeshShape.parse("model:3"), layout) == {
        "kernel": (None, "model"),
        "bias": ("model",),
    }
    with pytest.raises(UserError) as error:
        sharding.weight_specs(layer, MeshShape.parse("model:4"), layout)
    assert "units=3" in one_line(error) and "Take 1 or 3," in one_line(error)


def test_a_joined_axis_in_several_runs_is_not_split():
    # Four gates of three units: a half of the dimension is two gates, not half of the units.
    layer = kf.layers.FusableDense(12, axes=["hidden", kf.Joined("units", before=4)])
    layer.build((None, 8))
    assert sharding.weight_specs(layer, MeshShape.parse("model:2"), Layout.parse("hidden:model"))
    with pytest.raises(UserError) as error:
        sharding.weight_specs(layer, MeshShape.parse("model:3"), Layout.parse("units:model"))
    message = one_line(error)
    assert "with units, of which kernel has 4 runs" in message and "Leave out the rule" in message


@pytest.mark.parametrize(
    ("axis", "size", "fits"),
    [("mlp", 36, "1, 2, 3, 4, 6, 9, 12, 18 or 36"), ("hidden", 8, "1, 2, 4 or 8")],
)
def test_sizes_that_do_not_divide_name_those_that_do(t5, axis, size, fits):
    with pytest.raises(UserError) as error:
        sharding.weight_specs(t5, MeshShape.parse("model:5"), Layout.parse(f"{axis}:model"))
    message = one_line(error)
    assert f"{axis}={size}" in message and f"Take {fits}," in message


def test_divisors_suit_every_axis_on_the_dimension(t5):
    with pytest.raises(UserError) as error:
        sharding.weight_specs(t5, MeshShape.parse("model:4"))
    assert "heads=6" in one_line(error) and "Take 1 or 2," in one_line(error)


def test_a_batch_that_does_not_divide():
    shape = MeshShape.parse("batch:4,model:2")
    assert sharding.check_batch(12, shape, T5_LAYOUT) == 3
    assert sharding.check_batch(7, shape, Layout.parse("heads:model")) == 7
    with pytest.raises(UserError) as error:
        sharding.check_batch(6, shape, T5_LAYOUT)
    message = one_line(error)
    assert "batch_size=6" in message and "multiple of 4" in message and "1, 2, 3 or 6" in message


def test_more_devices_than_there_are():
    with pytest.raises(UserError) as error:
        check_devices(MeshShape.parse("batch:4,model:2"), 2)
    assert "XLA_FLAGS=--xla_force_host_platform_device_count=8" in one_line(error)


@pytest.mark.parametrize(
    ("spec", "shape", "slot", "expected"),
    [
        (("batch", "model"), (8, 16), (8, 16), ("batch", "model")),
        (("batch", "model"), (8, 16), (8, 1), ("batch", None)),
        (("batch", "model"), (8, 16), (1, 16), (None, "model")),
        (("model",), (8,), (), ()),
        (("model",), (8,), (8, 2), (None, None)),
    ],
)
def test_slots_are_split_like_their_weights(spec, shape, slot, expected):
    assert sharding.slot_spec(spec, shape, slot) == expected
