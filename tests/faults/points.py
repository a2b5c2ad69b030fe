"""Points at which something happens to a process: sites in the programs, and one of their calls.

Nothing of this is in the product: `arm` wraps functions of the programs by name, in the process
that is going to die.
"""

import builtins
import ctypes
import dataclasses
import errno
import fnmatch
import functools
import importlib
import io
import json
import math
import os
import pathlib
import random
import signal
import sys
import threading
import time

ENGINE = "trainers.engines.base:Engine.train"
ANY_FILE, ANY_INSTANT = "file:*", "trainers.programs:_call"
# From another thread, after so many seconds inside: while the interpreter waits for the device too.
TIMED = (ENGINE, ANY_INSTANT)
# By the clock of the system, from the beginning of the process to its end.
LIFE = "life"
BY_CLOCK = (*TIMED, LIFE)
# Functions as "module:name", bytes of a file as "file:name". Each program has some of them.
SITES = (
    ANY_INSTANT,
    ANY_FILE,
    "os:replace",
    "os:rename",
    "os:unlink",
    "file:model*.safetensors",
    "file:training*.safetensors",
    "file:manifest.json",
    "file:COMMITTED",
    "file:.host-*.json.partial",
    "file:.run.json.partial",
    "file:.stage.json.partial",
    "file:.record.json.partial",
    "file:metrics.jsonl",
    "trainers.files:write_json",
    "trainers.training.loop:_Loop.advance",
    "trainers.training.loop:_Loop.restore",
    ENGINE,
    "trainers.engines.base:Engine.evaluate",
    "trainers.checkpoints.writer:save",
    "trainers.checkpoints.writer:_wait_for",
    "trainers.checkpoints.writer:_put_in_place",
    "trainers.checkpoints.writer:_remove",
    "trainers.training.logs:MetricsFile.__init__",
    "trainers.pretraining.stage:run_stage",
    "trainers.pretraining.stage:make_model",
    "trainers.storage.remote:Remote._try",
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A moment in the life of a process.

    Args:
        site: "module:name" of a function, "file:pattern" of a file's name, or `LIFE`.
        call: which of its calls (or openings for writing), from 0.
        where: "before", "after" or "inside" the call; "inside" a file is after some of its bytes.
        amount: how far inside: bytes, events of the interpreter, or seconds for `TIMED` and `LIFE`.
        act: "kill"; "term", SIGTERM; "stop", SIGSTOP; "full": the disk has no more room for the
            file; "pause": the process says "ready" and waits.
        pause: folder with the pipes `ready` and `go` of that.
    """

    site: str
    call: int
    where: str = "before"
    amount: float = 0
    act: str = "kill"
    pause: str = ""

    def __str__(self):
        if self.site == LIFE:
            return f"after {self.amount:.3g} s"
        site = self.site.removeprefix("trainers.").removeprefix("file:")
        amount = f" {self.amount:.6g}" if self.where == "inside" else ""
        return f"{self.where}{amount} {site}, call {self.call + 1}"


def draw(rng: random.Random, recorded: dict, act: str, turn: int = 0, later: bool = False) -> Point:
    """Draws a point.

    Args:
        rng: the generator.
        recorded: what `record` wrote of a whole run: site → amount inside each call.
        act: what happens there; a disk is full for files alone.
        turn: which of the sites, in turn, so that a few points have been to all of them.
        later: for a process that resumes after a kill and so makes fewer calls: an early one.
    """
    sites = [site for site in SITES if site in recorded]
    if act == "full":
        sites = [site for site in sites if site.startswith("file:")]
    site = sites[turn % len(sites)]
    calls = recorded[site]
    call = 0 if later else rng.randrange(len(calls))
    where = "inside"
    if not site.startswith("file:") and site not in TIMED:
        where = rng.choice(("before", "after", "inside"))
    amount = calls[call] * rng.uniform(0.02, 0.98)
    return Point(site, call, where, amount if site in TIMED else int(amount), act)


def draw_instant(rng: random.Random, recorded: dict, later: bool = False) -> Point:
    """Draws an instant of the time that a whole run took, to kill it; `later` as for `draw`."""
    (seconds,) = recorded[LIFE]
    return Point(LIFE, 0, "inside", seconds * rng.uniform(0.01, 0.5 if later else 0.99))


def arm(point: Point) -> None:
    """Makes this process end at a point."""
    if point.site == LIFE:
        _kill_after(point.amount)
    elif point.site.startswith("file:"):
        name = point.site.removeprefix("file:")
        _wrap_open(lambda file: _Killing(file, point), name, point.call)
    else:
        _wrap(point.site, functools.partial(_at_call, point))


class _Event(ctypes.Structure):
    """A `struct sigevent` of Linux: the signal that a timer sends."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


def _kill_after(seconds: float) -> None:
    """Has the system kill this process, wherever it is then, as no thread of its own could.

    The signals that `signal.setitimer` sends are handled by programs.
    """
    system, timer = ctypes.CDLL(None, use_errno=True), ctypes.c_void_p()
    event = _Event(signal=signal.SIGKILL)
    whole = int(seconds)
    times = (ctypes.c_long * 4)(0, 0, whole, max(1, int((seconds - whole) * 1e9)))
    if system.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create")
    if system.timer_settime(timer, 0, times, None):
        raise OSError(ctypes.get_errno(), "timer_settime")


def record(path: str | os.PathLike) -> None:
    """Makes this process write, whenever it grows, how much there is inside each call of each site.

    Args:
        path: JSON file, site → list of bytes, seconds or events, in order of the calls.
    """
    amounts: dict[str, list[float]] = {}
    began = time.perf_counter()

    def note(site: str, amount: float) -> None:
        amounts.setdefault(site, []).append(amount)
        amounts[LIFE] = [time.perf_counter() - began]
        pathlib.Path(path).write_text(json.dumps(amounts))

    for site in SITES:
        if site.startswith("file:"):
            name = site.removeprefix("file:")
            _wrap_open(functools.partial(_Counting, note=functools.partial(note, site)), name)
        else:
            _wrap(site, functools.partial(_count_call, note, site))


# ---- functions ----


def _wrap(site: str, around) -> None:
    """Puts `around(number, function, *args)` in the place of a function."""
    module, _, path = site.partition(":")
    owner = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    function, calls = getattr(owner, name), iter(range(sys.maxsize))

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return around(next(calls), functools.partial(function, *args, **kwargs))

    setattr(owner, name, wrapped)


def _at_call(point: Point, number: int, function):
    if number != point.call:
        return function()
    if point.where == "before":
        _end(point)
        return function()
    try:
        if point.where == "inside":
            if point.site in TIMED and point.act != "pause":
                timer = threading.Timer(point.amount, _end, (point,))
                timer.daemon = True
                timer.start()
                return function()
            count, result = _count_events(function, int(point.amount), lambda: _end(point))
            if point.act != "kill" and count >= point.amount:
                return result
        else:
            result = function()
    except Exception:  # a call that fails is over as well
        _end(point)
        raise
    _end(point)
    return result


def _count_call(note, site: str, number: int, function):
    if site in TIMED:
        began = time.perf_counter()
        result = function()
        note(site, time.perf_counter() - began)
        return result
    count, result = _count_events(function)
    note(site, count)
    return result


def _count_events(function, at: int = -1, act=None):
    """Calls a function and counts the calls under it in this thread; acts at one of them."""
    count, before = 0, sys.getprofile()

    def event(frame, kind, argument):
        nonlocal count
        del frame, argument
        if kind in ("call", "c_call"):
            count += 1
            if count == at:
                act()

    sys.setprofile(event)
    try:
        result = function()
    finally:
        sys.setprofile(before)
    return count, result


# ---- files ----


def _wrap_open(make, name: str, call: int | None = None) -> None:
    """Wraps files of a name that are opened for writing: all of them, or one."""
    original, calls, folder = builtins.open, iter(range(sys.maxsize)), os.getcwd()

    def opening(file, mode="r", *args, **kwargs):
        opened = original(file, mode, *args, **kwargs)
        if set(mode) & set("wax") and not isinstance(file, int):
            path = os.path.abspath(os.fsdecode(file))
            if path.startswith(folder) and fnmatch.fnmatch(os.path.basename(path), name):
                number = next(calls)
                return make(opened) if call in (None, number) else opened
        return opened

    builtins.open = io.open = opening


def _flat(data):
    """The same as bytes or letters: arrays have another length."""
    return data if isinstance(data, str) else memoryview(data).cast("B")


class _Around:
    """A file that hands everything on."""

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        self.close()


class _Counting(_Around):
    def __init__(self, file, note):
        super().__init__(file)
        self._note, self._size = note, 0

    def write(self, data):
        data = _flat(data)
        self._size += len(data)
        return self._file.write(data)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def close(self):
        if not self._file.closed:
            self._note(self._size)
        self._file.close()


class _Killing(_Around):
    def __init__(self, file, point):
        super().__init__(file)
        self._point, self._left = point, int(point.amount)

    def write(self, data):
        data = _flat(data)
        if len(data) <= self._left:
            self._left -= len(data)
            return self._file.write(data)
        written = self._file.write(data[: self._left])
        self._file.flush()
        if self._point.act == "full":
            self._left = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._act()
        return written + self._file.write(data[written:])

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def close(self):
        self._file.close()
        if self._point.act != "full" and self._left < math.inf:
            self._act()

    def _act(self):
        self._left = math.inf  # once
        _end(self._point)


_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


def _end(point: Point) -> None:
    if point.act in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[point.act])
        return
    for name, how, act in (
        ("ready", os.O_WRONLY, lambda pipe: os.write(pipe, b".")),
        ("go", os.O_RDONLY, lambda pipe: os.read(pipe, 1)),
    ):
        pipe = os.open(pathlib.Path(point.pause) / name, how)
        try:
            act(pipe)
        finally:
            os.close(pipe)
