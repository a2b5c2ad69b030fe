"""The engine on a mesh: numbers of one device, shardings of the layout, state of both backends."""

import functools
import subprocess
import threading

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the engine of the jax backend", allow_module_level=True)

import jax
import jax.numpy as jnp

import keras_fusion as kf
from tests.trainers.engines import jax_support as support
from tests.trainers.engines.equality_support import free_ports
from tests.trainers.training import loop_support
from trainers.checkpoints import tensors
from trainers.engines import sharding
from trainers.engines.base import Engine, StepOptions
from trainers.engines.jax import JaxEngine
from trainers.engines.state import state_variables
from trainers.errors import UserError

# The largest has every kind of split; the others show where a fault comes from.
LARGEST = "batch:2,model:4"
SMALLER = ["batch:1,model:1", "batch:2,model:1", "batch:1,model:2"]
STEPS = 6


def make(mesh=LARGEST, case="adafactor", **options):
    return support.compiled(JaxEngine(mesh, options=support.CASES[case][1]), case, **options)


def steps(engine, first, count):
    return engine.train(support.Batches().from_step(first), count)


@pytest.fixture(scope="module")
def engines():
    """Engines by (mesh, case), each compiled once and trained for STEPS steps."""
    results = {}

    def get(mesh, case="adafactor"):
        if (mesh, case) not in results:
            engine = make(mesh, case)
            start = engine.state()
            sums = steps(engine, 0, STEPS)
            results[mesh, case] = engine, start, sums, engine.state()
        return results[mesh, case]

    return get


@pytest.fixture(scope="module")
def other():
    """An engine with another layout and no dropout, after three steps: (engine, start, end)."""
    engine = JaxEngine("rows:2,model:2", "batch:rows,d_model:model")
    support.compiled(engine, "adamw", dropout=0.0)
    start = engine.state()
    steps(engine, 0, 3)
    return engine, start, engine.state()


@pytest.fixture
def largest(engines):
    """The engine on the largest mesh, in the state that it began in."""
    engine, start, _, _ = engines(LARGEST)
    engine.load_state(start)
    return engine


# ---- one device, without an engine ----


@pytest.fixture(scope="module")
def one_device():
    """`plain_training` by case, each trained once."""
    return functools.cache(plain_training)


def plain_training(case):
    """States before and after STEPS steps of an ordinary Keras model, its loss and its hits."""
    dropout, options = support.CASES[case]
    model = kf.models.T5(support.config(dropout), seed=0)
    optimizer = support.optimizer(case)
    optimizer.build(model.trainable_variables)
    variables = state_variables(model, optimizer)
    start = {name: np.array(variable.value) for name, variable in variables.items()}

    def losses(weights, others, batch):
        inputs = {name: value for name, value in batch.items() if name != "targets"}
        logits, others = model.stateless_call(weights, others, inputs, training=True)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        target = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
        counts = batch["targets"] != 0
        correct = jnp.sum(counts & (logits.argmax(-1) == batch["targets"]))
        return jnp.sum(counts * (log_z - target + 1e-4 * log_z**2)), (others, correct)

    @jax.jit
    def step(weights, others, slots, batch):
        parts, gradients, loss, correct = options.microbatches, None, 0.0, 0
        for part in range(parts):
            rows = {name: value[part::parts] for name, value in batch.items()}
            (more, (others, hits)), new = jax.value_and_grad(losses, has_aux=True)(
                weights, others, rows
            )
            loss, correct = loss + more, correct + hits
            gradients = (
                new if gradients is None else [a + b for a, b in zip(gradients, new, strict=True)]
            )
        gradients = [gradient / (batch["targets"] != 0).sum() for gradient in gradients]
        if options.clip_norm:
            norm = jnp.sqrt(sum((gradient**2).sum() for gradient in gradients))
            gradients = [gradient * min_one(options.clip_norm / norm) for gradient in gradients]
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return (weights, others, slots), (loss, correct)

    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = tuple([variable.value for variable in group] for group in groups)
    loss, correct = 0.0, 0
    for index in range(STEPS):
        state, (more, hits) = step(*state, support.Batches().batch(index))
        loss, correct = loss + float(more), correct + int(hits)
    for group, values in zip(groups, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)
    end = {name: np.array(variable.value) for name, variable in variables.items()}
    return start, end, loss, correct


def min_one(value):
    return jnp.minimum(value, 1.0)


