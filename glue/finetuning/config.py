"""The settings of a fine-tuning, which are its flags, and their defaults by size of model."""

import dataclasses
import os

from glue import tasks
from trainers.engines.devices import Devices
from trainers.errors import UserError
from trainers.plans.settings import DTYPES
from trainers.programs import check_options, option, options
from trainers.storage import Kind

MIXTURE = "mixture"

# Narrower models than T5's smallest are this project's tiny ones.
_PAPER_WIDTH = 512
# T5's own settings, for the models of Tables 8 and 9, and those for narrower ones, which two
# processor cores train in a minute. With 480 pieces 1 % of MRPC's examples are longer than 256
# tokens, a quarter of RTE's.
_DEFAULTS = {
    "batch_size": (128, 32),
    "input_length": (512, 256),
    "target_length": (84, 16),
    "steps": (262_144, 400),
    "checkpoint_every": (5_000, 100),
    "steps_per_call": (100, 20),
}


def _by_size(name: str, help: str, at_least: int = 1) -> int | None:
    """A number whose default follows from the size of the model."""
    paper, tiny = _DEFAULTS[name]
    return option(None, f"{help} Default: {paper}, of tiny models {tiny}.", at_least=at_least)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """The settings of `glue.finetune`; checks itself. Fields without a flag: `command`."""

    checkpoint: str | None = option(
        None,
        "Folder of a stage, of its checkpoints, or of one checkpoint.",
        group="Model",
        place=Kind.READ,
    )
    pretrained: str | None = option(
        None,
        "Or folder of a run of trainers.pretrain --plan=table5: each model that it has kept.",
        place=Kind.KEPT,
    )
    vocabulary: str | None = option(
        None,
        "SentencePiece model or folder of tokens; without it that of the checkpoint's run.",
        place=Kind.FILE,
    )
    model: str | None = option(
        None, "Row in the report's tables; without it the name of the stage."
    )
    tasks: tuple[str, ...] = option(
        (),
        f"Tasks, one fine-tuning for each: {', '.join(tasks.TASKS)}; or {MIXTURE}: one fine-tuning "
        f"on all of GLUE but WNLI, weighted by train sizes ({MIXTURE},cola,rte: on these). "
        "Default: all of GLUE but WNLI, one by one.",
        group="Tasks",
    )
    data_dir: str | None = option(
        None,
        "The benchmark's files, CoLA/train.tsv, …; without it TensorFlow Datasets.",
        place=Kind.READ,
    )
    synthetic: bool = option(False, "Tasks made by rules, for which no data is needed.")
    submission: bool = option(True, "Predict the test sets, in the benchmark's format.")
    workdir: str = option(
        "",
        "Folder of the results; several models may share it.",
        required="FOLDER",
        group="Fine-tuning",
        place=Kind.RUN,
    )
    repeats: int = option(
        1, "Number of fine-tunings; repeat r has the seed --seed + r.", at_least=1
    )
    first_repeat: int | None = option(
        None, "Number of the first repeat; without it it follows from the stage's.", at_least=0
    )
    seed: int = option(0, "Seed of the order of examples and of dropout.", at_least=0)
    learning_rate: float = option(0.001, "Constant learning rate of Adafactor.", above=0)
    dropout: float = option(0.1, "Dropout rate.", at_least=0, below=1)
    dtype: str = option("float32", "Precision.", choices=DTYPES)
    packed: bool = option(
        False,
        "Several examples in each row of a batch: faster; a batch then has about --batch_size "
        "examples in fewer rows.",
    )
    batch_size: int | None = _by_size("batch_size", "Examples per batch.")
    input_length: int | None = _by_size(
        "input_length", "Tokens of an input, EOS included; longer ones are cut.", at_least=2
    )
    target_length: int | None = _by_size(
        "target_length", "Tokens of a target and of a generated text, EOS included.", at_least=2
    )
    steps: int | None = _by_size("steps", "Training steps.")
    checkpoint_every: int | None = _by_size(
        "checkpoint_every", "Steps between checkpoints, each of which is evaluated."
    )
    steps_per_call: int | None = _by_size("steps_per_call", "Steps in one call of the device.")
    eval_batches: int = option(
        16, "Most batches whose loss is followed while a model trains.", at_least=1
    )
    max_seconds: float | None = option(
        None, "Save and end with code 75 after so many seconds, in time for a limit.", above=0
    )
    progress: bool = option(True, "Show progress bars.")
    devices: Devices = options(Devices, without=("parallel_stages",))
    command: str = ""

    def __post_init__(self):
        check_options(self)
        if bool(self.checkpoint) == bool(self.pretrained):
            raise UserError(
                "either --checkpoint or --pretrained to name a folder",
                f"checkpoint={self.checkpoint!r}, pretrained={self.pretrained!r}",
                "Add one: --checkpoint=FOLDER",
            )
        if self.pretrained and self.model is not None:
            expected = "--pretrained alone, whose models have names of their own"
            raise UserError(expected, f"model={self.model!r}", "Leave out --model")
        if self.model is not None and os.path.basename(self.model) != (self.model or None):
            raise UserError("--model to be a name without /", f"model={self.model!r}", "Change it")
        if self.data_dir and self.synthetic:
            received = f"data_dir={self.data_dir!r}, synthetic=True"
            raise UserError("--data_dir or --synthetic", received, "Leave out one of them")
        names = tasks.SYNTHETIC if self.synthetic else tuple(tasks.TASKS)
        if unknown := [name for name in self.named if name not in names]:
            expected = f"--tasks to name {', '.join(names)}, or {MIXTURE} first"
            raise UserError(expected, f"task={unknown[0]!r}", "Choose among these")

    @property
    def is_mixture(self) -> bool:
        """True where one model learns all tasks at once."""
        return self.tasks[:1] == (MIXTURE,)

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the tasks, each once."""
        names = tuple(dict.fromkeys(self.tasks[1:] if self.is_mixture else self.tasks))
        return names or (tasks.SYNTHETIC if self.synthetic else tasks.MIXTURE)

    def resolved(self, width: int) -> "FinetuneConfig":
        """Returns the settings with the defaults for a model of some hidden_dim for every None."""
        is_tiny = width < _PAPER_WIDTH
        missing = [name for name in _DEFAULTS if getattr(self, name) is None]
        return dataclasses.replace(self, **{name: _DEFAULTS[name][is_tiny] for name in missing})

    def identity(self) -> dict:
        """The settings that tell a fine-tuning from others, besides model, data and seed."""
        names = ("learning_rate", "dropout", "dtype", "packed", *_DEFAULTS)
        return {name: getattr(self, name) for name in names if name != "steps_per_call"}
