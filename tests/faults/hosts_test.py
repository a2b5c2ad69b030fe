"""Runs of the real program on several hosts, each a process on this machine, on JAX."""

import shutil
import signal
import time

import keras
import numpy as np
import pytest

from tests.faults import compare
from tests.faults.points import Point
from tests.faults.zygote import Zygote
from tests.trainers import nano
from tests.trainers.engines.equality_support import free_ports
from trainers import checkpoints, fuse, pretrain, reports
from trainers.checkpoints import models
from trainers.runs.workdir import RUN_FILE

COMMAND = (
    *(
        "trainers.pretrain",
        "--size=nano",
        "--workdir=w",
        "--batch_size=4",
        "--steps=6",
        "--steps_per_call=2",
    ),
    *("--eval_every=6", "--eval_batches=1", "--checkpoint_every=3", "--noprogress"),
)
# Each weight that the layout splits is in two parts, one on each of two hosts.
SPLIT = ("--plan=baseline", "--mesh_shape=model:2")
TRAIN = "trainers.engines.jax:JaxEngine.train"
AGAIN = "give the same command again on all hosts to resume"


class Hosts:
    """Runs of one command, each in a folder of its own, on one or several hosts."""

    def __init__(self, zygote, folder):
        self._zygote, self._folder = zygote, folder
        self.flags = (*COMMAND, f"--data_dir={nano.write_tokens(folder / 'tokens')}")

    def new_folder(self, name):
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def start(self, name, *flags, count=2, devices=1, points=None, own=None, folders=None):
        """Starts a command on hosts and returns their process numbers.

        Args:
            name: folder of the run, which may be there.
            *flags: of the command, on all hosts.
            count: how many hosts; each has `devices` devices.
            points: where a host ends, by host.
            own: flags of one host, by host; folders: names of their folders.
        """
        address = f"--coordinator=127.0.0.1:{free_ports(1)[0]}"
        xla = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
        environment = {"XLA_FLAGS": f"{xla} --xla_force_host_platform_device_count={devices}"}
        pids = []
        for host in range(count):
            place = (address, f"--num_processes={count}", f"--process_id={host}")
            folder = self.new_folder((folders or {}).get(host, name))
            arguments = [*self.flags, *flags, *(own or {}).get(host, ())]
            arguments += place if count > 1 else ()
            point = (points or {}).get(host)
            pids.append(self._zygote.start(folder, arguments, point, environment=environment))
        return pids

    def run(self, *arguments, **how):
        """Runs a command on hosts and returns how each ended."""
        return [self._zygote.end(pid) for pid in self.start(*arguments, **how)]

    def end(self, pid):
        return self._zygote.end(pid)

    def content(self, name):
        """Content of a finished run, but for the command, which names a port."""
        contents = compare.content(self._folder / name / "w")
        return {name: content for name, content in contents.items() if name != RUN_FILE}

    def weights(self, name, stage="baseline"):
        return models.find_checkpoint(self._folder / name / "w" / stage).weights


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with Zygote(backend="jax") as zygote:
        yield Hosts(zygote, tmp_path_factory.mktemp("hosts"))


def assert_done(ended):
    assert [host.code for host in ended] == [0] * len(ended), ended


