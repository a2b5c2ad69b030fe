"""One writer for a folder in object storage, where nothing can be locked.

    W/.writer    {"mirror": …, "process": …, "beat": …}, rewritten every few seconds

The writer's number changes as long as it lives. Whoever finds the file looks at it for a while: one
that changes is alive, and the second writer is refused; one that stands still is dead, and is taken
over. No clock is compared. A writer that was taken over, since it had stopped for so long, finds
another name in the file and sends nothing more.
"""

import json
import os
import socket
import time

from trainers.errors import UserError
from trainers.storage.remote import Remote

LEASE_FILE = ".writer"
BEAT_SECONDS = 10.0
# A writer whose beats stand still for so long is dead; a try to write takes up to a minute.
DEAD_SECONDS = 90.0
# Two that begin at the same moment both write; the later write counts for both after this time.
CONFIRM_SECONDS = 1.0


class Refused(UserError):
    """Another process writes the folder."""


class Lease:
    """The right to write a folder.

    Args:
        remote: the folder.
        mirror: name of this machine's copy of it, which a program that is started again has again.
    """

    def __init__(self, remote: Remote, mirror: str):
        self._remote, self._mirror = remote, mirror
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._beat = 0

    def acquire(self) -> bool:
        """Takes the lease, after waiting until one that was left behind is known to be dead.

        Returns:
            True if the writer before was of the same copy: nobody else has written since.

        Raises:
            Refused: another process writes there.
        """
        before = self._read()
        is_own = before.get("mirror") == self._mirror
        if before.get("process") and not is_own:
            self._watch(before)
        self.beat()
        time.sleep(CONFIRM_SECONDS)
        self.check()
        return is_own

    def renew(self) -> None:
        """Says that the writer is alive, if it still is the writer."""
        self.check()
        self.beat()

    def beat(self) -> None:
        """Takes the lease, or keeps it, whoever had it."""
        self._beat += 1
        self._write(self._process)

    def check(self) -> None:
        """Raises `Refused` where the lease is another process's.

        Whoever takes it over writes its name: a file that is gone, or that holds something else,
        says nothing.
        """
        now = self._read()
        if now and (now.get("mirror"), now.get("process")) != (self._mirror, self._process):
            raise self._refused(now)

    def release(self) -> None:
        """Gives it back; the name of the copy stays, as that of the last writer."""
        self.check()
        self._write("")

    def _watch(self, before: dict) -> None:
        end = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < end:
            time.sleep(BEAT_SECONDS / 2)
            now = self._read()
            if not now.get("process"):
                return
            if now != before:
                raise self._refused(now)

    def _refused(self, now: dict) -> Refused:
        return Refused(
            f"{self._remote.url} to be written by one process at a time",
            f"{now.get('process') or 'another process'}, which writes there",
            "Wait for that process or end it, or choose another folder; hosts of one run need a "
            "folder that all of them see",
        )

    def _write(self, process: str) -> None:
        content = {"mirror": self._mirror, "process": process, "beat": self._beat}
        self._remote.write(LEASE_FILE, json.dumps(content).encode())

    def _read(self) -> dict:
        # Apart from what follows: storage that does not answer says nothing about another writer.
        text = self._remote.read(LEASE_FILE)
        try:
            content = json.loads(text or b"{}")
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}
