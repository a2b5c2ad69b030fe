"""Splits of the weights on a mesh as they are shown, and a profile of steps on JAX."""

import keras
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the engine of the jax backend", allow_module_level=True)

from tests.trainers.engines import jax_support as support
from trainers.engines.jax import JaxEngine
from trainers.training import parameters


@pytest.fixture(scope="module")
def engine():
    """An engine that has compiled a T5 with 4 heads, hidden 16, MLP 32, vocabulary 32."""
    engine = JaxEngine("batch:2,model:4")
    with engine.scope():
        engine.model = support.kf.models.T5(support.config(), seed=0)
        slots = support.optimizer("adamw")
    engine.compile(engine.model, slots)
    return engine


def test_a_device_holds_a_quarter_of_what_is_split_along_the_model(engine):
    seen = parameters.overview(engine.model, engine)
    rows = {row[0]: row[1:] for row in seen.rows}
    assert rows["head/kernel"] == (
        "16 x 32", "hidden, vocab", "-, model", "float32", "512", "2,048", "512"
    )  # fmt: skip
    norm = next(name for name in rows if name.endswith("norm/scale"))
    assert rows[norm][2:] == ("-", "float32", "16", "64", "64")
    total = seen.totals["weights"]
    whole = sum(int(row[6].replace(",", "")) for row in seen.rows if "model" not in row[3])
    assert total.on_device == whole + (total.bytes - whole) // 4
    # AdamW has two slots like each weight, and two scalars.
    assert seen.totals["optimizer"].parameters == 2 * total.parameters + 2


@pytest.mark.slow  # the profiler itself takes seconds
def test_jax_writes_what_tensorboard_reads(engine, tmp_path):
    engine.start_profile(tmp_path)
    engine.train(support.Batches().from_step(0), 2)
    engine.stop_profile()
    (trace,) = (tmp_path / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000