@pytest.mark.parametrize(
    ("mesh", "case"),
    [(LARGEST, "adafactor"), pytest.param(LARGEST, "adamw", marks=pytest.mark.slow)]
    + [pytest.param(mesh, "adafactor", marks=pytest.mark.slow) for mesh in SMALLER],
)
def test_every_mesh_gives_the_numbers_of_one_device(engines, one_device, mesh, case):
    start, end, loss, correct = one_device(case)
    _, began, sums, ended = engines(mesh, case)
    support.assert_close(began, start, 1e-6)
    # The same masks as one device has: else nothing would be close.
    support.assert_close(ended, end)
    assert sums.loss_sum == pytest.approx(loss, rel=1e-5)
    assert (sums.steps, sums.correct, sums.bad_step) == (STEPS, correct, -1)
    assert np.isnan(sums.largest_gradient)
    targets = [support.Batches().batch(index)["targets"] for index in range(STEPS)]
    assert sums.tokens == np.count_nonzero(targets)


def test_initial_values_are_the_same_bits_on_every_mesh(engines):
    support.assert_equal(engines(LARGEST)[1], make("batch:1,model:1").state())


# ---- shardings ----


def shards(variable):
    return {shard.data.shape for shard in variable.value.addressable_shards}


def test_weights_and_slots_are_split_as_the_layout_says(engines):
    engine = engines(LARGEST)[0]
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
    assert {name: shards(engine.variables[name]) for name in expected} == {
        name: {shape} for name, shape in expected.items()
    }
    # Both rows of the mesh hold all of them: the batch splits no weight.
    assert len(engine.variables[query].value.addressable_shards) == 8


def test_slots_of_adam_are_split_like_their_weights(other):
    engine, _, _ = other
    assert shards(engine.variables["model/head/kernel"]) == {(8, 32)}
    for slot in ("momentum", "velocity"):
        assert shards(engine.variables[f"optimizer/head/kernel/{slot}"]) == {(8, 32)}


def test_another_layout_splits_other_axes(other):
    engine, _, _ = other
    assert tuple(engine.shardings["model/head/kernel"].spec) == ("model", None)
    assert tuple(engine.shardings["model/encoder/final_norm/scale"].spec) == ("model",)


@pytest.mark.slow  # without dropout, the other backend's numbers are compared with those of `other`
def test_another_layout_gives_the_numbers_of_one_device(one_device):
    engine = support.compiled(JaxEngine("rows:2,model:2", "batch:rows,d_model:model"), "adamw")
    steps(engine, 0, STEPS)
    support.assert_close(engine.state(), one_device("adamw")[1])


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
    engine = JaxEngine(LARGEST)
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


def test_only_slices_of_given_arrays_are_read(largest):
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
    engine = JaxEngine(LARGEST)
    with engine.scope():
        model = kf.models.T5.from_weights(config, weights, seed=0)
        optimizer = support.optimizer("adamw")
    engine.compile(model, optimizer)
    assert not any(rows.read for rows in weights.values())
    state = engine.state()
    np.testing.assert_array_equal(state["model/head/kernel"], weights["head/kernel"].array)
    for name, size in (("head/kernel", 8), ("token_embedding/embeddings", 8)):
        assert [weights[name].array[i].size for i in weights[name].read] == [16 * size] * 4


# ---- behaviour of an engine ----


def test_is_an_engine(largest):
    assert isinstance(largest, Engine)
    assert (largest.num_devices, largest.is_chief) == (8, True)
    assert [largest.agree(False), largest.agree(True)] == [False, True]


def test_number_of_steps_a_call_changes_no_bit_and_compiles_nothing(largest, engines):
    feed = support.Batches().from_step(0)
    largest.warm_up(support.Batches().batch(0), STEPS)
    compiled = largest.train_steps._cache_size()
    sums = [largest.train(feed, count) for count in (1, 2, 3)]
    apart = largest.state()
    assert largest.train_steps._cache_size() == compiled
    largest.load_state(engines(LARGEST)[1])
    together = steps(largest, 0, STEPS)
    support.assert_equal(largest.state(), apart)
    assert sum(part.tokens for part in sums) == together.tokens
    assert largest.train_steps._cache_size() == compiled


def test_warm_up_changes_nothing(largest):
    before = largest.state()
    largest.warm_up(support.Batches().batch(0), STEPS)
    support.assert_equal(largest.state(), before)


