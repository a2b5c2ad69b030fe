"""Progress of a run and the order of its batches: what a checkpoint keeps beside the tensors."""

import copy
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

from trainers.engines.base import Batch, StepSums
from trainers.errors import UserError


@dataclasses.dataclass(frozen=True)
class Window:
    """Sums of the steps since the last training line, and the wall time of their calls."""

    sums: StepSums = StepSums()
    seconds: float = 0.0

    def add(self, sums: StepSums, seconds: float) -> "Window":
        """Returns the window with some more steps."""
        return Window(self.sums + sums, self.seconds + seconds)

    def to_dict(self) -> dict:
        """Returns what JSON keeps; the learning rate of a line is that of its last step."""
        kept = ("steps", "loss_sum", "tokens", "correct")
        return {name: getattr(self.sums, name) for name in kept} | {"seconds": self.seconds}

    @classmethod
    def from_dict(cls, written: Mapping) -> "Window":
        """Returns the window that `to_dict` described."""
        sums = {name: value for name, value in written.items() if name != "seconds"}
        return cls(StepSums(**sums), written["seconds"])


@dataclasses.dataclass
class Progress:
    """State of a run beside its tensors; more on its fields at `TrainResult`."""

    step: int = 0
    device_seconds: float = 0.0
    curve: list[dict] = dataclasses.field(default_factory=list)
    # Indices of batches that no step takes, ascending.
    skipped: list[int] = dataclasses.field(default_factory=list)
    window: Window = Window()  # a checkpoint may lie between two training lines
    # Kind of measurement to the seconds that it took so far.
    measured: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict:
        """All but the step, which the checkpoint has itself."""
        fields = {name: value for name, value in vars(self).items() if name != "step"}
        return fields | {"window": self.window.to_dict()}

    @classmethod
    def from_dict(cls, step: int, written: Mapping) -> "Progress":
        """Returns the progress that `to_dict` described; an older checkpoint may lack some.

        Raises:
            UserError: it is that of no run.
        """
        try:
            fields = copy.deepcopy(dict(written))
            if "window" in fields:
                fields["window"] = Window.from_dict(fields["window"])
            progress = cls(step, **fields)
            if not all(type(point["step"]) is int for point in progress.curve):
                raise ValueError("a point of the curve without a step")
            return progress
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            do = "Use another checkpoint, or start in a new folder"
            raise UserError("the progress of a run in a checkpoint", repr(error), do) from error

    def skip(self, indices: Iterable[int]) -> None:
        """Takes batches out of the order of those that are still to come."""
        self.skipped = sorted({*self.skipped, *indices})

    def batch_index(self, step: int) -> int:
        """Index of the batch of a step: the step-th, counted from 0, that is not skipped.

        Example:
            >>> [Progress(skipped=[1, 2]).batch_index(step) for step in (0, 1, 2)]
            [0, 3, 4]
        """
        index = step
        for skipped in self.skipped:
            index += skipped <= index
        return index

    def feed(self, batches) -> Iterator[Batch]:
        """Returns an iterator of the batches from this step on; see `StageJob`."""
        start = self.batch_index(self.step)
        source = batches.from_step(start)
        if not self.skipped or self.skipped[-1] < start:
            return source
        skipped = frozenset(self.skipped)
        numbered = zip(itertools.count(start), source, strict=False)
        return (batch for index, batch in numbered if index not in skipped)
