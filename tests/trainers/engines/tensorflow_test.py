"""The tf.distribute engine: one device here, two logical CPUs in a process of their own."""

import json

import keras
import numpy as np
import pytest

from tests import forks
from tests.trainers.training import loop_support as support
from trainers.engines.base import Engine, StepSums
from trainers.engines.gradients import largest_if_not_finite
from trainers.errors import UserError

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the engine of the tensorflow backend"
)


@pytest.fixture(scope="module")
def engine():
    return support.make_engine()


@pytest.fixture
def fresh(engine):
    """The module's engine, in the state that it began in: compiled once."""
    engine.load_state(fresh.__dict__.setdefault("state", engine.state()))
    return engine


def assert_equal(a, b):
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_is_an_engine(engine):
    assert isinstance(engine, Engine)


def test_learns_and_counts(fresh):
    batches = support.Batches()
    feed = batches.from_step(0)
    first, last = fresh.train(feed, 5), None
    for _ in range(3):
        last = fresh.train(feed, 20)
    assert first.steps == 5
    assert first.tokens == sum((batches.batch(i)["targets"] != 0).sum() for i in range(5))
    assert last.loss_per_token < 0.5 * first.loss_per_token
    assert last.accuracy > 90 > first.accuracy
    assert last.bad_step == -1


def test_number_of_steps_a_call_changes_no_bit(fresh):
    start = fresh.state()
    feed = support.Batches().from_step(0)
    sums = [fresh.train(feed, count) for count in (1, 4, 7)]
    apart = fresh.state()
    fresh.load_state(start)
    together = fresh.train(support.Batches().from_step(0), 12)
    assert_equal(apart, fresh.state())
    added = sum(sums[1:], sums[0])
    assert (added.steps, added.tokens, added.correct) == (12, together.tokens, together.correct)
    assert added.loss_sum == pytest.approx(together.loss_sum, rel=1e-6)


def test_warm_up_changes_nothing(fresh):
    before = fresh.state()
    fresh.warm_up(support.Batches().batch(0), 20)
    assert_equal(before, fresh.state())
    fresh.train(support.Batches().from_step(0), 3)
    warm = fresh.state()
    fresh.load_state(before)
    fresh.train(support.Batches().from_step(0), 3)
    assert_equal(warm, fresh.state())


def test_evaluation_leaves_the_state_and_does_not_drop(fresh):
    before = fresh.state()
    batches = [support.Batches().batch(index) for index in range(3)]
    first, second = fresh.evaluate(batches), fresh.evaluate(batches)
    assert_equal(before, fresh.state())
    assert (first.loss_sum, first.tokens) == (second.loss_sum, second.tokens)
    assert first.tokens == sum((batch["targets"] != 0).sum() for batch in batches)
    assert first.loss == pytest.approx(first.loss_sum / 3)


def test_state_names_carry_no_counter_of_the_process(engine):
    assert list(support.make_engine().state()) == list(engine.state())
    names = set(engine.state())
    assert {"model/dense/kernel", "model/dense_1/bias", "seeds/dropout_1/0"} <= names
    assert {"optimizer/dense/kernel/r", "optimizer/dense/bias/v"} <= names
    assert not any("functional" in name or "seed_generator" in name for name in names)


def test_learning_rate_is_that_of_the_last_step(fresh):
    feed = support.Batches().from_step(0)
    assert fresh.train(feed, 3).learning_rate == pytest.approx(0.3 / 10**0.5)
    # Steps 3 to 41 ran: n is 40 in the last of them.
    assert fresh.train(feed, 38).learning_rate == pytest.approx(0.3 / 40**0.5)


def test_an_error_of_the_batches_comes_out_as_it_was_raised(engine):
    def fail(index):
        if index == 3:
            raise UserError("the token file is damaged")

    with pytest.raises(UserError, match="the token file is damaged"):
        engine.train(support.Batches(fail).from_step(0), 10)


def test_batches_that_end_are_named(engine):
    few = iter([support.Batches().batch(0)] * 2)
    with pytest.raises(UserError, match="ended after 2 batches"):
        engine.train(few, 3)
    with pytest.raises(UserError, match="at least one batch"):
        engine.evaluate([])


def test_a_loss_that_is_not_finite_names_its_step(fresh):
    state = fresh.state()
    feed = support.Batches().from_step(0)
    fresh.train(feed, 2)
    state["model/dense/kernel"][:] = np.nan
    fresh.load_state(state)
    assert fresh.train(feed, 3).bad_step == 0
    assert (StepSums(4, 1.0, 1, 1) + StepSums(3, 1.0, 1, 1, bad_step=2)).bad_step == 6


def test_the_largest_gradient_of_a_bad_step_is_told(fresh):
    state = fresh.state()
    assert np.isnan(fresh.train(support.Batches().from_step(0), 2).largest_gradient)
    # (log Z)^2 is too large for a float32; its gradient by this bias, 1e-4 * 2 log Z, is not.
    state["model/dense_1/bias"][3] = 1e20
    fresh.load_state(state)
    sums = fresh.train(support.Batches().from_step(0), 2)
    assert sums.bad_step == 0
    assert sums.largest_gradient == pytest.approx(2e16, rel=1e-3)


@pytest.mark.parametrize(
    ("loss", "gradients", "largest"),
    [
        (1.0, [[1.0]], np.nan),
        (np.inf, [[1.0, -3.0], [2.0]], 3.0),
        (np.nan, [[np.nan, 0.5], [-np.inf]], 0.5),
        (np.nan, [[np.nan], [np.inf]], np.nan),
    ],
)
def test_largest_finite_gradient(loss, gradients, largest):
    import tensorflow as tf

    gradient = largest_if_not_finite(tf.constant(loss), [tf.constant(g) for g in gradients])
    np.testing.assert_equal(gradient.numpy(), np.float32(largest))


