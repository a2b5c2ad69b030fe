"""A window of training steps that the backend's own profiler records, for TensorBoard."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping

from trainers.engines.base import Engine
from trainers.errors import UserError


@dataclasses.dataclass(frozen=True)
class ProfileWindow:
    """The `count` steps that follow step `start`, which counts from 0: before it, nothing is taken.

    Example:
        >>> ProfileWindow.parse("profile", "100:10").end
        110
    """

    start: int
    count: int

    @classmethod
    def parse(cls, flag: str, text: str) -> "ProfileWindow":
        """Reads `STEP:COUNT`; a `UserError` names the flag."""
        numbers = re.fullmatch(r"\s*([0-9]{1,15}):([0-9]{1,15})\s*", text)
        if numbers is None or not int(numbers[2]):
            raise UserError(
                f"--{flag}=STEP:COUNT, whole numbers of at least 0 and 1",
                f"{flag}={text!r}",
                f"Write it as --{flag}=100:10, for the ten steps that follow step 100",
            )
        return cls(int(numbers[1]), int(numbers[2]))

    def check(self, steps: Mapping[str, int], side_by_side: bool = False) -> None:
        """Raises a `UserError` unless each stage has the window.

        Args:
            steps: stage name to its steps.
            side_by_side: whether several stages may be trained at a time.
        """
        if side_by_side:
            raise UserError(
                "--profile with one stage at a time, since a process has one profiler",
                f"profile={self}, parallel_stages=True",
                "Leave out --parallel_stages",
            )
        for name, number in steps.items():
            if self.end > number:
                raise UserError(
                    f"--profile=STEP:COUNT within the {number} steps of stage {name!r}",
                    f"profile={self}, which ends at step {self.end}",
                    "Take an earlier step, or profile one stage alone with --stage=NAME",
                )

    @property
    def end(self) -> int:
        """Step at which it ends."""
        return self.start + self.count

    def __str__(self):
        return f"{self.start}:{self.count}"


class Profiler:
    """Records the steps of a window, in however many calls they are taken.

    A run that resumes inside the window records the rest of it, one that resumes after it nothing.

    Args:
        window: None records nothing.
        engine: runs the steps; only one of several hosts records.
        folder: where the backend puts its files, below `plugins/profile/`.
    """

    def __init__(self, window: ProfileWindow | None, engine: Engine, folder: pathlib.Path):
        self._window = window
        self._engine = engine
        self._folder = folder
        self._since: int | None = None  # step at which recording began, while it does

    def end_of_call(self, step: int, end: int) -> int:
        """Returns where a call from `step` ends, so that none is partly in the window."""
        edges = (self._window.start, self._window.end) if self._window else ()
        return min([end, *(edge for edge in edges if edge > step)])

    def before(self, step: int) -> None:
        """Starts to record where the call that begins at `step` is in the window."""
        window = self._window
        is_in = window is not None and window.start <= step < window.end
        if is_in and self._since is None and self._engine.is_chief:
            self._engine.start_profile(self._folder)
            self._since = step

    def after(self, step: int) -> str:
        """Ends at the end of the window; returns what there is to say, or an empty text."""
        if self._since is None or step < self._window.end:
            return ""
        steps = f"from step {self._since} to step {self._window.end}"
        self.close()
        return f"Profiled {steps}: tensorboard --logdir={self._folder}"

    def close(self) -> None:
        """Ends wherever the run is."""
        if self._since is not None:
            self._since = None
            self._engine.stop_profile()
