"""A folder of this machine that follows one in object storage, and the other way round.

Only finished files travel: names that begin with a dot stay where they are, and a checkpoint counts
by its marker, which is sent last and removed first. At any moment a kill leaves a bucket from which
the run can resume. A checkpoint without a marker is not brought: half of it was sent, or it is
damaged. It stays there until it is written anew, or a marked one has come after it.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping

from trainers.errors import os_errors
from trainers.storage.remote import Remote

MARKER_FILE = "COMMITTED"  # of a checkpoint: written last, it says that the others are whole
_STEP = re.compile(r"(?:(.*)/)?step_(\d+)")
# Sent in this order, after all others: each says that what stands before it is there.
_LAST = ("config.json", "manifest.json", MARKER_FILE, "results.json", "report.html", "record.json")
# What is sent for every change is read at once, since the program may write on meanwhile.
_SMALL = 64 << 20


class Mirror:
    """A folder in object storage and its copy.

    Args:
        remote: the folder there.
        folder: the copy; the index of what both had in common lies beside it.
    """

    def __init__(self, remote: Remote, folder: pathlib.Path):
        self.remote, self.folder = remote, folder
        self._index_file = folder.with_name(".index.json")
        # There while the copy is partly what it was before: a killed process leaves it.
        self._mixed = folder.with_name(".mixed")
        self._index: dict[str, list] = self._read_index()
        # Of the last pull: checkpoints there without a marker; whether it left out others.
        self.unmarked: set[str] = set()
        self._has_more = False

    def pull(
        self,
        owner: bool = False,
        keep_own: bool = False,
        chosen: Callable[[set[str]], set[str]] = set,
        under: str = "",
    ) -> None:
        """Makes the copy equal to the folder there.

        Args:
            owner: nobody else writes there: what is there and not here is removed by the next send,
                but for a checkpoint without a marker that no marked one has come after.
            keep_own: no other process wrote there since the last send: the copy may be ahead, and
                what it alone has stays.
            chosen: returns those of the names there that are brought; by default all.
            under: only the file of this name, or those of a folder, is looked for.
        """
        there = self.remote.find(under)
        names = chosen(whole(there))
        self._has_more = names != whole(there)
        local = self._local()
        keep_own = keep_own and not self._mixed.exists()
        with os_errors("to copy from object storage", self.folder, "Make room there"):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not keep_own:
                self._mixed.touch()
            for name in () if keep_own else local.keys() - names:
                (self.folder / name).unlink()
            self._remove_empty_folders()
            for name in sorted(names):
                if keep_own and name in local and not self._is_changed_there(name, there, local):
                    continue
                if name not in local or self._index.get(name) != [there[name], local[name]]:
                    self.remote.download(name, self.folder / name)
                    self._index[name] = [there[name], _signature(self.folder / name)]
        both = there.keys() | local.keys() if keep_own else there.keys()
        self.unmarked = {_step_folder(name) for name in _seen(both) - whole(both)}
        if owner:
            names = there.keys() & _reached(both)
        self._index = {name: self._index.get(name, ["", None]) for name in names}
        self._write_index()
        self._mixed.unlink(missing_ok=True)

    def pull_older(self, home: str) -> bool:
        """Brings the newest checkpoint of a folder that is not here; returns whether there is one.

        Args:
            home: the folder of checkpoints; empty for the copy itself.
        """
        if not self._has_more:
            return False
        local = self._local().keys()
        here = {_step_folder(name) for name in local} | {""}

        def chosen(names):
            others = {name for name in names if _step_folder(name) not in here}
            return names & local | newest({n for n in others if _place(n)[0] == home})

        self.pull(keep_own=True, chosen=chosen)
        return self._local().keys() > local

    def compare(self) -> None:
        """Forgets what one side has lost: it is sent again, or stays there."""
        both = self.remote.find().keys() & self._local().keys()
        self._index = {name: self._index[name] for name in self._index if name in both}

    def clear(self) -> None:
        """Removes the copy."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._index = {}

    def push(self, ours=lambda: None) -> int:
        """Sends what has changed, and removes there what is not here any more.

        Args:
            ours: raises an error where another process has taken over the folder there.

        Returns:
            Number of files sent.
        """
        local = self._local()
        changed = [name for name in whole(local) if self._sent(name) != local[name]]
        goes = self._index.keys() - local.keys()
        replaced = [name for name in changed if _is_marker(name) and name in self._index]
        gone = [name for name in goes if _is_marker(name)]
        if changed or goes:
            ours()
        self._remove([*replaced, *gone])
        sent = 0
        for name in sorted(changed, key=_rank):
            if _is_marker(name):
                if not self._is_sent(name, local):
                    continue
                ours()
            sent += self._send(name, local[name])
        self._remove(goes - {*gone})
        self._write_index()
        return sent

    def _is_changed_there(self, name: str, there: dict[str, str], local: dict[str, list]) -> bool:
        """Returns whether a file that was brought is another one there now, and the same here.

        Somebody has restored it; nobody knows how a file was there that this copy sent.
        """
        stamp, signature = self._index.get(name, ["", None])
        return stamp not in ("", there[name]) and signature == local[name]

    def _is_sent(self, marker: str, local: dict[str, list]) -> bool:
        """Returns whether all that a marker speaks for was sent, as it is now."""
        beside = marker.removesuffix(MARKER_FILE)
        names = [name for name in local if name.startswith(beside) and name != marker]
        return all(self._sent(name) == local[name] for name in names)

    def _send(self, name: str, signature: list) -> bool:
        path = self.folder / name
        try:
            if path.stat().st_size <= _SMALL:
                self.remote.write(name, path.read_bytes())
            else:
                self.remote.upload(path, name)
        except FileNotFoundError:
            return False  # Removed meanwhile: an old checkpoint.
        self._index[name] = ["", signature]
        self._write_index()
        return True

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.remote.remove([name])
            del self._index[name]

    def _sent(self, name: str) -> list | None:
        return self._index.get(name, ["", None])[1]

    def _local(self) -> dict[str, list]:
        """Name → signature of the files that may travel."""
        names = {}
        # Passes over folders that the program removes meanwhile, where `rglob` raises an error.
        for folder, _, files in os.walk(self.folder):
            for path in (pathlib.Path(folder, file) for file in files):
                name = path.relative_to(self.folder).as_posix()
                if _is_hidden(name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and not path.is_symlink():
                        names[name] = _signature(path)
        return names

    def _remove_empty_folders(self) -> None:
        """Removes folders without files: an empty one with a checkpoint's name would be damaged."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.rmdir()

    def _read_index(self) -> dict[str, list]:
        try:
            return json.loads(self._index_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _write_index(self) -> None:
        with os_errors("to keep a copy of object storage", self._index_file, "Make room there"):
            beside = self._index_file.with_name(".index.json.partial")
            beside.write_text(json.dumps(self._index), encoding="utf-8")
            beside.replace(self._index_file)


def whole(names: Iterable[str]) -> set[str]:
    """Returns the names without hidden files and without checkpoints that have no marker."""
    names = _seen(names)
    return {
        name
        for name in names
        if not (step := _step_folder(name)) or f"{step}/{MARKER_FILE}" in names
    }


def newest(names: set[str]) -> set[str]:
    """Returns the names without checkpoints that have a later one beside them."""
    last = _last_steps(names)
    return {name for name in names if not (at := _place(name)) or at[1] == last[at[0]]}


def _reached(names: Iterable[str]) -> set[str]:
    """Returns the names without hidden files and checkpoints later than all with a marker."""
    last = _last_steps(whole(names))
    return {name for name in _seen(names) if not (at := _place(name)) or at[1] <= last[at[0]]}


def _last_steps(names: Iterable[str]) -> Mapping[str, int]:
    """Folder of checkpoints → the largest step in it; -1 where there is none."""
    last = collections.defaultdict(lambda: -1)
    for home, step in filter(None, map(_place, names)):
        last[home] = max(last[home], step)
    return last


def _place(name: str) -> tuple[str, int] | None:
    """The folder of checkpoints that a file of one lies in, and its step; None for others."""
    match = _STEP.fullmatch(_step_folder(name))
    return (match[1] or "", int(match[2])) if match else None


def _step_folder(name: str) -> str:
    """The checkpoint's folder that a file lies in; empty for others."""
    folder = name.rpartition("/")[0]
    return folder if _STEP.fullmatch(folder) else ""


def _seen(names: Iterable[str]) -> set[str]:
    return {name for name in names if not _is_hidden(name)}


def _is_hidden(name: str) -> bool:
    """Returns whether a file is of this machine alone, or of a checkpoint on its way out."""
    return any(part.startswith(".") or ".replaced_" in part for part in name.split("/"))


def _is_marker(name: str) -> bool:
    return bool(_step_folder(name)) and name.endswith(f"/{MARKER_FILE}")


def _rank(name: str) -> tuple[int, str]:
    file = name.rpartition("/")[2]
    return (_LAST.index(file) + 1 if file in _LAST else 0), name


def _signature(path: pathlib.Path) -> list:
    status = path.stat()
    return [status.st_mtime_ns, status.st_size]
