"""A folder of a bucket, through fsspec: tries with a limit, time limits, errors of one line."""

import errno
import importlib
import logging as standard_logging
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable

from absl import logging

from trainers.errors import UserError

CONNECT_SECONDS, READ_SECONDS = 10, 60
# One request is tried so often, with pauses of 1, 2, 4, 8 and 16 seconds between.
TRIES = 6
PAUSE_SECONDS = 1.0


def _gs_options() -> dict:
    import aiohttp

    # It logs a traceback for what it also raises.
    standard_logging.getLogger("gcsfs").setLevel(standard_logging.CRITICAL)
    limits = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    return {"requests_timeout": limits}


def _s3_options() -> dict:
    # It says with every client where it found its settings.
    for package in ("botocore", "aiobotocore"):
        standard_logging.getLogger(package).setLevel(standard_logging.WARNING)
    return {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            # They would multiply with those here.
            "retries": {"total_max_attempts": 1},
        }
    }


# Protocol → what fsspec reaches it by, the extra that has it, its options, and whether requests are
# tried again here: gcsfs does it itself, six times with growing pauses.
PROTOCOLS = {
    "gs": ("gcsfs", "gcs", _gs_options, False),
    "s3": ("s3fs", "s3", _s3_options, True),
    # Of this machine, and of this process alone: for tests.
    "file": ("fsspec", "trainers", lambda: {"auto_mkdir": True}, True),
    "memory": ("fsspec", "trainers", dict, True),
}
# Of the local disk: no try makes room.
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def is_url(text: str) -> bool:
    """Returns whether a text is the URL of a folder in a bucket."""
    protocol, mark, _ = text.partition("://")
    return bool(mark) and protocol in PROTOCOLS


# The beginning of a URL, or a slip of one; of one letter it is a drive of Windows.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|(gs|s3):")


def check_url(text: str, others: bool = False) -> None:
    """Raises a `UserError` where a text is a URL of nothing that programs can read or write.

    It would be taken for a folder of this machine, which would be made.

    Args:
        text: a folder or file.
        others: whether URLs that are not read here are left to others.
    """
    if not is_url(text):
        if _SCHEME.match(text) and not others:
            do = "Correct it; a folder of this machine may begin with ./"
            raise UserError("a folder, or a URL gs://BUCKET/… or s3://BUCKET/…", repr(text), do)
        return
    protocol, _, path = text.partition("://")
    parts = path.rstrip("/").split("/")
    # file:///folder has no host.
    if {"", ".", ".."} & {*parts[protocol == "file" :]}:
        do = "Write the folder's whole name"
        raise UserError("a URL with a bucket and without . and .. in it", repr(text), do)


class Remote:
    """A folder of a bucket.

    Every method raises a `UserError` where the storage does not answer, or refuses, after all
    tries.

    Args:
        url: such as s3://bucket/runs/W.

    Example:
        >>> remote = Remote("memory://bucket/W")
        >>> remote.write("run.json", b"{}")
        >>> list(remote.find())
        ['run.json']
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        module, extra, options, tries = PROTOCOLS[protocol]
        self._is_gs = protocol == "gs"
        if self._is_gs:
            # Else gcsfs asks by gRPC, at every request, what kind of bucket it is: zonal ones alone
            # need that, and each request takes a minute more where nothing answers gRPC.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            importlib.import_module(module)
            import fsspec
            from fsspec.exceptions import FSTimeoutError
        except ImportError as error:
            do = f"Install the extra that has it: pip install 'keras-fusion[{extra}]'"
            raise UserError(f"the package {module} for {protocol}://", str(error), do) from error
        self._tries = TRIES if tries else 1
        # Another try takes as long, or ends alike.
        self._final = (FSTimeoutError, FileNotFoundError, PermissionError, TypeError, ValueError)
        self._files = self._try(
            "open", fsspec.filesystem, protocol, skip_instance_cache=True, **options()
        )
        if protocol == "s3":
            self._files.retries = 1
        # Of a whole request without a large file: limits of single reads were seen to be passed.
        self._limit = {"timeout": 10 * READ_SECONDS} if self._files.async_impl else {}
        self._root = self._files._strip_protocol(self.url).rstrip("/")

    def find(self, under: str = "") -> dict[str, str]:
        """Returns name → stamp of all files; a file that is written anew has another stamp.

        Args:
            under: the file of this name alone, or those of a folder; by default all.
        """
        root = self._path(under) if under else self._root

        def find():
            self._files.invalidate_cache()
            return self._files.find(root, detail=True, **self._limit)

        names = {}
        for path, facts in self._try("list", find, name=under).items():
            name = path.removeprefix(self._root + "/")
            if facts.get("type", "file") != "file" or name == path or name.endswith("/"):
                continue
            if {"", ".", ".."} & {*name.split("/")}:
                do = "Rename it there, or choose another folder"
                raise UserError(f"names of files in {self.url}", repr(name), do)
            version = next(
                (facts[key] for key in ("ETag", "etag", "generation", "created") if facts.get(key)),
                "",
            )
            names[name] = f"{facts.get('size')}:{version}"
        return names

    def read(self, name: str) -> bytes | None:
        """Returns a file's bytes; None where there is no such file."""

        def read():
            try:
                return self._files.cat_file(self._path(name), **self._limit)
            except FileNotFoundError:
                return None

        return self._try("read", read, name=name)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole."""
        how = dict(self._limit)
        if self._is_gs and content.endswith(b"\r"):
            # As one chunk: gcsfs ends what it sends otherwise with a line feed and a boundary, and
            # a carriage return before it counts as part of these.
            how["chunksize"] = len(content)
        self._try("write", self._files.pipe_file, self._path(name), content, name=name, **how)

    def upload(self, path: pathlib.Path, name: str) -> None:
        """Copies a file of this machine, part by part where it is large."""
        self._try("write", self._files.put_file, str(path), self._path(name), name=name)

    def download(self, name: str, path: pathlib.Path) -> None:
        """Copies a file to this machine, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.partial")
        try:
            self._try("read", self._files.get_file, self._path(name), str(beside), name=name)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; one that is not there is removed already."""

        def remove(path):
            try:
                self._files.rm_file(path, **self._limit)
            except FileNotFoundError:
                pass

        for name in names:
            self._try("remove", remove, self._path(name), name=name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _try(self, verb: str, function: Callable, *args, name: str = "", **kwargs) -> object:
        """Calls a function until it returns, or has failed too often or for good."""
        place = f"{self.url}/{name}" if name else self.url
        for number in range(self._tries):
            try:
                return function(*args, **kwargs)
            # Each library behind fsspec has errors of its own: for requests, tokens, timeouts.
            except Exception as error:
                fault = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
                if isinstance(error, self._final):
                    break
                if isinstance(error, OSError) and error.errno in _LOCAL:
                    fault = f"{error.strerror} on this machine"
                    break
                if number < self._tries - 1:
                    logging.warning("trying again to %s %s (%.300s)", verb, place, fault)
                    time.sleep(PAUSE_SECONDS * 2**number)
        raise UserError(
            f"to {verb} in object storage",
            f"{place} ({fault:.500})",
            "Check bucket, credentials and network, and give the same command again",
        )
