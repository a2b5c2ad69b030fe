"""Devices that can be asked for, and those that are refused before anything is read."""

import keras
import pytest

import keras_fusion as kf
from trainers.engines.base import StepOptions
from trainers.engines.devices import Devices, MeshEngines, engine_factory
from trainers.engines.mesh import Layout, MeshShape
from trainers.errors import UserError

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"strategy": "parameter_server"}, "Received: strategy='parameter_server'"),
        ({"tpu": "local", "strategy": "mirrored"}, "tpu='local', strategy='mirrored'"),
        ({"microbatches": 0}, "Received: microbatches=0"),
        ({"mesh_shape": "batch"}, "mesh_shape='batch'"),
        ({"mesh_shape": "batch:0"}, "mesh_shape='batch:0'"),
        ({"layout": "heads"}, "layout='heads'"),
        ({"layout": "heads:model,heads:batch"}, "with heads on model and on batch"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(asked, text):
    with pytest.raises(UserError) as error:
        Devices(**asked)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="what TensorFlow cannot do")
@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ({"mesh_shape": "batch:1,model:1"}, "--mesh_shape"),
        ({"layout": "heads:model"}, "--layout"),
        ({"parallel_stages": True}, "--parallel_stages"),
    ],
)
def test_tensorflow_refuses_a_mesh_and_says_why(asked, flag):
    with pytest.raises(UserError, match=f"JAX backend for {flag}.*has no effect"):
        engine_factory(Devices(**asked))


@pytest.mark.skipif(ON_TENSORFLOW, reason="what JAX cannot do")
def test_jax_refuses_a_tensorflow_strategy():
    with pytest.raises(UserError, match="--strategy=mirrored.*KERAS_BACKEND=tensorflow"):
        engine_factory(Devices(strategy="mirrored"))


@pytest.mark.skipif(ON_TENSORFLOW, reason="JAX engines")
def test_the_whole_machine_is_the_default_mesh():
    import jax

    assert engine_factory(Devices())(StepOptions()).num_devices == len(jax.devices())
    assert engine_factory(Devices(strategy="one_device"))(StepOptions()).num_devices == 1


@pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow engines")
def test_engines_of_a_run_share_one_strategy():
    make = engine_factory(Devices(strategy="mirrored"))
    options = StepOptions(clip_norm=1.0)
    assert make(options).strategy is make(options).strategy
    assert engine_factory(Devices(strategy="one_device"))(options).num_devices == 1


@pytest.mark.parametrize(
    ("mesh", "layout", "batch", "text"),
    [
        ("model:3", None, 8, "Take 1 or 2"),
        ("batch:3", None, 8, "batch_size=8, mesh_shape='batch:3'"),
        ("model:2", "width:model", 8, "with width"),
        ("model:2", "heads:model,hidden:model", 8, "hidden and heads of"),
    ],
)
def test_a_mesh_is_checked_with_the_models_before_they_are_trained(mesh, layout, batch, text):
    shape = MeshShape.parse(mesh)
    engines = MeshEngines(shape, layout and Layout.parse(layout), tuple(range(shape.size)))
    with pytest.raises(UserError) as error:
        engines.check([kf.models.T5Config.from_size("tiny_s", vocabulary_size=512)], batch)
    assert text in str(error.value)


def test_a_mesh_that_fits_is_let_through():
    engines = MeshEngines(MeshShape.parse("batch:4,model:2"), None, tuple(range(8)))
    engines.check([kf.models.T5Config.from_size("t5_l")], 256)
