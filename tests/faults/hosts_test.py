"""Runs of the real program on several hosts, each a process on this machine, on JAX."""

import shutil

import numpy as np
import pytest

from tests import forks
from tests.faults import compare, hosts
from tests.faults.cases import Program
from tests.faults.harness import Harness, Outcome
from tests.faults.points import ENGINE, Point
from tests.faults.zygote import ROOT, Zygote
from tests.trainers import nano
from trainers import checkpoints, fuse, pretrain, reports
from trainers.checkpoints import models
from trainers.runs.workdir import RUN_FILE

COMMAND = (
    "trainers.pretrain",
    "--size=nano",
    "--workdir=w",
    "--steps=4",
    "--steps_per_call=2",
    "--eval_every=4",
    "--eval_batches=1",
    "--checkpoint_every=3",
    "--noprogress",
)
# Each weight that the layout splits is in two parts, one on each of two hosts.
SPLIT = ("--plan=baseline", "--mesh_shape=model:2")


class Hosts:
    """Runs of one command, each in a folder of its own, on one or several hosts."""

    def __init__(self, zygote, folder):
        self._zygote, self._folder = zygote, folder
        self.flags = (*COMMAND, f"--data_dir={nano.write_tokens(folder / 'tokens')}")

    def new_folder(self, name):
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def run(self, name, *flags, count=2, devices=1, point=None, own=(), folder=None, zygote=None):
        """Runs a command on hosts and returns how each ended.

        Args:
            name: folder of the run, which may be there.
            *flags: of the command, on all hosts.
            count: how many hosts; each has `devices` devices.
            point: where something happens to host 1.
            own: flags of host 1; folder: name of its folder; zygote: the process that starts it.
        """
        started = []
        for host, (place, variables) in enumerate(hosts.places("jax", count, devices)):
            is_other = host == 1
            starts = zygote if zygote and is_other else self._zygote
            path = self.new_folder(folder if folder and is_other else name)
            arguments = [*self.flags, *flags, *(own if is_other else ()), *place]
            at = point if is_other else None
            started.append((starts, starts.start(path, arguments, at, environment=variables)))
        return [starts.end(pid) for starts, pid in started]

    def content(self, name):
        """Content of a finished run, but for the command, which names a port."""
        contents = compare.content(self._folder / name / "w")
        return {name: content for name, content in contents.items() if name != RUN_FILE}

    def weights(self, name, stage="baseline"):
        return models.find_checkpoint(self._folder / name / "w" / stage).weights


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    cached = hosts.compiled_in(tmp_path_factory.mktemp("compiled"))
    with Zygote(backend="jax", variables=cached, start=forks.Popen) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def two(zygote, tmp_path_factory):
    return Hosts(zygote, tmp_path_factory.mktemp("hosts"))


def assert_done(ended):
    assert [host.code for host in ended] == [0] * len(ended), ended


def assert_refused(ended, *texts):
    for host in ended:
        assert host.code == 2, host.output
        assert all(text in host.output for text in texts), host.output


