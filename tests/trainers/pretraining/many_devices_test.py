"""The binary on many devices: other machines, other backends, several hosts, the same numbers.

Each run is a process of its own, since backend and devices are chosen before the first import.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.trainers import nano
from trainers.checkpoints import models

ROOT = pathlib.Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow

# Arguments: logical CPUs of TensorFlow, steps to stop after (0: none), flags of trainers.pretrain.
PROGRAM = """
import os
import signal
import sys

import pytest

from tests.trainers import nano
from trainers import pretrain, programs
from trainers.training.logs import RunLog
from absl import flags

cpus, stop, *arguments = sys.argv[1:]
if int(cpus) > 1:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * int(cpus)
    tf.config.set_logical_device_configuration(cpu, logical)
    mirrored, names = tf.distribute.MirroredStrategy, [f"CPU:{i}" for i in range(int(cpus))]
    tf.distribute.MirroredStrategy = lambda: mirrored(names)
nano.define(pytest.MonkeyPatch())
advance, taken = RunLog.advance, 0

def advance_and_stop(log, steps, left=None):
    global taken
    advance(log, steps, left)
    taken += steps
    if taken == int(stop):
        os.kill(os.getpid(), signal.SIGTERM)

RunLog.advance = advance_and_stop
sys.argv[1:] = arguments
programs.run(pretrain.main, pretrain.PretrainConfig)
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return nano.write_tokens(tmp_path_factory.mktemp("tokens"))


def command(data_dir, workdir, *flags, cpus=1, stop=0, plan="baseline"):
    return [
        *(sys.executable, "-c", PROGRAM, str(cpus), str(stop)),
        *(f"--plan={plan}", "--size=nano", f"--data_dir={data_dir}", f"--workdir={workdir}"),
        *("--batch_size=4", "--steps=12", "--steps_per_call=4", "--noprogress", *flags),
    ]


def environment(backend="tensorflow", **more):
    xla = "--xla_force_host_platform_device_count=4"
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "KERAS_BACKEND": backend,
        "XLA_FLAGS": xla,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **more,
    }


def run(arguments, code=0, **how):
    done = subprocess.run(
        arguments, env=environment(**how), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


def weights(workdir, stage="baseline"):
    return dict(models.find_checkpoint(workdir / stage).weights)


def assert_same(first, second, tolerance=1e-5):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=0, atol=tolerance, err_msg=name)


def test_a_run_moves_between_devices_strategies_and_backends(tmp_path, data_dir):
    """One device, then two mirrored ones, then a 2 × 2 mesh on JAX; stopped by signals between."""
    run(command(data_dir, tmp_path / "whole"))
    moved = tmp_path / "moved"
    stopped = run(command(data_dir, moved, stop=4), code=75)
    assert "stopped at step 4 by SIGTERM, saved" in stopped.stderr
    run(command(data_dir, moved, "--strategy=mirrored", cpus=2, stop=4), code=75)
    run(command(data_dir, moved, "--mesh_shape=batch:2,model:2"), backend="jax")
    assert_same(weights(tmp_path / "whole"), weights(moved))
    lines = (moved / "baseline" / "metrics.jsonl").read_text().splitlines()
    steps = [(line["kind"], line["step"]) for line in map(json.loads, lines)]
    assert len(steps) == len(set(steps))


def test_two_hosts_fuse_and_train_as_one(tmp_path, data_dir):
    run(command(data_dir, tmp_path / "one", plan="fusion_property"))
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{socket_.getsockname()[1]}" for socket_ in (first, second)]
    arguments = command(
        data_dir, tmp_path / "two", "--strategy=multi_worker", plan="fusion_property"
    )
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                arguments,
                env=environment(TF_CONFIG=json.dumps(task)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-2000:]
    for stage in ("small_0", "fusion_property"):
        assert_same(weights(tmp_path / "one", stage), weights(tmp_path / "two", stage))


def test_sources_side_by_side_are_those_of_one_after_the_other(tmp_path, data_dir):
    mesh = "--mesh_shape=batch:2,model:2"
    for name, flags in (("after", [mesh]), ("beside", [mesh, "--parallel_stages"])):
        run(command(data_dir, tmp_path / name, *flags, plan="fusion_property"), backend="jax")
    for stage in ("small_0", "small_1", "fusion_property"):
        assert_same(weights(tmp_path / "after", stage), weights(tmp_path / "beside", stage))