def test_state_that_does_not_fit_lists_everything_and_sets_nothing(fresh):
    before = fresh.state()
    state = {name: value + 1 for name, value in before.items()}
    state["model/dense/kernel"] = np.zeros((2, 2), np.float32)
    del state["optimizer/iteration"]
    state["model/other"] = np.zeros(1, np.float32)
    with pytest.raises(UserError) as caught:
        fresh.load_state(state)
    for part in ("3 mismatches", "missing optimizer/iteration", "unknown model/other", "(2, 2)"):
        assert part in str(caught.value)
    assert_equal(before, fresh.state())


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ({"gradient_accumulation_steps": 2}, "microbatches"),
        ({"use_ema": True}, "fails in a loop"),
        ({"clipnorm": 1.0}, "clip_norm"),
        ({"global_clipnorm": 1.0}, "clip_norm"),
        ({"clipvalue": 1.0}, "clip_norm"),
    ],
)
def test_optimizer_options_that_train_wrong_are_refused(option, hint):
    from trainers.engines.tensorflow import TensorFlowEngine

    with pytest.raises(UserError, match=hint) as caught:
        TensorFlowEngine().compile(support.make_model(), keras.optimizers.SGD(0.1, **option))
    assert f"without {next(iter(option))}" in str(caught.value)


def test_loss_scaling_is_refused():
    from trainers.engines.tensorflow import TensorFlowEngine

    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(UserError, match="bfloat16"):
        TensorFlowEngine().compile(support.make_model(), optimizer)


TWO_CPUS = """
import json, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from tests import forks
from tests.trainers.training import loop_support as support
from trainers.engines.tensorflow import TensorFlowEngine
from keras_fusion.layers.dropout import FoldingSeedGenerator
from trainers.engines.tensorflow_steps import ReplicaSteps
from trainers.errors import UserError

two = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
found = {"replicas": two.num_replicas_in_sync}

def gap(a, b):
    assert list(a) == list(b)
    return max(float(np.abs(a[k].astype("f8") - b[k]).max()) for k in a if k.startswith("model/"))

def train(strategy):
    engine = support.make_engine(strategy, dropout=0.0, optimizer="adamw")
    sums = engine.train(support.Batches().from_step(0), 20)
    return engine, sums

one, of_one = train(None)
both, of_both = train(two)
states = one.state(), both.state()
found |= {
    "gap": gap(*states),
    "iterations": [int(state["optimizer/iteration"]) for state in states],
    "loss": [of_one.loss, of_both.loss],
    "counts": [[s.tokens, s.correct, s.learning_rate] for s in (of_one, of_both)],
}
# State from the other strategy, then on: the same run.
one.load_state(states[1])
both.load_state(states[1])
feeds = [support.Batches().from_step(20) for _ in range(2)]
found["evaluation"] = [e.evaluate([support.Batches().batch(0)]).loss for e in (one, both)]
one.train(feeds[0], 5), both.train(feeds[1], 5)
found["gap after exchange"] = gap(one.state(), both.state())

x = np.ones((4, 64), np.float32)
with two.scope():
    seeds = FoldingSeedGenerator(3)
steps = ReplicaSteps(None, None, None, 2)
def draw():
    with steps.seeds_of_replica():
        return keras.random.dropout(x, 0.5, seed=seeds)
masks = tf.function(lambda: two.run(draw))().values
alone = keras.random.dropout(x, 0.5, seed=FoldingSeedGenerator(3))
found["masks"] = [[bool(np.array_equal(a, b)) for b in masks] for a in (*masks, alone)]

def refused(build_in_scope, optimizer, batches):
    engine = TensorFlowEngine(two)
    try:
        if build_in_scope:
            with engine.scope():
                model = support.make_model()
                optimizer = optimizer()
        else:
            model, optimizer = support.make_model(), optimizer()
        engine.compile(model, optimizer)
        engine.train(batches, 1)
    except UserError as error:
        return str(error)

batches = support.Batches()
odd = {k: v[:7] for k, v in batches.batch(0).items()}
sgd = keras.optimizers.SGD
found["outside"] = refused(False, lambda: sgd(0.1), batches.from_step(0))
found["clip"] = refused(True, lambda: sgd(0.1, global_clipnorm=1.0), batches.from_step(0))
found["odd"] = refused(True, lambda: sgd(0.1), iter([odd]))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def two_cpus():
    """Results of a process with two logical CPUs: devices are fixed once TensorFlow has begun."""
    ran = forks.run(**support.python(TWO_CPUS))
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_two_replicas_equal_one_device(two_cpus):
    assert two_cpus["replicas"] == 2
    assert two_cpus["gap"] < 1e-6
    assert two_cpus["iterations"] == [20, 20]
    assert two_cpus["counts"][0] == two_cpus["counts"][1]
    assert two_cpus["loss"][0] == pytest.approx(two_cpus["loss"][1], rel=1e-6)


def test_state_moves_between_strategies(two_cpus):
    assert two_cpus["evaluation"][0] == pytest.approx(two_cpus["evaluation"][1], rel=1e-6)
    assert two_cpus["gap after exchange"] < 1e-6


def test_each_replica_has_a_dropout_mask_of_its_own(two_cpus):
    # Rows: replica 0, replica 1, a single device; columns: the replicas.
    assert two_cpus["masks"] == [[True, False], [False, True], [True, False]]


def test_what_would_train_wrong_on_replicas_is_refused(two_cpus):
    assert "inside engine.scope()" in two_cpus["outside"]
    assert "global_clipnorm=1.0" in two_cpus["clip"]
    assert "batch_size=7" in two_cpus["odd"]
