"""Lets faults happen to programs, starts them again, and compares what they end with."""

import dataclasses
import json
import pathlib
import random
import shutil
import signal

from tests.faults import compare, points
from tests.faults.cases import FAULTS, Program
from tests.faults.zygote import Ended, Zygote
from tests.trainers.storage import support
from trainers.storage.lease import LEASE_FILE

# A run that is killed again and again must still come to its end.
MAX_KILLS = 3


@dataclasses.dataclass(frozen=True)
class Outcome:
    """End of a program to which a fault happened.

    Args:
        points: where, once or several times; and the file or folder that was damaged.
        lost: files of the finished program that differ from those of one without fault, with bytes.
        fault: how it failed to finish; empty if it did.
    """

    points: tuple[object, ...]
    lost: dict[str, int]
    fault: str = ""

    @property
    def survived(self) -> bool:
        """True for the end of the program to which nothing happened."""
        return not self.lost and not self.fault


class Harness:
    """Runs of one program in folders of their own, beside one to which nothing happened.

    Args:
        zygote: starts the processes.
        folder: an empty folder for all of it.
        program: the program.
        inputs: what it reads; see `cases.make_inputs`.
        bucket: URL of a bucket for programs that write into one.
    """

    def __init__(
        self,
        zygote: Zygote,
        folder: pathlib.Path,
        program: Program,
        inputs: pathlib.Path,
        bucket: str = "",
    ):
        self.zygote, self.program = zygote, program
        self._folder, self._inputs, self._bucket = folder, inputs, bucket
        whole = self.new_folder("whole")
        record = folder / "recorded.json"
        ended = self.run(whole, record=record)
        assert ended.code == 0, ended.output
        self.expected, self.recorded = self._content(whole), json.loads(record.read_text())
        assert self.expected, "nothing was written"

    def new_folder(self, name: str, own_inputs: bool = False) -> pathlib.Path:
        """Makes a folder to run in; what the program writes is W in it.

        Args:
            name: of the folder.
            own_inputs: whether the inputs are copies, which may be damaged.
        """
        folder = self._folder / name
        folder.mkdir()
        if own_inputs:
            shutil.copytree(self._inputs, folder / "in")
        else:
            (folder / "in").symlink_to(self._inputs)
        if self.program.begins:
            begin = self._inputs / self.program.begins
            if self.program.in_bucket:
                files = {str(p.relative_to(begin)): p for p in begin.rglob("*") if p.is_file()}
                support.send(self._url(folder), files)
            else:
                shutil.copytree(begin, folder / "W")
        return folder

    def command(self, folder: pathlib.Path) -> list[str]:
        """Returns the program's command for a folder."""
        place = self._url(folder) if self.program.in_bucket else "W"
        return [
            flag.replace("=W", f"={place}") if flag.endswith("=W") else flag
            for flag in self.program.command
        ]

    def start(self, folder: pathlib.Path, point: points.Point | None = None) -> int:
        """Starts the program in a folder, and returns its process number."""
        return self.zygote.start(folder, self.command(folder), point)

    def run(self, folder: pathlib.Path, point: points.Point | None = None, **described) -> Ended:
        """Runs the program in a folder; see `Zygote.start`."""
        return self.zygote.run(folder, self.command(folder), point, **described)

    def lost(self, folder: pathlib.Path) -> dict[str, int]:
        """Returns what differs after a finished program from that to which nothing happened."""
        return compare.lost(self.expected, self._content(folder))

    def kill(self, name: str, killed: list[points.Point]) -> Outcome:
        """Runs the program, killed at the points one after the other, and then to its end.

        Args:
            name: a new folder's name.
            killed: the first must be reached; later ones may lie behind the end.
        """
        folder, reached = self.new_folder(name), []
        for point in killed:
            ended = self.run(folder, point)
            if ended.code == -signal.SIGKILL:
                reached.append(point)
            elif ended.code != 0 or not (reached or point.site in points.TIMED):
                return Outcome((*reached, point), {}, f"not reached: {_last_words(ended)}")
        return self._finish(folder, tuple(reached))

    def fail(self, name: str, fault_name: str, rng: random.Random, turn: int) -> Outcome:
        """Lets a fault happen, and runs the program to its end.

        Args:
            name: a new folder's name.
            fault_name: key of `FAULTS`.
            rng: draws where it happens.
            turn: see `points.draw`.
        """
        fault = FAULTS[fault_name]
        point = points.draw(rng, self.recorded, fault.act, turn)
        if fault_name == "SIGKILL":
            kills = [point]
            while len(kills) < MAX_KILLS and rng.random() < 1 / 3:
                turn = rng.randrange(len(points.SITES))
                kills.append(points.draw(rng, self.recorded, "kill", turn, later=True))
            return self.kill(name, kills)
        folder = self.new_folder(name, own_inputs=fault.damage is not None)
        ended = self.run(folder, point)
        if fault_ended := self._fault_of(fault, ended):
            return Outcome((point,), {}, fault_ended)
        if fault.damage is None or self._is_made(folder):
            return self._finish(folder, (point,), fault.clock)
        folders = [self._written(folder), *(folder / "in" / name for name in self.program.reads)]
        damaged, repair = fault.damage(rng, folders)
        reached = (point, damaged)
        ended = self.run(folder)
        line = _error_line(ended)
        if ended.code == 2 and line and any(name in line for name in damaged.split("/")):
            repair()
            return self._finish(folder, reached)
        if ended.code:
            return Outcome(reached, {}, _last_words(ended))
        return Outcome(reached, self.lost(folder))

    def _finish(self, folder: pathlib.Path, reached: tuple, clock: float = 0.0) -> Outcome:
        ended = self.run(folder, clock=clock)
        # What makes a new folder refuses one that it has made.
        if ended.code and not (ended.code == 2 and self._is_made(folder)):
            return Outcome(reached, {}, _last_words(ended))
        return Outcome(reached, self.lost(folder))

    def _is_made(self, folder: pathlib.Path) -> bool:
        return "--output=W" in self.program.command and not self.lost(folder)

    def _fault_of(self, fault, ended: Ended) -> str:
        if ended.code not in fault.codes:
            return f"first: {_last_words(ended)}"
        if fault.act == "full" and ended.code and "No space left on dev" not in _error_line(ended):
            return f"first: {_last_words(ended)}"
        return ""

    def _written(self, folder: pathlib.Path) -> pathlib.Path:
        return folder / ("cache" if self.program.in_bucket else self.program.writes)

    def _url(self, folder: pathlib.Path) -> str:
        return f"{self._bucket}/{self._folder.name}/{folder.name}/W".replace(" ", "_")

    def _content(self, folder: pathlib.Path) -> dict[str, bytes]:
        if not self.program.in_bucket:
            return compare.content(folder / "W")
        there = folder / "there"
        shutil.rmtree(there, ignore_errors=True)
        url = self._url(folder)
        files = support.content(url)
        files.pop(LEASE_FILE, None)
        # Commands are recorded; checkpoints have hashes, and no command.
        named = {name for name in files if "/checkpoints/" not in name}
        files |= {name: files[name].replace(url.encode(), b"W") for name in named}
        support.write(there, files)
        return compare.content(there)


def _error_line(ended: Ended) -> str:
    """The line that a program ends with; empty where it is not one."""
    lines = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in ended.output else ""


def _last_words(ended: Ended) -> str:
    return f"exit code {ended.code}, {' '.join(ended.output[-600:].split())}"
