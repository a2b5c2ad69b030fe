"""Stages of a run as its folder records them; each file is read once.

Example:
    >>> state = RunState("W")
    >>> state.record("small_0")["accuracy"]
    41.2
"""

import json
import os
import pathlib
from collections.abc import Mapping

from trainers.errors import UserError
from trainers.files import differences, read_json, write_json
from trainers.runs.workdir import RECORD_FILE, STAGE_FILE, Workdir


class RunState(Workdir):
    """The folder of a run, with what its stages are and what the finished ones reached.

    A file that is there does not change any more: what was read once is kept. One that is not
    there yet is looked for again, as another process may train that stage.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__(path)
        self._contents: dict[pathlib.Path, dict] = {}

    def stage(self, name: str) -> dict | None:
        """Returns what a stage is, as `start_stage` wrote it; None where it has not begun."""
        return self._read(self.stage_dir(name) / STAGE_FILE)

    def record(self, name: str) -> dict | None:
        """Returns what a finished stage reached and cost; None where it is not finished."""
        return self._read(self.stage_dir(name) / RECORD_FILE)

    def check_stage(self, name: str, identity: Mapping[str, object]) -> None:
        """Checks that a stage's folder is unused or of the same flat settings; writes nothing."""
        stage = self.stage(name)
        if stage is None:
            return
        wrong = differences(stage.get("identity", {}), json.loads(json.dumps(identity)))
        if wrong:
            raise UserError(
                f"stage {name!r} with the settings that it was started with in {str(self.path)!r}",
                "; ".join(wrong),
                "Give the same settings again, or choose another --workdir",
            )

    def start_stage(self, name: str, identity: Mapping, details: Mapping) -> None:
        """Writes stage.json unless it is there.

        The details are what else readers want to know of it (its model's config, its sources).
        """
        self.check_stage(name, identity)
        if self.stage(name) is None:
            content = {"name": name, "identity": dict(identity), **details}
            write_json(self.stage_dir(name) / STAGE_FILE, content)

    def write_record(self, name: str, record: Mapping) -> None:
        """Marks a stage as finished."""
        write_json(self.stage_dir(name) / RECORD_FILE, record)

    def _read(self, path: pathlib.Path) -> dict | None:
        if path not in self._contents:
            if not path.exists():
                return None
            self._contents[path] = read_json(path)
        return self._contents[path]
