"""One device, four logical ones, and two processes give the same weights."""

import keras
import numpy as np
import optax
import pytest

from tests.trainers.engines import equality_support as support
from tests.trainers.training import loop_support
from trainers.engines.base import StepOptions
from trainers.errors import UserError

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the engine of the tensorflow backend"
)

WORKERS = ["worker 0", "worker 1"]


@pytest.fixture(scope="module")
def one_device():
    return support.all_runs(None)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Name of each worker to the arrays that it wrote."""
    ports = support.free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": i}} for i in range(2)]
    options = {name: (0, config) for name, config in zip(WORKERS, configs, strict=True)}
    return written(tmp_path_factory.mktemp("workers"), options)


def written(folder, processes):
    """Runs processes, of which `processes` holds the options, and returns what each wrote."""
    running = {
        name: support.start(folder / f"{name}.npz", *options) for name, options in processes.items()
    }
    try:
        for name, process in running.items():
            output, _ = process.communicate(timeout=500)
            assert process.returncode == 0, f"{name}: {output[-4000:]}"
    finally:
        for process in running.values():
            process.kill()
    return {name: dict(np.load(folder / f"{name}.npz")) for name in running}


def of_run(states, run, kind):
    prefix = f"{run}|{kind}"
    return {name: value for name, value in states.items() if name.startswith(prefix)}


def gap(a, b):
    assert a and list(a) == list(b)
    return max(float(np.abs(a[name].astype("f8") - b[name]).max()) for name in a)


def assert_same_weights(expected, actual, run):
    weights = (of_run(states, run, "model") for states in (expected, actual))
    assert gap(*weights) < 1e-6
    np.testing.assert_allclose(actual[f"{run}|sums"], expected[f"{run}|sums"], rtol=1e-6)


@pytest.mark.slow  # tensorflow_test.py has two replicas of one process
@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("run", [" ".join(run) for run in support.RUNS])
def test_workers_have_the_weights_of_one_device(one_device, workers, run, worker):
    assert_same_weights(one_device, workers[worker], run)


@pytest.mark.slow  # tensorflow_test.py has two devices of one process
def test_four_devices_have_the_weights_of_one(one_device, tmp_path):
    results = written(tmp_path, {"4 devices": (4, None)})["4 devices"]
    for run in support.RUNS:
        assert_same_weights(one_device, results, " ".join(run))
    assert results["agree"].tolist() == [False, False, True]
    assert results["engine"].tolist() == [4, True]


@pytest.mark.slow  # as above
def test_workers_end_with_the_same_bits(workers):
    for run in support.RUNS:
        assert gap(*(of_run(workers[name], " ".join(run), "") for name in WORKERS)) == 0


def test_the_norm_of_these_runs_clips(gradients):
    norm = sum(np.square(gradient).sum() for gradient in gradients) ** 0.5
    assert norm > 2 * support.CLIP_NORM


@pytest.mark.slow  # as above
@pytest.mark.parametrize("worker", WORKERS)
def test_a_resumed_run_draws_the_same_dropout_masks(workers, worker):
    assert workers[worker]["resumed"]


@pytest.mark.slow  # as above
def test_one_worker_writes_and_all_agree(workers):
    # Nobody, worker 1 alone, everybody.
    assert [workers[name]["agree"].tolist() for name in WORKERS] == [[False, True, True]] * 2
    for name in WORKERS:
        assert workers[name]["gathered"].tolist() == ["first" * 1000, "é", "", ""]
    engines = [workers[name]["engine"].tolist() for name in WORKERS]
    assert engines == [[2, True], [2, False]]


# ---- one device, against other sums ----


def one_step(options):
    """Changes of the weights by a step of SGD at rate 1."""
    engine = support.make_engine(None, "sgd", options)
    before = engine.state() | {"optimizer/learning_rate": np.float32(1.0)}
    engine.load_state(before)
    engine.train(loop_support.Batches().from_step(0), 1)
    after = engine.state()
    return {name: before[name] - after[name] for name in after if name.startswith("model/")}


@pytest.fixture(scope="module")
def gradients():
    """Gradients of the loss per token, by automatic differentiation of its textbook form."""
    import tensorflow as tf

    model = loop_support.make_model(dropout=0.0)
    batch = loop_support.Batches().batch(0)
    weights = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        logits = model({n: v for n, v in batch.items() if n != "targets"}, training=False)
        counts = tf.cast(batch["targets"] != 0, tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["targets"], logits)
        losses += 1e-4 * tf.square(tf.reduce_logsumexp(logits, axis=-1))
        loss = tf.reduce_sum(losses * counts) / tf.reduce_sum(counts)
    return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, weights)]


@pytest.mark.parametrize(("clip_norm", "microbatches"), [(None, 1), (0.01, 4), (100.0, 4)])
def test_a_step_is_the_gradient_that_optax_clips(gradients, clip_norm, microbatches):
    expected = gradients
    if clip_norm is not None:
        clip = optax.clip_by_global_norm(clip_norm)
        expected, _ = clip.update(gradients, clip.init(gradients))
    changes = one_step(StepOptions(clip_norm=clip_norm, microbatches=microbatches))
    for value, right in zip(changes.values(), expected, strict=True):
        np.testing.assert_allclose(value, right, atol=2e-7)


def test_microbatches_that_do_not_divide_are_refused():
    engine = support.make_engine(None, "sgd", StepOptions(microbatches=3))
    with pytest.raises(UserError, match="microbatches=3. Take a divisor of 8"):
        engine.train(loop_support.Batches().from_step(0), 1)
