"""Kills runs, starts them again, and compares what they end with."""

import dataclasses
import json
import pathlib
import random
import signal

from tests.faults import compare, points
from tests.faults.zygote import Ended, Zygote
from tests.trainers import nano

# Checkpoints between evaluations, calls of one and two steps, lines of training over all of it.
FLAGS = (
    "--plan=self_fusion",
    "--size=nano",
    "--workdir=w",
    "--steps=8",
    "--eval_every=4",
    "--checkpoint_every=3",
    "--steps_per_call=2",
    "--dropout=0.1",
    "--noprogress",
)
# A run that is killed again and again must still come to its end.
MAX_KILLS = 3


@dataclasses.dataclass(frozen=True)
class Outcome:
    """End of a run that was killed.

    Args:
        killed: where, once or several times.
        lost: files of the finished run that differ from those of one never killed, with bytes.
        fault: how it failed to finish; empty if it did.
    """

    killed: tuple[points.Point, ...]
    lost: dict[str, int]
    fault: str = ""

    @property
    def survived(self) -> bool:
        """True for the end of the run that was never killed."""
        return not self.lost and not self.fault


class Harness:
    """Runs of one command in folders of their own, beside one that was never killed.

    Args:
        zygote: starts the processes.
        folder: an empty folder for all of it.
        *flags: of the command, after `FLAGS`, which they override.
    """

    def __init__(self, zygote: Zygote, folder: pathlib.Path, *flags: str):
        self.zygote, self._folder = zygote, folder
        self.flags = (*FLAGS, *flags, f"--data_dir={nano.write_tokens(folder / 'tokens')}")
        self.expected = self._whole("whole")

    def record(self) -> dict:
        """Counts what a run does inside each site; it must end as one that nobody watched."""
        path = self._folder / "recorded.json"
        contents = self._whole("recorded", record=path)
        assert compare.lost(self.expected, contents) == {}
        return json.loads(path.read_text())

    def _whole(self, name: str, record=None) -> dict[str, bytes]:
        folder = self.new_folder(name)
        ended = self.zygote.run(folder, self.flags, record=record)
        assert ended.code == 0, ended.output
        return compare.content(folder / "w")

    def new_folder(self, name: str) -> pathlib.Path:
        """Makes a folder to run in; the workdir is w/ in it."""
        folder = self._folder / name
        folder.mkdir()
        return folder

    def lost(self, folder: pathlib.Path) -> dict[str, int]:
        """Returns what differs in a finished run from the one that was never killed."""
        return compare.lost(self.expected, compare.content(folder / "w"))

    def kill(self, name: str, killed: list[points.Point]) -> Outcome:
        """Runs the command, killed at the points one after the other, and then to its end.

        Args:
            name: a new folder's name.
            killed: the first must be reached; later ones may lie behind the end.
        """
        folder, reached = self.new_folder(name), []
        for point in killed:
            ended = self.zygote.run(folder, self.flags, point)
            if ended.code == -signal.SIGKILL:
                reached.append(point)
            elif ended.code != 0 or not reached:
                return Outcome((*reached, point), {}, f"not reached: {_last_words(ended)}")
        ended = self.zygote.run(folder, self.flags)
        if ended.code != 0:
            return Outcome(tuple(reached), {}, _last_words(ended))
        return Outcome(tuple(reached), self.lost(folder))


def _last_words(ended: Ended) -> str:
    return f"exit code {ended.code}, {' '.join(ended.output[-300:].split())}"


def plan(recorded: dict, count: int, seed: int) -> list[list[points.Point]]:
    """Draws points, the groups in turn; every third run is killed again when it resumes."""
    rng = random.Random(seed)
    groups = [group for group in points.GROUPS if group != "resume"]
    runs = []
    for number in range(count):
        turn, group = divmod(number, len(groups))
        kills = [points.draw(rng, groups[group], turn, recorded)]
        while len(kills) < MAX_KILLS and rng.random() < 1 / 3:
            group = rng.choice(list(points.GROUPS))
            kills.append(points.draw(rng, group, rng.randrange(12), recorded, later=True))
        runs.append(kills)
    return runs
