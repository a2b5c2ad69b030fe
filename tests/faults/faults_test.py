"""Real programs that are killed or stopped, or run out of room; `make faults` has many more."""

import contextlib
import dataclasses
import fnmatch
import os
import random
import select
import signal

import keras
import pytest

from tests import forks
from tests.faults.__main__ import FaultsConfig
from tests.faults.cases import PRETRAIN, PROGRAMS, TOKENS, Program, make_inputs
from tests.faults.harness import Harness, Outcome
from tests.faults.points import ENGINE, LIFE, Point
from tests.faults.zygote import Zygote
from trainers import reports
from trainers.checkpoints.format import CHECKPOINT_FOLDER, MANIFEST_FILE, MODEL_FILE
from trainers.errors import UserError

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runs on the tensorflow engine"
)


@pytest.fixture(scope="module")
def zygote():
    with Zygote(eager=True, start=forks.Popen) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def inputs(zygote, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs") / "inputs"
    make_inputs(folder, zygote, "--stage=small_0", "--steps=2")
    return folder


@pytest.fixture(scope="module")
def harness_of(zygote, inputs, tmp_path_factory):
    """The harness of a program, made once."""
    harnesses = {}

    def harness_of(program):
        if program not in harnesses:
            harnesses[program] = Harness(zygote, tmp_path_factory.mktemp("h"), program, inputs)
        return harnesses[program]

    return harness_of


@pytest.fixture(scope="module")
def one_stage(harness_of):
    # Two checkpoints, both behind the one that a signal brings: they alone stay.
    flags = (TOKENS, "--plan=baseline", "--steps=6", "--checkpoint_every=5", "--eval_every=6")
    return harness_of(Program((*PRETRAIN, *flags), ("tokens",)))


@pytest.fixture(scope="module")
def two_stages(harness_of):
    return harness_of(PROGRAMS["pretrain"])


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("prepare", "SIGKILL"),
        ("prepare", "disk full"),
        ("prepare", "bit flipped"),
        ("fuse", "SIGTERM"),
        ("fuse", "file cut"),
        # fuse_folders_test.py writes such folders, and the fault is that of the first row.
        pytest.param("fuse, transformers", "SIGKILL", marks=pytest.mark.slow),
        ("convert", "folder removed"),
        ("convert", "SIGSTOP"),
        ("convert", "any instant"),
        ("convert", "clock back"),
        # write_test.py has a report that is replaced as a whole; the faults are those above.
        pytest.param("report", "any instant", marks=pytest.mark.slow),
        pytest.param("report", "clock back", marks=pytest.mark.slow),
    ],
)
def test_faults_at_a_point(harness_of, program, fault):
    harness = harness_of(PROGRAMS[program])
    outcome = harness.fail(f"{program}, {fault}", fault, random.Random(f"{program} {fault}"), 1)
    assert outcome == dataclasses.replace(outcome, lost={}, fault="")


def assert_survived(harness, *kills):
    outcome = harness.kill(f"killed_{len(kills)}_times", kills)
    assert outcome.fault == ""
    assert outcome.lost == {}
    assert outcome.points == kills


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"points": 3, "first": 4}, "Received: first=4, points=3. Raise --points, to 4"),
        ({"programs": ("nothing",)}, "programs='nothing'. Name others"),
    ],
)
def test_a_table_without_points_is_refused(fields, words):
    with pytest.raises(UserError, match=words):
        FaultsConfig(**fields)


def test_a_kill_that_comes_after_the_end_is_none(harness_of):
    """By the clock a program may end before it, and reaches no later point then."""
    kills = (Point(LIFE, 0, "inside", 3600.0), Point("os:rename", 0))
    assert harness_of(PROGRAMS["fuse"]).kill("killed too late", kills) == Outcome((), {})


def test_killed_after_a_call_that_fails(harness_of):
    """The first report tries to put an older one aside, and finds none."""
    assert_survived(harness_of(PROGRAMS["report"]), Point("os:rename", 0, "after"))


def test_a_killed_run_ends_as_one_that_was_not(one_stage):
    """Killed while the device works; and when the resume has put a checkpoint in its place."""
    placed = Point("trainers.checkpoints.writer:_put_in_place", 0, "after")
    assert_survived(one_stage, Point(ENGINE, 3, "inside", 0.0), placed)


@pytest.mark.slow
def test_killed_in_the_middle_of_the_second_stages_weights(two_stages):
    assert_survived(two_stages, Point("file:model.safetensors", 4, "inside", 100))


@pytest.mark.slow
def test_killed_in_the_middle_of_a_fusion_and_when_the_stage_writes_what_it_is(two_stages):
    assert_survived(
        two_stages,
        Point("trainers.pretraining.stage:make_model", 1, "inside", 3000),
        Point("file:.stage.json.partial", 0, "inside", 30),
    )


