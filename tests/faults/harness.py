"""Lets faults happen to programs, starts them again, and compares what they end with."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import threading
import time
from collections.abc import Sequence

from tests.faults import compare, hosts, points
from tests.faults.cases import FAULTS, Fault, Program
from tests.faults.zygote import Ended, Zygote
from tests.trainers.storage import support
from trainers.storage.lease import LEASE_FILE

# A run that is killed again and again must still come to its end.
MAX_KILLS = 3
KILLED = -signal.SIGKILL
# The other hosts of a run end within this time after the one to which something happened.
OTHERS_SECONDS = 60
# No process takes as long.
_STUCK_SECONDS = 600


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
        zygote: starts the processes, on the program's backend.
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
        records = [folder / f"recorded-{host}.json" for host in range(program.hosts)]
        ended = self.run(whole, records=records)
        assert ended.is_done, ended
        self.expected = self._content(whole)
        # Of each host.
        self.recorded = [json.loads(record.read_text()) for record in records]
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

    def run(
        self,
        folder: pathlib.Path,
        point: points.Point | None = None,
        host: int = 0,
        clock: float = 0.0,
        records: Sequence[pathlib.Path] = (),
    ) -> Ended:
        """Runs the program in a folder, on all of its hosts.

        Args:
            folder: that of the run.
            point: where something happens to one host.
            host: which one; its end is returned, with those of the others.
            clock: seconds that its clock is ahead.
            records: files for what happens on each host; see `points.record`.
        """
        command, pids = self.command(folder), []
        places = hosts.places(self.program.backend, self.program.hosts)
        for number, (flags, variables) in enumerate(places):
            described = {"point": point, "clock": clock} if number == host else {}
            described["record"] = records[number] if records else None
            job = (folder, [*command, *flags])
            pids.append(self.zygote.start(*job, environment=variables, **described))
        others = [pid for pid in pids if pid != pids[host]]
        with _killed_after(_STUCK_SECONDS, pids):
            ended = self.zygote.end(pids[host])
        began = time.monotonic()
        with _killed_after(2 * OTHERS_SECONDS, others):
            ends = tuple(map(self.zygote.end, others))
        return dataclasses.replace(ended, others=ends, seconds=time.monotonic() - began)

    def lost(self, folder: pathlib.Path) -> dict[str, int]:
        """Returns what differs after a finished program from that to which nothing happened."""
        return compare.lost(self.expected, self._content(folder))

    def kill(self, name: str, killed: Sequence[points.Point], host: int = 0) -> Outcome:
        """Runs the program, killed at the points one after the other, and then to its end.

        Args:
            name: a new folder's name.
            killed: the first must be reached; later ones may lie behind the end.
            host: the one that is killed.
        """
        folder, reached = self.new_folder(name), []
        for point in killed:
            ended = self.run(folder, point, host)
            if ended.code == KILLED:
                reached.append(point)
                if fault := _fault_of_others(ended):
                    return Outcome(tuple(reached), {}, fault)
                continue
            is_over = ended.is_done or self._is_made(folder)
            if not is_over or not (reached or point.site in points.BY_CLOCK):
                return Outcome((*reached, point), {}, f"not reached: {_last_words(ended)}")
            break  # the later points lie behind the end
        return self._finish(folder, tuple(reached))

    def fail(self, name: str, fault_name: str, rng: random.Random, turn: int) -> Outcome:
        """Lets a fault happen, and runs the program to its end.

        Args:
            name: a new folder's name.
            fault_name: key of `FAULTS`.
            rng: draws where it happens.
            turn: see `points.draw`.
        """
        fault, host = FAULTS[fault_name], rng.randrange(self.program.hosts)
        recorded = self.recorded[host]
        if fault.act == "kill" and not fault.damage and not fault.clock:
            kills = [fault.draw(rng, recorded, turn)]
            while len(kills) < MAX_KILLS and rng.random() < 1 / 3:
                kills.append(fault.draw(rng, recorded, rng.randrange(len(points.SITES)), True))
            return self.kill(name, kills, host)
        point = fault.draw(rng, recorded, turn)
        folder = self.new_folder(name, own_inputs=fault.damage is not None)
        ended = self.run(folder, point, host)
        if fault_ended := self._fault_of(fault, ended):
            return Outcome((point,), {}, fault_ended)
        if fault.damage is None or self._is_made(folder):
            return self._finish(folder, (point,), host, fault.clock)
        damaged, repair = self._damage(fault, rng, folder)
        reached = (point, damaged)
        ended = self.run(folder)
        if ended.is_done:
            if fault.shows:
                repair(if_left=True)
            return Outcome(reached, self.lost(folder))
        if not _is_refusal(ended, damaged):
            return Outcome(reached, {}, _last_words(ended))
        repair()
        return self._finish(folder, reached)

    def _finish(
        self, folder: pathlib.Path, reached: tuple, host: int = 0, clock: float = 0.0
    ) -> Outcome:
        ended = self.run(folder, host=host, clock=clock)
        # What makes a new folder refuses one that it has made.
        if not ended.is_done and not (ended.code == 2 and self._is_made(folder)):
            return Outcome(reached, {}, _last_words(ended))
        return Outcome(reached, self.lost(folder))

    def _is_made(self, folder: pathlib.Path) -> bool:
        return "--output=W" in self.program.command and not self.lost(folder)

    def _fault_of(self, fault, ended: Ended) -> str:
        if ended.code not in fault.codes:
            return f"first: {_last_words(ended)}"
        if fault.act == "full" and ended.code and "No space left on dev" not in _error_line(ended):
            return f"first: {_last_words(ended)}"
        return _fault_of_others(ended)

    def _damage(self, fault: Fault, rng: random.Random, folder: pathlib.Path) -> tuple:
        """Damages a file, as `damage` has it; of a bucket for a machine that has no copy."""
        inputs = [folder / "in" / name for name in self.program.reads]
        if not self.program.in_bucket:
            return fault.damage(rng, [folder / self.program.writes, *inputs])
        if not fault.shows:
            return fault.damage(rng, [folder / "cache", *inputs])
        home = folder / "changed"
        with self._changed(folder, home):
            written = home / self.program.writes
            damaged, repair = fault.damage(rng, [written, *inputs])
        shutil.rmtree(folder / "cache", ignore_errors=True)

        def repair_there(if_left: bool = False):
            with self._changed(folder, home):
                repair(if_left)

        return damaged, repair_there

    @contextlib.contextmanager
    def _changed(self, folder: pathlib.Path, home: pathlib.Path):
        """Context in which what a bucket has is W in a folder, from which changes are sent."""
        shutil.rmtree(home, ignore_errors=True)
        before = support.content(self._url(folder))
        support.write(home / "W", before)
        yield
        after = {name: home / "W" / name for name in support.read(home / "W")}
        changed = {n: path for n, path in after.items() if path.read_bytes() != before.get(n)}
        support.send(self._url(folder), changed)

    def _url(self, folder: pathlib.Path) -> str:
        return f"{self._bucket}/{self._folder.name}/{folder.name}/W".replace(" ", "_")

    def _content(self, folder: pathlib.Path) -> dict[str, bytes]:
        if not self.program.in_bucket:
            contents = compare.content(folder / "W")
            if self.program.hosts > 1:
                commands = {name for name in contents if name.endswith(".json")}
                contents |= {name: hosts.without_address(contents[name]) for name in commands}
            return contents
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


@contextlib.contextmanager
def _killed_after(seconds: float, pids: Sequence[int]):
    """Context after so many seconds of which processes that nobody has waited for are killed."""

    def kill():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _fault_of_others(ended: Ended) -> str:
    """Describes a wrong end of other hosts after something happened to one; empty if none is.

    They have the exit code of a run that can be resumed, and say so, if they have not come to
    their end.
    """
    if ended.others and ended.seconds > OTHERS_SECONDS:
        return f"the other hosts ended after {ended.seconds:.0f} s"
    for other in ended.others:
        is_told = "give the same command again" in other.output
        if other.code and not (other.code == 75 and is_told and "Traceback" not in other.output):
            return f"another host: {_last_words(other)}"
    return ""


def _is_refusal(ended: Ended, damaged: str) -> bool:
    """Returns whether a program refused what was damaged by its name, on one host at least."""
    ends = (ended, *ended.others)
    lines = [_error_line(host) for host in ends if host.code == 2]
    is_named = any(name in line for line in lines if line for name in damaged.split("/"))
    return is_named and all(host.code in (2, 75) for host in ends)


def _error_line(ended: Ended) -> str:
    """The line that a program ends with; empty where it is not one."""
    lines = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in ended.output else ""


def _last_words(ended: Ended) -> str:
    ends = (ended, *ended.others)
    return "; ".join(f"exit code {e.code}, {' '.join(e.output[-600:].split())}" for e in ends)
