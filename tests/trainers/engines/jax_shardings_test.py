"""Parts of the weights on a mesh, as the layout says; of given arrays only those are read."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the engine of the jax backend", allow_module_level=True)

import jax

import keras_fusion as kf
from tests.trainers.engines import jax_engines as engines
from tests.trainers.engines import jax_support as support
from trainers.engines import sharding
from trainers.engines.jax import JaxEngine


def test_weights_and_slots_are_split_as_the_layout_says():
    engine = engines.trained()[0]
    query = next(name for name in engine.variables if name.endswith("attention/query/kernel"))
    path = query.removeprefix("model/")
    expected = {
        query: (16, 4),
        query.replace("query", "attention_output"): (4, 16),
        f"optimizer/{path}/r": (16, 1),
        f"optimizer/{path}/c": (1, 4),
        f"optimizer/{path.replace('query', 'attention_output')}/r": (4, 1),
        "model/token_embedding/embeddings": (8, 16),
        "model/head/kernel": (16, 8),
        "optimizer/head/kernel/r": (16, 1),
        "optimizer/head/kernel/c": (1, 8),
        "model/encoder/position_bias/table": (32, 1),
        "optimizer/encoder/position_bias/table/v": (32, 1),
        "model/encoder/final_norm/scale": (16,),
        "optimizer/iteration": (),
    }
    assert {name: engines.shards(engine.variables[name]) for name in expected} == {
        name: {shape} for name, shape in expected.items()
    }
    # Both rows of the mesh hold all of them: the batch splits no weight.
    assert len(engine.variables[query].value.addressable_shards) == 8


def test_slots_of_adam_are_split_like_their_weights():
    engine, _, _ = engines.of_another_layout()
    assert engines.shards(engine.variables["model/head/kernel"]) == {(8, 32)}
    for slot in ("momentum", "velocity"):
        assert engines.shards(engine.variables[f"optimizer/head/kernel/{slot}"]) == {(8, 32)}


def test_another_layout_splits_other_axes():
    engine, _, _ = engines.of_another_layout()
    assert tuple(engine.shardings["model/head/kernel"].spec) == ("model", None)
    assert tuple(engine.shardings["model/encoder/final_norm/scale"].spec) == ("model",)


@pytest.mark.slow  # In make test, the bytes of mesh_report_test.py leave no room for a gather.
def test_logits_are_nowhere_gathered():
    engine = support.compiled(JaxEngine("model:2"))
    shapes = {name: value.shape for name, value in support.Batches().batch(0).items()}
    program = engine.lower(shapes, 2).compile().as_text()
    # A device has half of the vocabulary, and never all of a (rows, length, vocabulary) array.
    assert f"f32[{support.ROWS},7,{support.VOCABULARY // 2}]" in program
    assert f"[{support.ROWS},7,{support.VOCABULARY}]" not in program


def test_a_step_is_lowered_without_a_value_anywhere():
    config = kf.models.T5Config(
        vocabulary_size=2**20, num_layers=1, num_heads=64, hidden_dim=2**16, intermediate_dim=2**18
    )
    engine = JaxEngine(engines.LARGEST)
    held = len(jax.live_arrays())
    with engine.scope():
        model = kf.models.T5(config, seed=0)
        optimizer = kf.optimizers.Adafactor(0.01)
    engine.compile(model, optimizer)
    shapes = {name: (16, 64) for name in ("encoder_token_ids", "decoder_token_ids", "targets")}
    assert engine.lower(shapes).args_info
    assert len(jax.live_arrays()) <= held + 2  # iteration and learning rate
    assert sum(shape.size for shape in engine.state_shapes().weights) > 2e11


class Sliced:
    """An array that keeps what was read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return self.array[index]


def test_only_slices_of_given_arrays_are_read():
    largest = engines.largest()
    state = {name: Sliced(value) for name, value in largest.state().items()}
    largest.load_state(state)
    head = state["model/head/kernel"]
    # Once for each shard, though two devices hold it.
    assert sorted(index[1].indices(32)[:2] for index in head.read) == [
        (start, start + 8) for start in (0, 8, 16, 24)
    ]
    assert [index[0].indices(16)[:2] for index in head.read] == [(0, 16)] * 4


def test_a_model_made_of_arrays_reads_only_slices():
    config = support.config()
    weights = {
        path: Sliced(np.array(variable.value))
        for path, (variable, _) in sharding.declared_weights(kf.models.T5(config, seed=3)).items()
    }
    engine = JaxEngine(engines.LARGEST)
    with engine.scope():
        model = kf.models.T5.from_weights(config, weights, seed=0)
        optimizer = support.optimizer("adamw")
    engine.compile(model, optimizer)
    assert not any(rows.read for rows in weights.values())
    state = engine.state()
    np.testing.assert_array_equal(state["model/head/kernel"], weights["head/kernel"].array)
    for name, size in (("head/kernel", 8), ("token_embedding/embeddings", 8)):
        assert [weights[name].array[i].size for i in weights[name].read] == [16 * size] * 4