def test_variables_hold_the_current_arrays(largest):
    name = "model/head/kernel"
    before = np.array(largest.variables[name].value)
    steps(largest, 0, 2)
    variable = largest.variables[name]
    np.testing.assert_array_equal(np.array(variable.value), largest.state()[name])
    assert not np.array_equal(before, np.array(variable.value))
    # What is assigned is split as well, and trained on.
    variable.assign(np.full((16, 32), np.nan, np.float32))
    assert shards(variable) == {(16, 8)}
    assert steps(largest, 2, 1).bad_step == 0


def test_evaluation_has_no_dropout_and_leaves_the_state(largest):
    before = largest.state()
    batches = [support.Batches().batch(index) for index in range(3)]
    first, second = largest.evaluate(batches), largest.evaluate(batches)
    support.assert_equal(largest.state(), before)
    assert (first.loss_sum, first.tokens) == (second.loss_sum, second.tokens)
    model = kf.models.T5(support.config(), seed=0)
    logits_of = jax.jit(lambda batch: model(batch))
    loss = 0.0
    for batch in batches:
        logits = np.array(logits_of(batch), np.float64)
        log_z = np.log(np.exp(logits).sum(-1))
        picked = np.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
        loss += ((batch["targets"] != 0) * (log_z - picked + 1e-4 * log_z**2)).sum()
    assert first.loss_sum == pytest.approx(loss, rel=1e-5)


def test_a_loss_that_is_not_finite_names_its_step_and_its_gradient(other):
    class Poisoned(support.Batches):
        """Step 2 reads a row of the embedding that is infinite."""

        def batch(self, step):
            batch = super().batch(step)
            used = {name: np.minimum(value, 30) for name, value in batch.items()}
            if step == 2:
                used["encoder_token_ids"][0, 0] = 31
            return used

    # Not Adafactor, which would carry it to the other rows.
    engine, start, _ = other
    poison = start["model/token_embedding/embeddings"].copy()
    poison[31] = np.inf
    engine.load_state(start | {"model/token_embedding/embeddings": poison})
    good = engine.train(Poisoned().from_step(0), 2)
    assert (good.bad_step, good.steps) == (-1, 2) and np.isnan(good.largest_gradient)
    bad = engine.train(Poisoned().from_step(1), 3)
    assert bad.bad_step == 1 and np.isfinite(bad.largest_gradient)


@pytest.mark.slow
def test_bfloat16_activations_with_float32_weights(engines):
    engine = JaxEngine("batch:2,model:2")
    with engine.scope():
        model = kf.models.T5(support.config(0.1), seed=0, dtype="mixed_bfloat16")
        optimizer = support.optimizer("adamw")
    engine.compile(model, optimizer)
    wide = engines(LARGEST, "adamw")[2]
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert steps(engine, 0, STEPS).loss_sum == pytest.approx(wide.loss_sum, rel=0.02)


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match="device_count=16"):
        JaxEngine("batch:4,model:4")
    with pytest.raises(UserError, match="heads=4"):
        support.compiled(JaxEngine("model:8"))
    with pytest.raises(UserError, match="which are batch, buckets"):
        support.compiled(JaxEngine("model:2", "head:model"))
    with pytest.raises(UserError, match="batch_size=8"):
        steps(support.compiled(JaxEngine("batch:3")), 0, 1)
    with pytest.raises(UserError, match="microbatches=8"):
        steps(support.compiled(JaxEngine("batch:2", options=StepOptions(microbatches=8))), 0, 1)


def test_state_that_does_not_fit_sets_nothing(largest):
    before = largest.state()
    state = {name: value + 1 for name, value in before.items()}
    del state["optimizer/iteration"]
    with pytest.raises(UserError, match="missing optimizer/iteration"):
        largest.load_state(state)
    support.assert_equal(largest.state(), before)


# ---- resume, and engines beside each other ----


def small(mesh=None, devices=None):
    """An engine with a model that compiles fast, and no declared axes."""
    engine = JaxEngine(mesh, devices=devices)
    with engine.scope():
        model, optimizer = loop_support.make_model(0.3), loop_support.make_optimizer()
    engine.compile(model, optimizer)
    return engine


def small_steps(engine, first, count):
    engine.train(loop_support.Batches().from_step(first), count)
    return engine.state()


