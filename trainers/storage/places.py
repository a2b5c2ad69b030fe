"""Folders of this machine for the folders in object storage that a program's flags name.

    CACHE/tokens-DIGEST/tokens/  prepared tokens, by the hash of their manifest, for all programs
    CACHE/DIGEST/0/NAME/         the copy of a URL that a process works on; a second process of
                                 this machine works on CACHE/DIGEST/1/NAME/

CACHE is $KERAS_FUSION_CACHE, or keras_fusion in the user's cache folder ($XDG_CACHE_HOME).
"""

import contextlib
import enum
import fnmatch
import functools
import hashlib
import itertools
import logging as standard_logging
import os
import pathlib
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import TextIO

from absl import logging

from trainers.errors import UserError
from trainers.files import locked, replacing_folder, write_text
from trainers.storage import copies, lease
from trainers.storage.mirror import Mirror, newest, whole
from trainers.storage.remote import Remote, check_url, is_url

# What a run has finished is sent so often.
PUSH_SECONDS = 20.0
# Storage that has not answered for so long ends the run, which saves first.
PATIENCE_SECONDS = 600.0
_MANIFEST = "manifest.json"
_MAX_MANIFEST = 16_000_000
_PATTERN = "*?["  # characters that begin a pattern


class Kind(enum.Enum):
    """Use of a folder or file that a flag names."""

    READ = "read: brought whole, of checkpoints the newest"
    KEPT = "read: brought whole, with all checkpoints"
    TOKENS = "read: prepared tokens, which are kept by their hash"
    RUN = "brought, and sent all the time; one process at a time"
    UPDATE = "brought, and sent at the end"
    NEW = "empty before, and sent at the end"
    ADD = "not brought; what is made in it is sent at the end"
    FILE = "read: a file, or the folder of prepared tokens"
    FILES = "read: a file, or those of a pattern; a folder is read where it is"
    NEW_FILE = "a file that is not there before, and sent at the end"


_URLS: dict[str, str] = {}  # of the process: folder of this machine → URL


def shown(text: str) -> str:
    """Returns a text with URLs in the place of folders of this machine, for what is recorded."""
    for folder, url in _URLS.items():
        text = text.replace(folder, url)
    return text


class Places:
    """The folders of one program; as a context manager it sends what is to be sent at its end.

    Example:
        with Places() as places:
            folder = places.local("s3://bucket/runs/W", Kind.RUN)
    """

    def __init__(self):
        self._finish = contextlib.ExitStack()
        self._read: dict[str, str] = {}  # URL → copy of what is only read

    def __enter__(self) -> "Places":
        for redirect, stream in (
            (contextlib.redirect_stdout, sys.stdout),
            (contextlib.redirect_stderr, sys.stderr),
        ):
            self._finish.enter_context(redirect(_Shown(stream)))
        # It keeps the stream that it found.
        handler = logging.get_absl_handler()
        handler.addFilter(_show)
        self._finish.callback(handler.removeFilter, _show)
        return self

    def __exit__(self, *error) -> None:
        self._finish.__exit__(*error)

    def local(self, text: str, kind: Kind, is_list: bool = False) -> str:
        """Returns the folders to use for a flag's text: the text itself where it has no URL.

        Args:
            text: a folder or file.
            kind: its use.
            is_list: whether the text is several, with commas between; files always are.

        Raises:
            UserError: storage that cannot be reached, another writer, no room here, or a URL that
                leads nowhere.
        """
        is_list = is_list or kind is Kind.FILES
        parts = [part.strip() for part in text.split(",")] if is_list else [text.strip()]
        for part in parts:
            # What a corpus is read from by TensorFlow has more kinds of URL.
            check_url(part, others=kind is Kind.FILES)
        if not any(map(is_url, parts)):
            return text
        return ",".join(self._local(part, kind) if is_url(part) else part for part in parts)

    def _local(self, url: str, kind: Kind) -> str:
        if kind in (Kind.FILE, Kind.FILES, Kind.NEW_FILE):
            return self._files(url, kind)
        if kind is not Kind.READ:
            return self._folder_of(url, kind)
        # A source may stand twice.
        if url not in self._read:
            self._read[url] = self._folder_of(url, kind)
        return self._read[url]

    def _folder_of(self, url: str, kind: Kind) -> str:
        remote = Remote(url)
        is_tokens = kind in (Kind.TOKENS, Kind.FILE)
        folder = _tokens(remote, kind) if is_tokens else self._copy(remote, kind)
        _URLS[str(folder)] = remote.url
        return str(folder)

    def _copy(self, remote: Remote, kind: Kind) -> pathlib.Path:
        # The names that begin with a dot are those of what lies beside the copy.
        name = remote.url.rpartition("/")[2].lstrip(".")
        mirror = Mirror(remote, self._folder(remote.url, name or "copy"))
        if kind is Kind.RUN:
            self._follow(mirror)
        elif kind is Kind.NEW:
            if used := whole(remote.find()):
                raise UserError(
                    "a new or empty folder to write to",
                    f"{remote.url}, which holds {min(used)}",
                    "Choose another one; nothing is overwritten",
                )
            mirror.clear()
        elif kind in (Kind.READ, Kind.KEPT, Kind.UPDATE):
            mirror.pull(chosen=newest if kind is Kind.READ else set)
        elif kind is Kind.ADD:
            mirror.compare()
        if kind in (Kind.UPDATE, Kind.NEW, Kind.ADD):
            self._finish.callback(_send, mirror)
        self._finish.enter_context(copies.known(mirror))
        return mirror.folder

    def _files(self, url: str, kind: Kind) -> str:
        """The copy of a file, or a pattern of copies."""
        home, name = _split(url)
        remote, is_pattern = Remote(home), not {*_PATTERN}.isdisjoint(name)
        is_there = not is_pattern and name in remote.find(name)
        if kind is Kind.FILES and not is_pattern and not is_there:
            return url
        if kind is Kind.FILE and not is_there:
            return self._folder_of(url, kind)
        mirror = Mirror(remote, self._folder(url, "files"))
        if kind is Kind.NEW_FILE:
            if is_there:
                do = "Choose another one; nothing is overwritten"
                raise UserError("a new file to write", f"{url}, which exists", do)
            mirror.clear()
            mirror.folder.mkdir(parents=True)
            self._finish.callback(_send, mirror)
        elif is_pattern:
            mirror.pull(chosen=functools.partial(_matching, name))
        else:
            mirror.pull(under=name)
        _URLS[str(mirror.folder)] = remote.url
        return str(mirror.folder / name)

    def _folder(self, url: str, name: str) -> pathlib.Path:
        """A folder for the copy of a URL that no other process of this machine uses."""
        home = _cache() / hashlib.sha256(url.encode()).hexdigest()[:16]
        for number in itertools.count():
            lock = locked(home / str(number) / ".lock", wait=False)
            if not self._finish.enter_context(lock):
                return home / str(number) / name

    def _follow(self, mirror: Mirror) -> None:
        """Brings a run's folder, and sends what the run finishes, now and then and at its end."""
        name = mirror.folder.with_name(".name")
        if not name.exists():
            write_text(name, uuid.uuid4().hex)
        right = lease.Lease(mirror.remote, name.read_text(encoding="utf-8"))
        mirror.pull(owner=True, keep_own=right.acquire())
        self._finish.callback(_Sender(mirror, right).finish)


