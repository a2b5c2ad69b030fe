"""The pretrained model that is fine-tuned: weights, vocabulary, and its row in the reports."""

import dataclasses
import pathlib
import re

import keras_fusion as kf
from glue.finetuning import vocabularies
from trainers.checkpoints import (
    CHECKPOINT_FOLDER,
    Checkpoint,
    read_manifest,
    step_folder,
)
from trainers.checkpoints.models import find_checkpoint, read_config
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError
from trainers.files import read_json
from trainers.plans.graph import repeat_name
from trainers.runs.workdir import RUN_FILE, STAGE_FILE

# The plan whose models are fine-tuned.
_PLAN = "table5"
# Small models that differ by their seed alone are one row of the paper's tables.
_SMALL = re.compile(r"small_\d+")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint with what belongs to it."""

    checkpoint: Checkpoint  # whose weights a fine-tuning starts from; optimizer slots start anew
    config: "kf.models.T5Config"  # of the model, with the dropout of the fine-tuning
    vocabulary: Vocabulary  # that it was pretrained with
    stage: str  # name of the pretraining stage, or of the folder of a fused model
    model: str  # row of the report's tables
    repeat: int  # number of the repeat of its stage, from 0
    before: int = 0  # steps of the stage that this one continues

    @property
    def steps(self) -> int:
        """Steps of pretraining, since the fusion where there was one."""
        return self.before + self.checkpoint.step

    @property
    def identity(self) -> dict[str, str]:
        """First digits of the hashes of weights and vocabulary."""
        weights = read_manifest(self.checkpoint.path).weights_sha256
        return {"weights": weights[:12], "vocabulary": self.vocabulary.sha256[:12]}

    def build(self, seed: int, dtype: str = "float32") -> "kf.models.T5":
        """The model with the checkpoint's weights, the dropouts of a seed, and a dtype policy."""
        return kf.models.T5.from_weights(
            self.config, self.checkpoint.weights, seed=seed, dtype=dtype
        )


def open_pretrained(
    folder: str, dropout: float, vocabulary: str | None = None, model: str | None = None
) -> Pretrained:
    """Opens a checkpoint for fine-tuning.

    Args:
        folder: of a stage, of checkpoints, or of one checkpoint; also what `trainers.fuse` wrote.
        model: row of the report's tables; None for what the plan of the run calls it (table5), or
            the name of the stage, without the number of its repeat; that of a small one is `small`.

    Raises:
        UserError: no checkpoint that can be used, or another vocabulary.
    """
    checkpoint = find_checkpoint(folder)
    config = read_config(checkpoint, dropout)
    words = vocabularies.find(checkpoint, config.vocabulary_size, vocabulary)
    home = checkpoint.path.resolve()
    if home.parent.name == CHECKPOINT_FOLDER:
        home = home.parent.parent
    stage = _json(home / STAGE_FILE)
    base = str(stage.get("repeat_of", home.name))
    point = _point(home.parent, base)
    row = model or point.get("model") or ("small" if _SMALL.fullmatch(base) else base)
    repeat, before = int(stage.get("repeat", 1)) - 1, int(point.get("before", 0))
    return Pretrained(checkpoint, config, words, home.name, str(row), max(0, repeat), before)


def of_plan(workdir: str) -> list[pathlib.Path]:
    """The checkpoints that a finished pretraining run has kept for Table 5, every repeat's."""
    home = pathlib.Path(workdir)
    plan = _json(home / RUN_FILE).get("experiments", {}).get(_PLAN)
    if plan is None:
        raise UserError(
            f"--pretrained to name a run of plan {_PLAN}",
            f"pretrained={workdir!r}, which has none",
            f"Run python -m trainers.pretrain --plan={_PLAN} --workdir={workdir} first",
        )
    paths = [
        home / repeat_name(stage, number) / CHECKPOINT_FOLDER / step_folder(step)
        for number in range(1, plan["repeats"] + 1)
        for stage, point in plan["points"].items()
        for step in point["steps"]
    ]
    if missing := [path for path in paths if not path.is_dir()]:
        raise UserError(
            f"the {len(paths)} checkpoints of plan {_PLAN}",
            f"{len(missing)} that are not there, the first is {str(missing[0])!r}",
            "Let trainers.pretrain train to its end",
        )
    return paths


def _point(run: pathlib.Path, stage: str) -> dict:
    """The point of Table 5 that a stage stands for in the plans of its run; empty without one."""
    plans = _json(run / RUN_FILE).get("experiments", {}).values()
    points = [plan.get("points", {}).get(stage, {}) for plan in plans]
    return next((point for point in points if "model" in point), {})


def _json(path: pathlib.Path) -> dict:
    return read_json(path) if path.exists() else {}
