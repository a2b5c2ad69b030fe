"""The folder of a run: what it holds, and how one run's folder is kept from another run.

    W/run.json               settings of the run and the plans that were asked for
    W/tuning.json            see trainers/runs/sweep.py
    W/data/                  prepared tokens, where they are not elsewhere
    W/STAGE/stage.json       what the stage is: its node of the plan, settings, model
    W/STAGE/checkpoints/     see trainers/checkpoints/format.py
    W/STAGE/metrics.jsonl    see trainers/training/logs.py, as for tensorboard/
    W/STAGE/parameters.txt   see trainers/training/parameters.py
    W/STAGE/record.json      written last: what the finished stage reached and cost
    W/.locks/                see trainers/runs/locks.py
    W/report/                report.html, report.md, results.json: see trainers/reports

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
TUNING_FILE = "tuning.json"
METRICS_FILE = "metrics.jsonl"
PARAMETERS_FILE = "parameters.txt"
REPORT_FILE = "report.html"
MARKDOWN_FILE = "report.md"
RESULTS_FILE = "results.json"
# Tokens that were prepared for the run: this folder may be there before the run is.
DATA_FOLDER = "data"
REPORT_FOLDER = "report"
LOCK_FOLDER = ".locks"
TENSORBOARD_FOLDER = "tensorboard"


class Workdir:
    """The folder of one run."""

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    def stage_dir(self, name: str) -> pathlib.Path:
        """Folder of a stage."""
        return self.path / name

    def check(self, settings: Mapping[str, object]) -> None:
        """Checks that the folder may be used by a run with these settings; writes nothing.

        Raises:
            UserError: it is a file, holds something else than a run, or is the workdir of a run
                with other settings; every field that differs is named with both values.
        """
        if self.path.exists() and not self.path.is_dir():
            received = f"workdir={str(self.path)!r}, a file"
            raise UserError("--workdir to be a folder", received, "Choose another one")
        if not (self.path / RUN_FILE).exists():
            self._check_unused()
            return
        before = read_json(self.path / RUN_FILE).get("settings", {})
        now = json.loads(json.dumps(settings))
        wrong = differences({name: before[name] for name in before if name in now}, now)
        if wrong:
            raise UserError(
                "the workdir of this run or a new one",
                f"workdir={str(self.path)!r} of another run ({'; '.join(wrong)})",
                "Choose another --workdir, or give the same settings",
            )

    def _check_unused(self):
        there = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
        foreign = [name for name in there if name != DATA_FOLDER and not name.startswith(".")]
        if foreign:
            raise UserError(
                f"--workdir to be empty or to hold a run ({RUN_FILE})",
                f"workdir={str(self.path)!r}, which holds {foreign[0]!r}",
                "Choose another folder",
            )

    def open(
        self, settings: Mapping[str, object], plans: Iterable[str] = (), **facts: object
    ) -> None:
        """Makes the folder this run's after `check`; remembers plans, and the latest facts."""
        self.check(settings)
        path = self.path / RUN_FILE
        before = read_json(path) if path.exists() else {}
        asked = list(dict.fromkeys((*before.get("plans", ()), *plans)))
        content = {"settings": dict(settings), "plans": asked, **facts}
        if content != before:
            write_json(path, content)