def test_resume_is_exact_and_engines_run_side_by_side():
    devices = jax.devices()
    engine = small("batch:2")
    half = small_steps(engine, 0, 6)
    through = small_steps(engine, 6, 6)
    results = {}

    def go_on(name, part):
        engine = small(devices=part)
        engine.load_state(half)
        results[name] = small_steps(engine, 6, 6)

    threads = [
        threading.Thread(target=go_on, args=args)
        for args in (("first", devices[2:4]), ("second", devices[4:6]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    support.assert_equal(results["first"], through)
    support.assert_equal(results["second"], through)
    assert not np.array_equal(half["seeds/dropout/0"], through["seeds/dropout/0"])


ONE_OF_TWO_HOSTS = """
import pathlib, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
index, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
from tests.trainers.engines import jax_support as support
from trainers.checkpoints import tensors
from trainers.engines.jax import JaxEngine

engine = support.compiled(JaxEngine("batch:2,model:2", options=support.CASES["adafactor"][1]))
# Host 1 alone has something to say.
assert [engine.agree(flag) for flag in (False, index == 1, True)] == [False, True, True]
assert (engine.num_devices, engine.is_chief) == (4, index == 0)
assert engine.gather("é" * index * 1000) == ["", "é" * 1000]
engine.train(support.Batches().from_step(0), 3)
engine.load_state(engine.state())
# From here on each host makes its rows alone.
rows = engine.rows(support.ROWS)
assert rows == (slice(0, 4), slice(4, 8))[index]
feed = support.Batches().from_step(3)
engine.train(({name: value[rows] for name, value in batch.items()} for batch in feed), 3)
# Both hosts hold all weights: the first one saves them.
assert bool(engine.shards()) == (index == 0)
tensors.write(folder / f"{index}.state", engine.state())
"""


@pytest.mark.slow
def test_two_hosts_equal_one_device(one_device, tmp_path):
    port = free_ports(1)[0]
    children = [loop_support.python(ONE_OF_TWO_HOSTS, index, port, tmp_path) for index in (0, 1)]
    for child in children:
        child["env"]["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    hosts = [subprocess.Popen(**child, stderr=subprocess.PIPE, text=True) for child in children]
    for host in hosts:
        _, errors = host.communicate(timeout=300)
        assert host.returncode == 0, errors[-4000:]
    first, second = (tensors.read(tmp_path / f"{i}.state") for i in (0, 1))
    support.assert_equal(first, second)
    expected = one_device("adafactor")[1]
    support.assert_close({name: first[name] for name in expected}, expected)


# ---- the other backend ----

ON_TENSORFLOW = """
import pathlib, sys
import tensorflow as tf
from trainers.checkpoints import tensors
from trainers.engines.tensorflow import TensorFlowEngine
from tests.trainers.engines import jax_support as support

tf.config.run_functions_eagerly(True)  # Tracing takes longer than two steps.
case, folder = sys.argv[1], pathlib.Path(sys.argv[2])
engine = support.compiled(TensorFlowEngine(), "adafactor")
engine.load_state(tensors.read(folder / "dropout"))
tensors.write(folder / "back", engine.state())
options = support.CASES[case][1]
engine = support.compiled(TensorFlowEngine(options=options), case, dropout=0.0, seed=1)
engine.load_state(tensors.read(folder / "start"))
engine.train(support.Batches().from_step(3), 2)
tensors.write(folder / "end", engine.state())
"""


def exchange(engine, sent, case, folder):
    """Compares an engine without dropout with TensorFlow's, which starts from its state."""
    tensors.write(folder / "start", engine.state())
    tensors.write(folder / "dropout", sent)
    child = loop_support.python(ON_TENSORFLOW, case, folder)
    child["env"]["KERAS_BACKEND"] = "tensorflow"
    ran = subprocess.run(**child, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-4000:]

    def written(name, like):
        arrays = tensors.read(folder / name)
        assert set(arrays) == set(like)
        return {name: arrays[name] for name in like}

    support.assert_equal(written("back", sent), sent)
    steps(engine, 3, 2)
    ours = engine.state()
    theirs = written("end", ours)
    support.assert_close(ours, theirs)
    engine.load_state(theirs)
    support.assert_equal(engine.state(), theirs)


def test_both_backends_agree_and_exchange_states(other, engines, tmp_path):
    engine, _, end = other
    engine.load_state(end)
    exchange(engine, engines(LARGEST)[3], "adamw", tmp_path)


@pytest.mark.slow
def test_both_backends_agree_with_clipped_microbatches(engines, tmp_path):
    engine = make("batch:2,model:2", dropout=0.0)
    steps(engine, 0, 3)
    exchange(engine, engines(LARGEST)[3], "adafactor", tmp_path)
