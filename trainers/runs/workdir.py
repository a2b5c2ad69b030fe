"""The folder of a run: what it holds, and how one run's folder is kept from another run.

    W/run.json               settings of the run and the plans that were asked for
    W/data/                  prepared tokens, where they are not elsewhere
    W/STAGE/stage.json       what the stage is: its node of the plan, settings, model
    W/STAGE/checkpoints/     see trainers/checkpoints/format.py
    W/STAGE/metrics.jsonl    see trainers/training/logs.py
    W/STAGE/record.json      written last: what the finished stage reached and cost
    W/.locks/                see trainers/runs/locks.py
    W/report/                see trainers/reports

Every JSON file is written beside and renamed (`write_text`), so that a reader never sees half of
one.

Example:
    >>> workdir = Workdir("/tmp/run")
    >>> workdir.open({"size": "tiny", "seed": 0}, plans=["baseline"])
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping

from trainers.errors import UserError
from trainers.files import differences, read_json, write_json

RUN_FILE = "run.json"
STAGE_FILE = "stage.json"
RECORD_FILE = "record.json"
# What may stand in a folder before it becomes a workdir: tokens that were prepared for it.
_WELCOME = {"data"}


class Workdir:
    """The folder of one run.

    Args:
        path: folder; it is created by `open`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    @property
    def report_dir(self) -> pathlib.Path:
        """Folder of the report."""
        return self.path / "report"

    def stage_dir(self, name: str) -> pathlib.Path:
        """Folder of a stage."""
        return self.path / name

    def check(self, settings: Mapping[str, object]) -> None:
        """Checks that the folder may be used by a run with these settings; writes nothing.

        Args:
            settings: some of the run's settings, as far as they are known.

        Raises:
            UserError: it is a file, holds something else than a run, or is the workdir of a run
                with other settings; every field that differs is named with both values.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(
                "Expected --workdir to be a folder. "
                f"Received: workdir={str(self.path)!r}, a file. Choose another one."
            )
        if not (self.path / RUN_FILE).exists():
            self._check_unused()
            return
        before = read_json(self.path / RUN_FILE).get("settings", {})
        now = json.loads(json.dumps(settings))
        wrong = differences({name: before[name] for name in before if name in now}, now)
        if wrong:
            raise UserError(
                "Expected the workdir of this run or a new one. Received: "
                f"workdir={str(self.path)!r} of another run ({'; '.join(wrong)}). "
                "Choose another --workdir, or give the same settings."
            )

    def _check_unused(self):
        there = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
        foreign = [name for name in there if name not in _WELCOME and not name.startswith(".")]
        if foreign:
            raise UserError(
                f"Expected --workdir to be empty or to hold a run ({RUN_FILE}). Received: "
                f"workdir={str(self.path)!r}, which holds {foreign[0]!r}. Choose another folder."
            )

    def open(
        self, settings: Mapping[str, object], plans: Iterable[str] = (), **facts: object
    ) -> None:
        """Makes the folder this run's, or finds that it is; remembers the plans asked for.

        Args:
            settings: what makes the run what it is.
            plans: names of plans, added to those asked for earlier.
            **facts: what reports say of the run; the latest ones stay.

        Raises:
            UserError: as for `check`; nothing is written then.
        """
        self.check(settings)
        path = self.path / RUN_FILE
        before = read_json(path) if path.exists() else {}
        asked = list(dict.fromkeys((*before.get("plans", ()), *plans)))
        content = {"settings": dict(settings), "plans": asked, **facts}
        if content != before:
            write_json(path, content)

    @property
    def plans(self) -> list[str]:
        """Names of the plans that were ever asked for in this folder."""
        return read_json(self.path / RUN_FILE).get("plans", [])

    def check_stage(self, name: str, identity: Mapping[str, object]) -> None:
        """Checks that the stage's folder is unused or of the same stage; writes nothing.

        Args:
            name: the stage.
            identity: flat settings that make the stage what it is.

        Raises:
            UserError: it was started with other settings; each is named with both values.
        """
        path = self.stage_dir(name) / STAGE_FILE
        if not path.exists():
            return
        wrong = differences(read_json(path).get("identity", {}), json.loads(json.dumps(identity)))
        if wrong:
            raise UserError(
                f"Expected stage {name!r} with the settings that it was started with in "
                f"{str(self.path)!r}. Received: {'; '.join(wrong)}. Give the same settings again, "
                "or choose another --workdir."
            )

    def start_stage(self, name: str, identity: Mapping, details: Mapping) -> pathlib.Path:
        """Writes stage.json unless it is there, and returns the stage's folder.

        Args:
            name: the stage.
            identity: as for `check_stage`.
            details: what else readers want to know of it (its model's config, its sources).

        Raises:
            UserError: as for `check_stage`.
        """
        self.check_stage(name, identity)
        path = self.stage_dir(name) / STAGE_FILE
        if not path.exists():
            write_json(path, {"name": name, "identity": dict(identity), **details})
        return self.stage_dir(name)

    def record(self, name: str) -> dict | None:
        """What a finished stage reached and cost; None where it is not finished."""
        path = self.stage_dir(name) / RECORD_FILE
        return read_json(path) if path.exists() else None

    def write_record(self, name: str, record: Mapping) -> None:
        """Marks a stage as finished."""
        write_json(self.stage_dir(name) / RECORD_FILE, record)

    def records(self) -> list[dict]:
        """Records of all finished stages, in the order in which they were finished."""
        paths = self.path.glob(f"*/{RECORD_FILE}")
        return [read_json(path) for path in sorted(paths, key=lambda p: p.stat().st_mtime_ns)]