def assert_close(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def stopped(two):
    """Folder of a run that two hosts have stopped at step 2."""
    ended = two.run("two", *SPLIT, point=Point(ENGINE, 0, "after", act="term"))
    assert [host.code for host in ended] == [75, 75], ended
    line = "stopped at step 2 by {}, saved; give the same command again to resume\n"
    assert ended[0].output.endswith(line.format("a signal to another host"))
    assert ended[1].output.endswith(line.format("SIGTERM"))
    assert "Plan baseline" in ended[0].output and "Plan" not in ended[1].output
    return two.new_folder("two")


def test_each_host_saves_its_part(stopped):
    newest = stopped / "w/baseline/checkpoints/step_00000002"
    ends = [f"-0000{host}-of-00002.safetensors" for host in (1, 2)]
    names = [kind + end for kind in ("model", "training") for end in ends]
    assert sorted(path.name for path in newest.iterdir()) == [
        checkpoints.MARKER_FILE,
        checkpoints.MANIFEST_FILE,
        *names,
    ]
    sizes = [(newest / name).stat().st_size for name in names[:2]]
    weights = models.find_checkpoint(newest).weights.values()
    values = 4 * sum(value.size for value in weights)
    # What is split is more than half of the weights; names and the rest are in both or one.
    assert max(sizes) < 0.75 * values + 4096, sizes


@pytest.mark.slow  # split_models_test.py reads such a checkpoint
def test_one_process_ends_the_run_of_hosts(two, stopped, monkeypatch):
    """On another mesh of JAX, and on the backend of this process."""
    for name in ("ended", "moved"):
        shutil.copytree(stopped, two.new_folder(name), dirs_exist_ok=True)
    mesh = ("--plan=baseline", "--mesh_shape=batch:2")
    assert_done(two.run("ended", *mesh, count=1, devices=2))
    nano.define(monkeypatch)
    monkeypatch.setattr(reports, "write_report", lambda workdir: workdir)
    flags = (*two.flags[1:], "--plan=baseline", f"--workdir={two.new_folder('moved')}/w")
    with nano.eager():
        pretrain.pretrain(nano.config_of(pretrain, *flags))
    assert_done(two.run("one", *SPLIT, count=1, devices=2))
    for name in ("ended", "moved"):
        assert_close(two.weights("one"), two.weights(name))


@pytest.mark.slow
def test_hosts_fuse_and_train_as_one_process(two):
    """The sources are in parts, then the fused stage's checkpoint; batches are split as well."""
    flags = (
        "--plan=self_fusion",
        "--mesh_shape=model:2,batch:2",
        "--optimizer_state=grown_diagonal",
    )
    assert_done(two.run("fused one", *flags, count=1, devices=4))
    assert_done(two.run("fused four", *flags, count=4))
    for stage in ("small_0", "self_fusion"):
        assert_close(two.weights("fused one", stage), two.weights("fused four", stage))
    fused = {}
    for name in ("fused one", "fused four"):
        folder = two.new_folder(name)
        source = f"{folder}/w/self_fusion"
        flags = (f"--sources={source},{source}", f"--output={folder}/fused", "--noise=0.1")
        fuse.fuse(nano.config_of(fuse, *flags))
        fused[name] = models.find_checkpoint(folder / "fused").weights
    assert_close(fused["fused one"], fused["fused four"])


@pytest.fixture(scope="module")
def harness(zygote, tmp_path_factory):
    """Two hosts that train one stage; the harness asks that the others end within a minute."""
    inputs = tmp_path_factory.mktemp("inputs")
    tokens = nano.write_tokens(tmp_path_factory.mktemp("text"))
    shutil.copytree(tokens, inputs / "tokens")
    command = (*COMMAND, "--workdir=W", "--data_dir=in/tokens", *SPLIT)
    program = Program(command, ("tokens",), hosts=2, backend="jax")
    return Harness(zygote, tmp_path_factory.mktemp("harness"), program, inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "point"),
    [
        (1, Point(ENGINE, 1, "after")),
        (0, Point(ENGINE, 1, "before")),
        (1, Point("trainers.checkpoints.writer:_write_files", 1, "after")),
        (0, Point("trainers.checkpoints.writer:_wait_for", 1, "after")),
        (0, Point("trainers.checkpoints.writer:_put_in_place", 1, "before")),
        (0, Point("file:model-00001-of-00002.safetensors", 1, "inside", 100)),
    ],
    ids=str,
)
def test_a_host_is_killed_and_the_others_end_soon(harness, host, point):
    outcome = harness.kill(f"killed {host} {point}".replace("/", " "), [point], host)
    assert outcome == Outcome((point,), {})


@pytest.mark.slow
def test_hosts_that_differ_are_refused(two, stopped, tmp_path):
    assert_done(two.run("uninterrupted", *SPLIT))
    names = ("uninterrupted", "two")
    before = [two.content(name) for name in names]
    ended = two.run("uninterrupted", *SPLIT, own=("--steps=8",))
    assert_refused(ended, "the same flags on all hosts", "--steps=", "8")
    ended = two.run("uninterrupted", *SPLIT, folder=stopped.name)
    steps = ("baseline at step 4", "baseline at step 2")
    assert_refused(ended, "one --workdir that all hosts see", *steps)
    for package in ("keras_fusion", "trainers", "glue", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package)
    with open(tmp_path / "trainers/errors.py", "a") as file:
        file.write("# A host whose sources are newer.\n")
    with Zygote(backend="jax", root=tmp_path) as newer:
        ended = two.run("uninterrupted", *SPLIT, zygote=newer)
    assert_refused(ended, "the same versions on all hosts", "code=", "use the same sources")
    ended = two.run("uninterrupted", *SPLIT, "--parallel_stages")
    assert_refused(ended, "one host for --parallel_stages", "2 hosts")
    assert [two.content(name) for name in names] == before
