"""The engine on a mesh: calls, state, evaluation, refusals, engines beside each other."""

import threading

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the engine of the jax backend", allow_module_level=True)

import jax

import keras_fusion as kf
from tests.trainers.engines import jax_engines as engines
from tests.trainers.engines import jax_support as support
from tests.trainers.training import loop_support
from trainers.engines.base import Engine, StepOptions
from trainers.engines.jax import JaxEngine
from trainers.errors import UserError


def test_is_an_engine():
    largest = engines.largest()
    assert isinstance(largest, Engine)
    assert (largest.num_devices, largest.is_chief) == (8, True)
    assert [largest.agree(False), largest.agree(True)] == [False, True]


def test_number_of_steps_a_call_changes_no_bit_and_compiles_nothing():
    largest = engines.largest()
    feed = support.Batches().from_step(0)
    largest.warm_up(support.Batches().batch(0), engines.STEPS)
    compiled = largest.train_steps._cache_size()
    sums = [largest.train(feed, count) for count in (1, 2, 3)]
    apart = largest.state()
    assert largest.train_steps._cache_size() == compiled
    largest.load_state(engines.trained()[1])
    together = engines.steps(largest, 0, engines.STEPS)
    support.assert_equal(largest.state(), apart)
    assert sum(part.tokens for part in sums) == together.tokens
    assert largest.train_steps._cache_size() == compiled


def test_warm_up_changes_nothing():
    largest = engines.largest()
    before = largest.state()
    largest.warm_up(support.Batches().batch(0), engines.STEPS)
    support.assert_equal(largest.state(), before)


def test_variables_hold_the_current_arrays():
    largest = engines.largest()
    name = "model/head/kernel"
    before = np.array(largest.variables[name].value)
    engines.steps(largest, 0, 2)
    variable = largest.variables[name]
    np.testing.assert_array_equal(np.array(variable.value), largest.state()[name])
    assert not np.array_equal(before, np.array(variable.value))
    # What is assigned is split as well, and trained on.
    variable.assign(np.full((16, 32), np.nan, np.float32))
    assert engines.shards(variable) == {(16, 8)}
    assert engines.steps(largest, 2, 1).bad_step == 0


def test_evaluation_has_no_dropout_and_leaves_the_state():
    largest = engines.largest()
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


def test_a_loss_that_is_not_finite_names_its_step_and_its_gradient():
    class Poisoned(support.Batches):
        """Step 2 reads a row of the embedding that is infinite."""

        def batch(self, step):
            batch = super().batch(step)
            used = {name: np.minimum(value, 30) for name, value in batch.items()}
            if step == 2:
                used["encoder_token_ids"][0, 0] = 31
            return used

    # Not Adafactor, which would carry it to the other rows.
    engine, start, _ = engines.of_another_layout()
    poison = start["model/token_embedding/embeddings"].copy()
    poison[31] = np.inf
    engine.load_state(start | {"model/token_embedding/embeddings": poison})
    good = engine.train(Poisoned().from_step(0), 2)
    assert (good.bad_step, good.steps) == (-1, 2) and np.isnan(good.largest_gradient)
    bad = engine.train(Poisoned().from_step(1), 3)
    assert bad.bad_step == 1 and np.isfinite(bad.largest_gradient)


@pytest.mark.slow
def test_bfloat16_activations_with_float32_weights():
    engine = JaxEngine("batch:2,model:2")
    with engine.scope():
        model = kf.models.T5(support.config(0.1), seed=0, dtype="mixed_bfloat16")
        optimizer = support.optimizer("adamw")
    engine.compile(model, optimizer)
    wide = engines.trained(case="adamw")[2]
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert engines.steps(engine, 0, engines.STEPS).loss_sum == pytest.approx(
        wide.loss_sum, rel=0.02
    )


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match="device_count=16"):
        JaxEngine("batch:4,model:4")
    with pytest.raises(UserError, match="heads=4"):
        support.compiled(JaxEngine("model:8"))
    with pytest.raises(UserError, match="which are batch, buckets"):
        support.compiled(JaxEngine("model:2", "head:model"))
    with pytest.raises(UserError, match="batch_size=8"):
        engines.steps(support.compiled(JaxEngine("batch:3")), 0, 1)
    with pytest.raises(UserError, match="microbatches=8"):
        engines.steps(
            support.compiled(JaxEngine("batch:2", options=StepOptions(microbatches=8))), 0, 1
        )


def test_state_that_does_not_fit_sets_nothing():
    largest = engines.largest()
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
