"""What a fine-tuning is asked for: its settings, their defaults by size of model, and the flags."""

import dataclasses
import math
import os
from types import MappingProxyType

from absl import flags

from glue import tasks
from trainers.engines.devices import STRATEGIES, Devices
from trainers.engines.mesh import T5_LAYOUT
from trainers.errors import UserError

MIXTURE = "mixture"
DTYPES = ("float32", "mixed_bfloat16")

# Narrower models than T5's smallest are this project's tiny ones.
_PAPER_WIDTH = 512
PAPER_DEFAULTS = MappingProxyType(
    {
        "batch_size": 128,
        "input_length": 512,
        "target_length": 84,
        "steps": 262_144,
        "checkpoint_every": 5_000,
        "steps_per_call": 100,
    }
)
"""T5's own settings, for the models of Tables 8 and 9."""
TINY_DEFAULTS = MappingProxyType(
    {
        "batch_size": 32,
        # With 480 pieces 1 % of MRPC's examples are longer, a quarter of RTE's.
        "input_length": 256,
        "target_length": 16,
        "steps": 400,
        "checkpoint_every": 100,
        "steps_per_call": 20,
    }
)
"""What two processor cores do in a minute, for narrower models."""


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """What `glue.finetune` was asked for; checks itself.

    Args:
        checkpoint: folder of a stage, of its checkpoints, or of one checkpoint.
        pretrained: in its place, folder of a run of plan table5: all models that it has kept.
        tasks: names, each fine-tuned for itself; or `mixture`, alone for all of GLUE's, or followed
            by those that it has.
        workdir: the results folder.
        data_dir: the benchmark's files; None takes TensorFlow Datasets.
        synthetic: whether tasks are those that this project makes by rules.
        vocabulary: SentencePiece model or folder of tokens; None finds that of the checkpoint.
        model: row of the report's tables; None takes the stage's name.
        first_repeat: number of the first repeat; None counts on from that of the stage.
        repeats: how many, each with a seed of its own.
        seed: of repeat 0; repeat r has seed + r.
        learning_rate: constant.
        dropout: rate.
        dtype: "float32" or "mixed_bfloat16".
        packed: whether the rows of a batch hold several examples each, as many as fit; a batch then
            has about `batch_size` examples in fewer rows.
        batch_size: examples a batch. This and the next five are by default those of the model's
            size, see `resolved`.
        input_length: tokens of an input, EOS included; longer ones are cut.
        target_length: tokens of a target and of a generated text, EOS included.
        steps: of a fine-tuning.
        checkpoint_every: steps between checkpoints, each of which is evaluated.
        steps_per_call: training steps in one call of the device.
        eval_batches: most batches whose loss is followed in training.
        submission: whether to predict the test sets.
        devices: what it runs on.
        progress: whether to show progress bars.
        command: what was typed, for the report.

    Raises:
        UserError: a value is unknown, out of range, or does not go with the others.
    """

    checkpoint: str | None
    tasks: tuple[str, ...]
    workdir: str
    pretrained: str | None = None
    data_dir: str | None = None
    synthetic: bool = False
    vocabulary: str | None = None
    model: str | None = None
    first_repeat: int | None = None
    repeats: int = 1
    seed: int = 0
    learning_rate: float = 0.001
    dropout: float = 0.1
    dtype: str = "float32"
    packed: bool = False
    batch_size: int | None = None
    input_length: int | None = None
    target_length: int | None = None
    steps: int | None = None
    checkpoint_every: int | None = None
    steps_per_call: int | None = None
    eval_batches: int = 16
    submission: bool = True
    devices: Devices = Devices()
    progress: bool = True
    command: str = ""

    def __post_init__(self):
        if not self.workdir:
            _refuse_folder("--workdir", "workdir=''", "--workdir=FOLDER")
        if bool(self.checkpoint) == bool(self.pretrained):
            given = f"checkpoint={self.checkpoint!r}, pretrained={self.pretrained!r}"
            _refuse_folder("either --checkpoint or --pretrained", given, "one: --checkpoint=FOLDER")
        if self.pretrained and self.model is not None:
            _refuse("model", self.model, "left out with --pretrained, whose models have their own")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(
                    f"Expected --{name} to be at least {least}. Received: {name}={value}. "
                    "Give a larger number."
                )
        if not 0 < self.learning_rate < math.inf:
            _refuse("learning_rate", self.learning_rate, "a number above 0")
        if not 0 <= self.dropout < 1:
            _refuse("dropout", self.dropout, "from 0 to below 1")
        if self.dtype not in DTYPES:
            _refuse("dtype", self.dtype, " or ".join(DTYPES))
        if self.model is not None and (
            not self.model or os.path.basename(self.model) != self.model
        ):
            _refuse("model", self.model, "a name without /")
        self._check_tasks()

    def _check_tasks(self):
        known = tasks.SYNTHETIC if self.synthetic else tuple(tasks.TASKS)
        for name in self.named:
            if name not in known:
                raise UserError(
                    f"Expected --tasks to name {', '.join(known)}, or {MIXTURE} first. "
                    f"Received: task={name!r}. Choose among these."
                )
        if self.data_dir and self.synthetic:
            raise UserError(
                "Expected --data_dir or --synthetic. Received: "
                f"data_dir={self.data_dir!r}, synthetic=True. Leave out one of them."
            )

    @property
    def is_mixture(self) -> bool:
        """Whether one model learns all tasks at once."""
        return self.tasks[:1] == (MIXTURE,)

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the tasks, each once."""
        found = tuple(dict.fromkeys(self.tasks[1:] if self.is_mixture else self.tasks))
        return found or (tasks.SYNTHETIC if self.synthetic else tasks.MIXTURE)

    def resolved(self, width: int) -> "FinetuneConfig":
        """With the defaults for a model of some hidden_dim in place of every None."""
        defaults = PAPER_DEFAULTS if width >= _PAPER_WIDTH else TINY_DEFAULTS
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    def identity(self) -> dict:
        """What makes a fine-tuning what it is, besides model, data and seed."""
        names = ("learning_rate", "dropout", "dtype", "packed", *PAPER_DEFAULTS)
        return {name: getattr(self, name) for name in names if name != "steps_per_call"}


_LEAST = {
    "first_repeat": 0,
    "repeats": 1,
    "seed": 0,
    "batch_size": 1,
    "input_length": 2,
    "target_length": 2,
    "steps": 1,
    "checkpoint_every": 1,
    "steps_per_call": 1,
    "eval_batches": 1,
}


def _refuse_folder(which: str, given: str, add: str):
    raise UserError(f"Expected {which} to name a folder. Received: {given}. Add {add}.")


def _refuse(name: str, value: object, words: str):
    raise UserError(f"Expected --{name} to be {words}. Received: {name}={value!r}. Change it.")


def _by_size(name: str) -> str:
    return f"default {PAPER_DEFAULTS[name]}, of tiny models {TINY_DEFAULTS[name]}."


# How a flag is declared, its name, default, and what --help says of it.
_FLAGS = (
    (flags.DEFINE_string, "checkpoint", None, "Folder of a stage or checkpoint, such as W/NAME."),
    (
        flags.DEFINE_string,
        "pretrained",
        None,
        "Or folder of a run of trainers.pretrain --plan=table5: each model that it has kept.",
    ),
    (
        flags.DEFINE_list,
        "tasks",
        None,
        f"Tasks, one fine-tuning each: {', '.join(tasks.TASKS)}; or {MIXTURE}: one fine-tuning on "
        f"all of GLUE but WNLI, weighted by train sizes ({MIXTURE},cola,rte: on these). Default: "
        "all of GLUE but WNLI, one by one.",
    ),
    (flags.DEFINE_string, "workdir", None, "Folder of the results; several models may share it."),
    (
        flags.DEFINE_string,
        "data_dir",
        None,
        "The benchmark's files, CoLA/train.tsv, …; else TFDS.",
    ),
    (flags.DEFINE_bool, "synthetic", False, "Tasks made by rules, for which nothing is needed."),
    (
        flags.DEFINE_string,
        "vocabulary",
        None,
        "SentencePiece model or folder of tokens; or found.",
    ),
    (flags.DEFINE_string, "model", None, "Row in the report's tables; default the stage's name."),
    (
        flags.DEFINE_integer,
        "first_repeat",
        None,
        "Number of the first repeat; or the stage's.",
    ),
    (flags.DEFINE_integer, "repeats", 1, "Fine-tune so often; repeat r has the seed --seed + r."),
    (flags.DEFINE_integer, "seed", 0, "Seed of the order of examples and of dropout."),
    (flags.DEFINE_float, "learning_rate", 0.001, "Constant learning rate of Adafactor."),
    (flags.DEFINE_float, "dropout", 0.1, "Dropout rate."),
    (flags.DEFINE_string, "dtype", "float32", f"{' or '.join(DTYPES)}."),
    (flags.DEFINE_bool, "packed", False, "Several examples in a row of a batch: faster."),
    (flags.DEFINE_integer, "batch_size", None, f"Examples a batch; {_by_size('batch_size')}"),
    (flags.DEFINE_integer, "input_length", None, f"Input tokens; {_by_size('input_length')}"),
    (flags.DEFINE_integer, "target_length", None, f"Target tokens; {_by_size('target_length')}"),
    (flags.DEFINE_integer, "steps", None, f"Training steps; {_by_size('steps')}"),
    (
        flags.DEFINE_integer,
        "checkpoint_every",
        None,
        f"Steps between checkpoints, each of them evaluated; {_by_size('checkpoint_every')}",
    ),
    (
        flags.DEFINE_integer,
        "steps_per_call",
        None,
        f"Steps in one call of the device; {_by_size('steps_per_call')}",
    ),
    (flags.DEFINE_integer, "eval_batches", 16, "Most batches whose loss is followed in training."),
    (flags.DEFINE_bool, "submission", True, "Predict the test sets, in the benchmark's format."),
    (flags.DEFINE_string, "strategy", "auto", f"TensorFlow: {', '.join(STRATEGIES)}."),
    (flags.DEFINE_string, "tpu", None, "TPU of --strategy=tpu: its name, or local."),
    (flags.DEFINE_string, "mesh_shape", None, "JAX: name:size pairs, such as batch:2,model:2."),
    (flags.DEFINE_string, "layout", None, f"JAX: axis:mesh dimension pairs; default {T5_LAYOUT}."),
    (flags.DEFINE_integer, "microbatches", 1, "Parts that a device's batch is cut into."),
    (flags.DEFINE_bool, "progress", True, "Show progress bars."),
)
_DEVICE_FLAGS = ("strategy", "tpu", "mesh_shape", "layout", "microbatches")


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares this binary's flags in `values`."""
    for define, name, default, text in _FLAGS:
        define(name, default, text, flag_values=values)


def config_from_flags(values: flags.FlagValues, command: str = "") -> FinetuneConfig:
    """Reads the flags into the configuration; `command` is what the report says was typed.

    Raises:
        UserError: the configuration refuses itself.
    """
    devices = Devices(**{name: values[name].value for name in _DEVICE_FLAGS})
    given = {name: values[name].value for _, name, *_ in _FLAGS if name not in _DEVICE_FLAGS}
    given["tasks"] = tuple(name.strip() for name in given["tasks"] or () if name.strip())
    given["workdir"] = given["workdir"] or ""
    return FinetuneConfig(**given, devices=devices, command=command)
