"""Engines on meshes of virtual devices, each compiled once for all tests that run in a process."""

import functools

from tests.trainers.engines import jax_support as support
from trainers.engines.jax import JaxEngine

# The largest has every kind of split; the others show where a fault comes from.
LARGEST = "batch:2,model:4"
SMALLER = ["batch:1,model:1", "batch:2,model:1", "batch:1,model:2"]
STEPS = 6


def make(mesh=LARGEST, case="adafactor", **options):
    return support.compiled(JaxEngine(mesh, options=support.CASES[case][1]), case, **options)


def steps(engine, first, count):
    return engine.train(support.Batches().from_step(first), count)


def trained(mesh=LARGEST, case="adafactor"):
    """An engine that took STEPS steps: (engine, start, sums of the steps, end)."""
    return _trained(mesh, case)


@functools.cache
def _trained(mesh, case):
    engine = make(mesh, case)
    start = engine.state()
    sums = steps(engine, 0, STEPS)
    return engine, start, sums, engine.state()


@functools.cache
def of_another_layout():
    """An engine with another layout and no dropout, after three steps: (engine, start, end)."""
    engine = JaxEngine("rows:2,model:2", "batch:rows,d_model:model")
    support.compiled(engine, "adamw", dropout=0.0)
    start = engine.state()
    steps(engine, 0, 3)
    return engine, start, engine.state()


def largest():
    """The engine on the largest mesh, in the state that it began in."""
    engine, start, _, _ = trained()
    engine.load_state(start)
    return engine


def shards(variable):
    """Shapes of the parts of a variable."""
    return {shard.data.shape for shard in variable.value.addressable_shards}