def _show(record: standard_logging.LogRecord) -> bool:
    """Has a message of the log name URLs."""
    record.msg, record.args = shown(record.getMessage()), None
    return True


class _Shown:
    """A stream on which paths of copies appear as URLs."""

    def __init__(self, output: TextIO):
        self._output = output

    def __getattr__(self, name: str):
        return getattr(self._output, name)

    def write(self, text: str) -> int:
        return self._output.write(shown(text))


class _Sender:
    """Sends what changes while the program works, and tells the storage that it is alive."""

    def __init__(self, mirror: Mirror, right: lease.Lease):
        self._mirror, self._right = mirror, right
        self._ended = threading.Event()
        # Apart: a large file takes longer than the time after which a silent writer is dead.
        jobs = {
            lambda: mirror.push(right.check): PUSH_SECONDS,
            right.renew: lease.BEAT_SECONDS,
        }
        self._threads = [
            threading.Thread(target=self._every, args=job, daemon=True, name="storage")
            for job in jobs.items()
        ]
        for thread in self._threads:
            thread.start()

    def _every(self, job: Callable, seconds: float) -> None:
        answered = time.monotonic()
        while not self._ended.wait(seconds):
            try:
                job()
                answered = time.monotonic()
            except Exception as error:  # whatever the copy's disk says too; `finish` meets it again
                logging.warning("%s", error)
                is_lost = isinstance(error, lease.Refused)
                if is_lost or time.monotonic() - answered >= PATIENCE_SECONDS:
                    # As a scheduler does: the run saves, and `finish` says what is the matter.
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    def finish(self) -> None:
        """Sends the rest, and gives the folder free."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        _send(self._mirror, self._right.check)
        self._right.release()


def _send(mirror: Mirror, ours=lambda: None) -> None:
    try:
        sent = mirror.push(ours)
    except lease.Refused:
        raise
    except UserError as error:
        raise UserError(f"{error} What is not sent lies in {mirror.folder.parent}.") from error
    logging.info("sent %d files to %s", sent, mirror.remote.url)


def _split(url: str) -> tuple[str, str]:
    """The URL of a folder, and the name or pattern of files in it; empty for a whole bucket."""
    start = next((at for at, letter in enumerate(url) if letter in _PATTERN), len(url))
    home = url[:start].rpartition("/")[0]
    return (home, url[len(home) + 1 :]) if is_url(home) else (url, "")


def _matching(pattern: str, names: set[str]) -> set[str]:
    """The names that a pattern may match: what reads the copies decides."""
    depth = None if "**" in pattern else pattern.count("/")
    loose = pattern.replace("**/", "*")
    return {
        name
        for name in names
        if depth in (None, name.count("/")) and fnmatch.fnmatchcase(name, loose)
    }


def _tokens(remote: Remote, kind: Kind) -> pathlib.Path:
    """The copy of prepared tokens, whose manifest has the hashes of the other files."""
    manifest = remote.read(_MANIFEST)
    if manifest is None or len(manifest) > _MAX_MANIFEST:
        expected = f"{'a file, or ' * (kind is Kind.FILE)}prepared tokens with {_MANIFEST}"
        do = "Check the URL, or make tokens with `python -m trainers.prepare`"
        raise UserError(expected, f"{remote.url}, which is none", do)
    home = _cache() / f"tokens-{hashlib.sha256(manifest).hexdigest()[:16]}"
    folder = home / "tokens"
    with locked(home / ".lock"):
        if not folder.exists():
            with replacing_folder(folder) as unfinished:
                for name in sorted(whole(remote.find())):
                    remote.download(name, unfinished / name)
    return folder


def _cache() -> pathlib.Path:
    given = os.environ.get("KERAS_FUSION_CACHE")
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(given or pathlib.Path(users) / "keras_fusion").expanduser().absolute()


def is_copy(folder: str | os.PathLike) -> bool:
    """Returns whether a folder is the copy of one in object storage."""
    return pathlib.Path(folder).absolute().is_relative_to(_cache())