def assert_close(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def stopped(hosts):
    """Folder of a run that two hosts have stopped at step 4; "one" has the same as one process."""
    assert_done(hosts.run("one", *SPLIT, count=1, devices=2))
    ended = hosts.run("two", *SPLIT, points={1: Point(TRAIN, 2, act="term")})
    assert [host.code for host in ended] == [75, 75], ended
    line = "stopped at step {} by {}, saved; give the same command again to resume\n"
    assert ended[0].output.endswith(line.format(4, "a signal to another host"))
    assert ended[1].output.endswith(line.format(4, "SIGTERM"))
    assert "Plan baseline" in ended[0].output and "Plan" not in ended[1].output
    return hosts.new_folder("two")


def test_each_host_saves_its_part_and_one_process_ends_the_run(hosts, stopped):
    newest = stopped / "w/baseline/checkpoints/step_00000004"
    ends = [f"-0000{host}-of-00002.safetensors" for host in (1, 2)]
    names = [kind + end for kind in ("model", "training") for end in ends]
    assert sorted(path.name for path in newest.iterdir()) == [
        checkpoints.MARKER_FILE,
        checkpoints.MANIFEST_FILE,
        *names,
    ]
    whole, parts = (
        sum(file.stat().st_size for file in folder.glob("model*"))
        for folder in (hosts.new_folder("one") / "w/baseline/checkpoints/step_00000006", newest)
    )
    assert parts < 1.5 * whole
    shutil.copytree(stopped, hosts.new_folder("ended"), dirs_exist_ok=True)
    assert_done(hosts.run("ended", "--plan=baseline", "--mesh_shape=batch:2", count=1, devices=2))
    assert_close(hosts.weights("one"), hosts.weights("ended"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow on two hosts")
def test_tensorflow_ends_the_run_of_hosts(hosts, stopped, monkeypatch):
    shutil.copytree(stopped, hosts.new_folder("moved"), dirs_exist_ok=True)
    workdir = hosts.new_folder("moved") / "w"
    nano.define(monkeypatch)
    monkeypatch.setattr(reports, "write_report", lambda workdir: workdir)
    flags = (*hosts.flags, "--plan=baseline", f"--workdir={workdir}")
    with nano.eager():
        pretrain.pretrain(nano.config_of(pretrain, *flags))
    assert_close(hosts.weights("one"), hosts.weights("moved"))


@pytest.mark.slow
def test_hosts_fuse_and_train_as_one_process(hosts):
    """The sources are in parts, then the fused stage's checkpoint; batches are split as well."""
    flags = (
        "--plan=self_fusion",
        "--mesh_shape=model:2,batch:2",
        "--optimizer_state=grown_diagonal",
    )
    assert_done(hosts.run("fused one", *flags, count=1, devices=4))
    assert_done(hosts.run("fused four", *flags, count=4))
    for stage in ("small_0", "self_fusion"):
        assert_close(hosts.weights("fused one", stage), hosts.weights("fused four", stage))
    fused = {}
    for name in ("fused one", "fused four"):
        folder = hosts.new_folder(name)
        source = f"{folder}/w/self_fusion"
        flags = (f"--sources={source},{source}", f"--output={folder}/fused", "--noise=0.1")
        fuse.fuse(nano.config_of(fuse, *flags))
        fused[name] = models.find_checkpoint(folder / "fused").weights
    assert_close(fused["fused one"], fused["fused four"])


@pytest.fixture(scope="module")
def uninterrupted(hosts):
    assert_done(hosts.run("uninterrupted", *SPLIT))
    return hosts.content("uninterrupted")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "point"),
    [
        (1, Point(TRAIN, 1, "after")),
        (0, Point(TRAIN, 1, "before")),
        (1, Point("trainers.checkpoints.writer:_write_files", 1, "after")),
        (0, Point("trainers.checkpoints.writer:_wait_for", 1, "after")),
        (0, Point("trainers.checkpoints.writer:_put_in_place", 1, "before")),
        (0, Point("file:model-00001-of-00002.safetensors", 1, "inside", 100)),
    ],
    ids=str,
)
def test_a_host_is_killed_and_the_others_end_soon(hosts, uninterrupted, host, point):
    name = f"killed {host} {point}".replace("/", " ")
    pids = hosts.start(name, *SPLIT, points={host: point})
    killed = hosts.end(pids[host])
    assert killed.code == -signal.SIGKILL, killed.output
    began = time.monotonic()
    other = hosts.end(pids[1 - host])
    assert time.monotonic() - began < 60
    assert other.code == 75, other.output
    # JAX's own lines may come behind it.
    assert f"another host ended, or cannot be reached any more; {AGAIN}\n" in other.output
    assert_done(hosts.run(name, *SPLIT))
    assert compare.lost(uninterrupted, hosts.content(name)) == {}


@pytest.mark.slow
def test_hosts_that_differ_are_refused(hosts, uninterrupted, stopped):
    names = ("uninterrupted", "two")
    before = [hosts.content(name) for name in names]
    ended = hosts.run("uninterrupted", *SPLIT, own={1: ("--steps=8",)})
    for host in ended:
        assert host.code == 2, host.output
        assert "the same flags on all hosts" in host.output
        assert "--steps=" in host.output and "8" in host.output
    ended = hosts.run("uninterrupted", *SPLIT, folders={1: stopped.name})
    for host in ended:
        assert host.code == 2, host.output
        assert "one --workdir that all hosts see" in host.output
        assert "baseline at step 6" in host.output and "baseline at step 4" in host.output
    assert [hosts.content(name) for name in names] == before
