"""Outlook of a command: the FLOPs that it has still to spend, and the time that they will take.

FLOPs are known before the first step. The speed is measured: wall time per FLOP, evaluations and
checkpoints included, of the stages of each size. Until a size has been trained, that of another one
stands for it. Each stage that has not begun also takes what the latest one took before its first
step, since the end of the one before it: for evaluating, building and compiling. Before the first
step of all, a matrix product is timed instead.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np

import keras_fusion as kf
from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.engines.flops import planned_step_flops
from trainers.plans.graph import Stage
from trainers.plans.settings import StageSettings
from trainers.runs.state import RunState

# Of the speed of a matrix product, in wall time of whole runs: for size tiny 0.2 and 0.7 were
# measured on CPUs of two machines.
_SHARE = 0.4


@dataclasses.dataclass
class Work:
    """Work of one stage of a command, or of one fine-tuning."""

    size: str  # of the model: works of one size take the same time per FLOP
    flops_per_step: float
    steps: int  # in all
    step: int = 0  # that it has reached, in this command or before
    is_bound: bool = False  # whether it may cost less: it ends early, or packs its rows
    rivals: tuple[str, ...] = ()  # see `Stage`, as the next two
    keep: int = 1
    promoted: frozenset[str] = frozenset()
    has_begun: bool = False  # in this command

    @classmethod
    def of_stage(cls, stage: Stage, flops_per_step: float, steps: int, step: int = 0) -> "Work":
        """Returns the work of a stage of a plan."""
        rivals = (stage.until is not None, stage.rivals, stage.keep, frozenset(stage.promoted))
        return cls(stage.size, flops_per_step, steps, step, *rivals)

    @property
    def flops(self) -> float:
        """FLOPs of the whole stage."""
        return self.flops_per_step * self.steps

    @property
    def left(self) -> float:
        """FLOPs that are left of it."""
        return self.flops_per_step * (self.steps - self.step)


class Outlook:
    """Work of all stages of a command, and the speed measured so far.

    Stages may be trained side by side, each in a thread of its own.

    Args:
        works: of the stages to train, by name.
        speed: FLOPs per second that are expected before any are measured; None: no expectation.
        clock: seconds from any point in time.

    Example:
        >>> outlook = Outlook({"a": Work("S", 10.0, steps=5)})
        >>> outlook.begin("a")
        >>> outlook.flops, outlook.took("a", step=1, count=1, seconds=2.0)[0]
        (50.0, 8.0)
    """

    def __init__(
        self,
        works: Mapping[str, Work],
        speed: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.works = dict(works)
        self._speed = speed
        self._clock = clock
        self._begun: dict[str, float] = {}  # stage to the time when it began
        self._ended: float | None = None  # time when the latest stage ended
        self._setup = 0.0  # seconds before the first step of the latest stage
        self._spent: dict[str, tuple[float, float]] = {}  # size to FLOPs and seconds
        self._last = ""  # size that was measured last
        self._noted: dict[str, float] = {}  # stage that is in training to the time of its last note

    @property
    def flops(self) -> float:
        """FLOPs that are left; of rivals, those of as many as will go on."""
        return self._sum(lambda work: work.left)

    @property
    def is_exact(self) -> bool:
        """False where works may cost less, or rivals cost unlike amounts: then it is a bound."""
        kept = self._by_rivals(lambda work: work.left).values()
        return not any(work.is_bound and work.left for work in self.works.values()) and all(
            math.isclose(min(costs), max(costs)) for costs in kept if min(costs)
        )

    @property
    def cost(self) -> str:
        """The cost of the command in words, as they are printed before the first step."""
        stages = [work for work in self.works.values() if work.left]
        if not stages:
            return "all stages are finished."
        of = "" if len(stages) == len(self.works) else f" of {len(self.works)}"
        number = f"{len(stages)}{of} stage{'s' * (len(self.works) > 1)}"
        bound = "" if self.is_exact else "at most "
        guess = f", roughly {duration(self.flops / self._speed)}" if self._speed else ""
        return (
            f"{number} to train, {bound}{self.flops:.4g} FLOPs{guess}; the time is measured after "
            "the first call."
        )

    def seconds(self) -> float | None:
        """Returns the seconds that are left at the speed measured; None before there is one."""
        if not self._spent:
            return None
        return self._sum(self._seconds_of) / max(1, len(self._noted))

    def begin(self, name: str) -> None:
        """Notes that a stage begins: its model is built, its steps are compiled."""
        self.works[name].has_begun = True
        self._begun[name] = self._clock() if self._ended is None else self._ended

    def took(self, name: str, step: int, count: int, seconds: float) -> tuple[float, str]:
        """Notes steps of a stage.

        Args:
            name: of the stage.
            step: that it has reached.
            count: steps since the note before.
            seconds: that their call took. What lies between two notes is measured here.

        Returns:
            The seconds that all stages have left, and a line that says so where the first stage of
            a size was measured; else it is empty.
        """
        work = self.works[name]
        size = work.size
        is_new = size not in self._spent
        now = self._clock()
        if name in self._noted:
            seconds = now - self._noted[name]
        else:
            self._setup = now - self._begun[name] - seconds
        self._noted[name] = now
        flops, spent = self._spent.get(size, (0.0, 0.0))
        self._spent[size] = flops + count * work.flops_per_step, spent + seconds
        self._last = size
        work.step = step
        left = self.seconds()
        is_news = is_new and left > 0
        news = f"About {duration(left)} left in all, measured on {name}." if is_news else ""
        return left, news

    def end(self, name: str) -> None:
        """Notes that a stage is trained, or left out."""
        self.works[name].step = self.works[name].steps
        self._noted.pop(name, None)
        self._ended = self._clock()

    def _seconds_of(self, work: Work) -> float:
        size = work.size if work.size in self._spent else self._last
        flops, seconds = self._spent[size]
        has_setup = work.left and not work.has_begun
        return work.left * seconds / flops + (self._setup if has_setup else 0.0)

    def _sum(self, cost: Callable[[Work], float]) -> float:
        alone = sum(cost(work) for work in self.works.values() if not work.rivals)
        rivals = self._by_rivals(cost).items()
        return alone + sum(sum(sorted(costs)[-keep:]) for (_, keep), costs in rivals)

    def _by_rivals(self, cost: Callable[[Work], float]) -> dict[tuple, list[float]]:
        """(rivals, how many of them go on) to the cost of what follows each of them."""
        groups: dict[tuple, dict[frozenset, float]] = {}
        for work in self.works.values():
            if work.rivals:
                after = groups.setdefault((work.rivals, work.keep), {})
                after[work.promoted] = after.get(work.promoted, 0.0) + cost(work)
        return {key: list(after.values()) for key, after in groups.items()}


def works(
    stages: Iterable[Stage],
    settings: Mapping[str, StageSettings],
    model_config: Callable[[Stage], "kf.models.T5Config"],
    state: RunState,
    batch_size: int,
    lengths: Callable[[Stage], tuple[int, int]],
) -> dict[str, Work]:
    """Returns the work of stages, of which some may be trained already, or in part.

    Args:
        stages: the stages that the command trains.
        settings: stage name to its settings.
        model_config: function from a stage to the configuration of its model.
        state: the folder of the run.
        batch_size: sequences per batch.
        lengths: function from a stage to the tokens of a sequence that encoder and decoder see.
    """
    all_work = {}
    for stage in stages:
        steps = settings[stage.name].steps
        flops = planned_step_flops(model_config(stage), batch_size, *lengths(stage))
        saves = checkpoints.steps(state.stage_dir(stage.name) / CHECKPOINT_FOLDER)
        is_finished = state.record(stage.name) is not None
        step = steps if is_finished else min(steps, max(saves, default=0))
        all_work[stage.name] = Work.of_stage(stage, flops, steps, step)
    return all_work


def expected_speed() -> float | None:
    """FLOPs per second that training may reach here, within a factor of two or three.

    A float32 matrix product is timed for some 200 ms. None where several accelerators work, of
    which one product says nothing.
    """
    devices = keras.distribution.list_devices()
    if len(devices) > 1 and not devices[0].startswith("cpu"):
        return None
    # One of 512 columns reached 60 % of that speed, with one thread.
    size = 1024 if devices[0].startswith("cpu") else 4096
    matrix = keras.ops.convert_to_tensor(np.ones((size, size), np.float32))
    times = []
    for _ in range(8):  # the first ones compile, and wake threads
        start = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.matmul(matrix, matrix)[0, 0])
        times.append(time.perf_counter() - start)
    return _SHARE * 2 * size**3 / min(times)


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> [duration(s) for s in (8, 90, 5400, 300_000)]
        ['8 s', '2 min', '1.5 h', '3.5 days']
    """
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    if seconds < 3600:
        return f"{math.ceil(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
