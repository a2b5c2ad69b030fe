"""Runs of the real program that are killed or stopped; `make faults` kills many more."""

import contextlib
import os
import select
import signal

import keras
import pytest

from tests.faults.harness import Harness
from tests.faults.points import ENGINE, Point
from tests.faults.zygote import Zygote
from trainers import reports

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runs on the tensorflow engine"
)


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    with Zygote() as zygote:
        yield Harness(zygote, tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    "kills",
    [
        # While the device works; and when the resume has put a checkpoint in its place.
        [
            Point(ENGINE, 3, "inside", 0.0),
            Point("trainers.checkpoints.writer:_put_in_place", 0, "after"),
        ],
        # In the middle of the second stage's weights.
        pytest.param([Point("file:model.safetensors", 4, "inside", 100)], marks=pytest.mark.slow),
        # In the middle of the fusion; and when the fused stage writes what it is.
        pytest.param(
            [
                Point("trainers.pretraining.stage:make_model", 1, "inside", 3000),
                Point("file:.stage.json.partial", 0, "inside", 30),
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["step, checkpoint", "weights", "fusion, settings"],
)
def test_killed_runs_end_as_one_that_was_not(harness, kills, request):
    outcome = harness.kill(f"killed_{request.node.callspec.indices['kills']}", kills)
    assert outcome.fault == ""
    assert outcome.lost == {}
    assert outcome.killed == tuple(kills)


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
        self.point = Point(site, call, where, amount, pause=str(self.folder))

    @contextlib.contextmanager
    def waiting(self):
        """Starts the run and gives its process number when it waits; then lets it go."""
        ready = os.open(self._ready, os.O_RDONLY | os.O_NONBLOCK)
        # For both ways, so that neither side waits for the other to open it.
        go = os.open(self._go, os.O_RDWR)
        pid = self.harness.zygote.start(self.folder, self.harness.flags, self.point)
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
        ended = self.harness.zygote.run(self.folder, self.harness.flags)
        assert ended.code == 0, ended.output
        return self.harness.lost(self.folder)


def test_sigterm_in_training_saves_and_goes_on(harness):
    run = Paused(harness, "sigterm", ENGINE, 2, "inside", 20)
    with run.waiting() as pid:
        # Meanwhile another process is refused, and a report reads what there is.
        second = harness.zygote.run(run.folder, harness.flags)
        assert (second.code, second.output.count("\n")) == (2, 1)
        assert f"process {pid} on " in second.output and "small_0" in second.output
        assert reports.write_report(run.folder / "w").exists()
        os.kill(pid, signal.SIGTERM)
    assert run.ended.code == 75, run.ended.output
    # Calls end at 2, 3 and 4; the third is the one that was going on.
    line = "stopped at step 4 by SIGTERM, saved; give the same command again to resume\n"
    assert run.ended.output.endswith(line)
    assert (run.folder / "w/small_0/checkpoints/step_00000004/COMMITTED").exists()
    lost = run.finish()
    assert {name for name in lost if not name.startswith("report/")} == set()


@pytest.mark.slow  # stopping_test.py has the signals, the test above a stopped program
def test_sigint_in_a_fusion_ends_at_once(harness):
    run = Paused(harness, "sigint", "trainers.pretraining.stage:make_model", 1, "inside", 3000)
    with run.waiting() as pid:
        os.kill(pid, signal.SIGINT)
    assert run.ended.code == 75, run.ended.output
    assert run.ended.output.endswith("stopped by SIGINT; give the same command again to resume\n")
    assert not (run.folder / "w" / "self_fusion").exists()
    assert run.finish() == {}