def assert_ends_when_full(harness, site, call=0, amount=10):
    """The disk fills while a file is written: one line names it, and then nothing is lost."""
    pattern = site.removeprefix("file:")
    folder = harness.new_folder(f"full_{pattern.strip('.*')}")
    point = Point(site, call, "inside", amount, act="full")
    ended = harness.run(folder, point)
    assert ended.code == 2, ended.output
    (line,) = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in line and "Make room" in line
    # Of a checkpoint the folder is named.
    named = CHECKPOINT_FOLDER if pattern in (MODEL_FILE, MANIFEST_FILE) else pattern
    assert fnmatch.fnmatch(line, f"*W*{named.strip('.').removesuffix('.partial')}*")
    assert "Traceback" not in ended.output
    ended = harness.run(folder)
    assert ended.code == 0, ended.output
    assert harness.lost(folder) == {}


def test_a_disk_that_fills_while_a_log_is_written(one_stage):
    assert_ends_when_full(one_stage, "file:metrics.jsonl", amount=300)


@pytest.mark.slow  # the log above is the same path
@pytest.mark.parametrize(
    ("site", "call"),
    [
        ("file:events.out.tfevents.*", 0),
        ("file:.run.json.partial", 0),
        ("file:.stage.json.partial", 1),
        ("file:.record.json.partial", 0),
        ("file:model.safetensors", 1),
        ("file:manifest.json", 1),
    ],
)
def test_a_disk_that_fills_while_another_file_is_written(two_stages, site, call):
    assert_ends_when_full(two_stages, site, call)


class Paused:
    """A run that waits at a point for `go`.

    Args:
        harness: starts it.
        name: of its new folder.
        point: where it waits.
    """

    def __init__(self, harness, name, site, call, where, amount=0):
        self.harness, self.folder = harness, harness.new_folder(name)
        self._ready, self._go = self.folder / "ready", self.folder / "go"
        os.mkfifo(self._ready)
        os.mkfifo(self._go)
        self.point = Point(site, call, where, amount, "pause", str(self.folder))

    @contextlib.contextmanager
    def waiting(self):
        """Starts the run and gives its process number when it waits; then lets it go."""
        ready = os.open(self._ready, os.O_RDONLY | os.O_NONBLOCK)
        # For both ways, so that neither side waits for the other to open it.
        go = os.open(self._go, os.O_RDWR)
        pid = self.harness.start(self.folder, self.point)
        try:
            assert select.select([ready], [], [], 300)[0], "it did not come to the point"
            yield pid
            os.write(go, b".")
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            # Closed only then: what nobody has read by that time is gone.
            self.ended = self.harness.zygote.end(pid)
            os.close(ready)
            os.close(go)

    def finish(self):
        """Gives the same command again, and returns what the finished run lost."""
        ended = self.harness.run(self.folder)
        assert ended.code == 0, ended.output
        return self.harness.lost(self.folder)


@pytest.mark.slow  # stopping_test.py and loop_test.py have signals
def test_sigterm_in_training_saves_and_resumes(one_stage):
    run = Paused(one_stage, "sigterm", ENGINE, 1, "inside", 20)
    with run.waiting() as pid:
        # Meanwhile another process is refused, and a report reads what there is.
        second = one_stage.run(run.folder)
        assert (second.code, second.output.count("\n")) == (2, 1)
        assert f"process {pid} on " in second.output and "baseline" in second.output
        assert reports.write_report(run.folder / "W").exists()
        os.kill(pid, signal.SIGTERM)
    assert run.ended.code == 75, run.ended.output
    # Calls end at 2, 4, 5 and 6; the second is the one that was running.
    line = "stopped at step 4 by SIGTERM, saved; give the same command again to resume\n"
    assert run.ended.output.endswith(line)
    assert (run.folder / "W/baseline/checkpoints/step_00000004/COMMITTED").exists()
    lost = run.finish()
    assert {name for name in lost if not name.startswith("report/")} == set()


@pytest.mark.slow  # stopping_test.py has the signals, the test above a stopped program
def test_sigint_in_a_fusion_ends_at_once(two_stages):
    run = Paused(two_stages, "sigint", "trainers.pretraining.stage:make_model", 1, "inside", 3000)
    with run.waiting() as pid:
        os.kill(pid, signal.SIGINT)
    assert run.ended.code == 75, run.ended.output
    assert run.ended.output.endswith("stopped by SIGINT; give the same command again to resume\n")
    assert not (run.folder / "W" / "self_fusion").exists()
    assert run.finish() == {}


@pytest.mark.slow  # process_test.py has the signal
def test_a_source_that_is_cut_while_it_is_fused_ends_the_run_with_its_name(two_stages):
    run = Paused(two_stages, "cut", "trainers.pretraining.stage:fused_weights", 0, "after")
    with run.waiting():
        file = max(run.folder.glob("W/small_0/checkpoints/*/model.safetensors"))
        os.truncate(file, 0)
    assert run.ended.code == 2, run.ended.output
    assert f"Received: {file}, which was cut" in run.ended.output
    assert "Traceback" not in run.ended.output
