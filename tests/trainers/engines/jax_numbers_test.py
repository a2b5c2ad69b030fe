"""Numbers of the engine on a mesh: those of one device, of two hosts, and of the other backend."""

import functools
import subprocess

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the engine of the jax backend", allow_module_level=True)

import jax
import jax.numpy as jnp

import keras_fusion as kf
from tests import forks
from tests.trainers.engines import jax_engines as engines
from tests.trainers.engines import jax_support as support
from tests.trainers.engines.equality_support import free_ports
from tests.trainers.training import loop_support
from trainers.checkpoints import tensors
from trainers.engines.jax import JaxEngine
from trainers.engines.state import state_variables

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
    for index in range(engines.STEPS):
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
    [(engines.LARGEST, "adafactor"), pytest.param(engines.LARGEST, "adamw", marks=pytest.mark.slow)]
    + [pytest.param(mesh, "adafactor", marks=pytest.mark.slow) for mesh in engines.SMALLER],
)
def test_every_mesh_gives_the_numbers_of_one_device(one_device, mesh, case):
    start, end, loss, correct = one_device(case)
    _, began, sums, ended = engines.trained(mesh, case)
    support.assert_close(began, start, 1e-6)
    # The same masks as one device has: else nothing would be close.
    support.assert_close(ended, end)
    assert sums.loss_sum == pytest.approx(loss, rel=1e-5)
    assert (sums.steps, sums.correct, sums.bad_step) == (engines.STEPS, correct, -1)
    assert np.isnan(sums.largest_gradient)
    targets = [support.Batches().batch(index)["targets"] for index in range(engines.STEPS)]
    assert sums.tokens == np.count_nonzero(targets)


def test_initial_values_are_the_same_bits_on_every_mesh():
    support.assert_equal(engines.trained()[1], engines.make("batch:1,model:1").state())


@pytest.mark.slow  # without dropout, the other backend's numbers are compared with those of `other`
def test_another_layout_gives_the_numbers_of_one_device(one_device):
    engine = support.compiled(JaxEngine("rows:2,model:2", "batch:rows,d_model:model"), "adamw")
    engines.steps(engine, 0, engines.STEPS)
    support.assert_close(engine.state(), one_device("adamw")[1])


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
    ran = forks.run(**child)
    assert ran.returncode == 0, ran.stderr[-4000:]

    def written(name, like):
        arrays = tensors.read(folder / name)
        assert set(arrays) == set(like)
        return {name: arrays[name] for name in like}

    support.assert_equal(written("back", sent), sent)
    engines.steps(engine, 3, 2)
    ours = engine.state()
    theirs = written("end", ours)
    support.assert_close(ours, theirs)
    engine.load_state(theirs)
    support.assert_equal(engine.state(), theirs)


def test_both_backends_agree_and_exchange_states(tmp_path):
    engine, _, end = engines.of_another_layout()
    engine.load_state(end)
    exchange(engine, engines.trained()[3], "adamw", tmp_path)


@pytest.mark.slow
def test_both_backends_agree_with_clipped_microbatches(tmp_path):
    engine = engines.make("batch:2,model:2", dropout=0.0)
    engines.steps(engine, 0, 3)
    exchange(engine, engines.trained()[3], "adafactor", tmp_path)
