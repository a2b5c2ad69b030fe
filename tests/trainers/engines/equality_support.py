"""Trains the same runs under any strategy, in this process or one of its own.

A process has the logical CPUs that it began with, and two MirroredStrategies of different sizes in
one process abort: so each strategy gets a process, and all runs share it and its imports.
"""

import json
import os
import socket
import subprocess

import numpy as np

from tests.trainers.training import loop_support as support
from trainers.engines.base import StepOptions

STEPS = 10
CLIP_NORM = 0.05
OPTIONS = {
    "plain": StepOptions(),
    "clipped in microbatches": StepOptions(clip_norm=CLIP_NORM, microbatches=2),
}
RUNS = [("adafactor", "clipped in microbatches")]  # tensorflow_test.py has AdamW without either

CHILD = """
import sys
from tests.trainers.engines import equality_support as support
support.write_runs(sys.argv[1], int(sys.argv[2]))
"""


def make_engine(strategy, optimizer, options, dropout=0.0):
    """A compiled engine with a fresh model."""
    from trainers.engines.tensorflow import TensorFlowEngine

    engine = TensorFlowEngine(strategy, options)
    with engine.scope():
        model, slots = support.make_model(dropout), support.make_optimizer(optimizer)
    engine.compile(model, slots)
    return engine


def all_runs(strategy) -> dict[str, np.ndarray]:
    """States after STEPS steps, "optimizer name|variable", and the sums of each run."""
    states = {}
    for optimizer, name in RUNS:
        engine = make_engine(strategy, optimizer, OPTIONS[name])
        sums = engine.train(support.Batches().from_step(0), STEPS)
        run = f"{optimizer} {name}"
        states |= {f"{run}|{variable}": value for variable, value in engine.state().items()}
        states[f"{run}|sums"] = np.array([sums.loss_sum, sums.tokens, sums.correct])
    return states


def resumed_bits(strategy, options) -> bool:
    """Says whether a run with dropout that another engine resumes ends in the same bits."""
    feed = support.Batches().from_step(0)
    through = make_engine(strategy, "adafactor", options, dropout=0.3)
    through.train(feed, STEPS // 2)
    half = through.state()
    through.train(feed, STEPS - STEPS // 2)
    resumed = make_engine(strategy, "adafactor", options, dropout=0.3)
    resumed.load_state(half)
    resumed.train(support.Batches().from_step(STEPS // 2), STEPS - STEPS // 2)
    states = through.state(), resumed.state()
    return all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def write_runs(file: str, devices: int) -> None:
    """Writes `all_runs` of this process to a file; `devices` = 0 asks TF_CONFIG."""
    import tensorflow as tf

    from trainers.engines.strategies import make_strategy
    from trainers.engines.tensorflow import TensorFlowEngine

    if devices:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = make_strategy("mirrored")
    else:
        strategy = make_strategy("auto")
    results = all_runs(strategy)
    if not devices:
        results["resumed"] = resumed_bits(strategy, StepOptions(microbatches=2))
    engine = TensorFlowEngine(strategy)
    # Worker 1 alone has something to say.
    mine = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0) == 1
    results["agree"] = np.array([engine.agree(False), engine.agree(mine), engine.agree(True)])
    results["engine"] = np.array([engine.num_devices, engine.is_chief])
    texts = engine.gather("é" if mine else "first" * 1000)
    results["gathered"] = np.array([*texts, *engine.gather("")])
    np.savez(file, **results)


def start(file, devices=0, tf_config=None) -> subprocess.Popen:
    """Starts a process that writes its runs to a file."""
    ran = support.python(CHILD, file, devices)
    if tf_config is not None:
        ran["env"]["TF_CONFIG"] = json.dumps(tf_config)
    return subprocess.Popen(**ran, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for server in sockets:
            server.bind(("127.0.0.1", 0))
        return [server.getsockname()[1] for server in sockets]
    finally:
        for server in sockets:
            server.close()
