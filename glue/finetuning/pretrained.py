"""The pretrained model that is fine-tuned: weights, vocabulary, and what reports call it."""

import dataclasses
import pathlib
import re

import keras_fusion as kf
from glue.finetuning import vocabularies
from trainers.checkpoints import CHECKPOINT_FOLDER, MODEL_FILE, Checkpoint, read_manifest
from trainers.checkpoints.format import step_folder
from trainers.checkpoints.models import find_checkpoint, read_config
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError
from trainers.files import read_json
from trainers.plans.graph import repeat_name
from trainers.runs.workdir import RUN_FILE, STAGE_FILE

# The plan whose models are fine-tuned, and the field of its points that says after which steps.
_PLAN, _STEPS = "table5", "steps"
# Small models that differ by their seed alone are one row of the paper's tables.
_SMALL = re.compile(r"small_\d+")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint with what belongs to it.

    Args:
        checkpoint: whose weights a fine-tuning starts from; optimizer slots start anew.
        config: of the model, with the dropout of the fine-tuning.
        vocabulary: that it was pretrained with.
        stage: name of the pretraining stage, or of the folder of a fused model.
        model: row of the report's tables.
        repeat: which repeat of its stage it is, from 0.
        before: steps of the stage that this one goes on from.
    """

    checkpoint: Checkpoint
    config: "kf.models.T5Config"
    vocabulary: Vocabulary
    stage: str
    model: str
    repeat: int
    before: int = 0

    @property
    def steps(self) -> int:
        """Steps of pretraining, since the fusion where there was one."""
        return self.before + self.checkpoint.step

    @property
    def identity(self) -> dict[str, str]:
        """How the hashes of weights and vocabulary begin: what tells the model from others."""
        weights = read_manifest(self.checkpoint.path).files[MODEL_FILE].sha256
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
        dropout: rate that the model is to have.
        vocabulary: as for `glue.finetuning.vocabularies.find`.
        model: row of the report's tables; None for what the plan of the run calls it (table5), or
            the name of the stage, without the number of its repeat; that of a small one is `small`.

    Raises:
        UserError: no checkpoint that can be used, or another vocabulary.
    """
    checkpoint = find_checkpoint(folder)
    config = read_config(checkpoint, dropout)
    found = vocabularies.find(checkpoint, config.vocabulary_size, vocabulary)
    home = _home(checkpoint.path.resolve())
    facts = _json(home / STAGE_FILE)
    base = str(facts.get("repeat_of", home.name))
    point = _point(home, base)
    row = model or point.get("model") or ("small" if _SMALL.fullmatch(base) else base)
    repeat = max(0, int(facts.get("repeat", 1)) - 1)
    return Pretrained(
        checkpoint, config, found, home.name, str(row), repeat, int(point.get("before", 0))
    )


def of_plan(workdir: str) -> list[pathlib.Path]:
    """The checkpoints that a pretraining run has kept for Table 5, every repeat's.

    Args:
        workdir: of a run of `trainers.pretrain --plan=table5` that has ended.

    Raises:
        UserError: no such run, or one of the checkpoints is not there (yet).
    """
    home = pathlib.Path(workdir)
    plan = _json(home / RUN_FILE).get("experiments", {}).get(_PLAN)
    if plan is None:
        raise UserError(
            f"Expected --pretrained to name a run of plan {_PLAN}. Received: "
            f"pretrained={workdir!r}, which has none. Run python -m trainers.pretrain "
            f"--plan={_PLAN} --workdir={workdir} first."
        )
    found = []
    for number in range(1, plan["repeats"] + 1):
        for stage, point in plan["points"].items():
            saved = home / repeat_name(stage, number) / CHECKPOINT_FOLDER
            found += [saved / step_folder(step) for step in point[_STEPS]]
    missing = [path for path in found if not path.is_dir()]
    if missing:
        raise UserError(
            f"Expected the {len(found)} checkpoints of plan {_PLAN}. Received: "
            f"{len(missing)} that are not there, the first is {str(missing[0])!r}. "
            "Let trainers.pretrain train to its end."
        )
    return found


def _home(path: pathlib.Path) -> pathlib.Path:
    """The folder whose name is the stage's."""
    return path.parent.parent if path.parent.name == CHECKPOINT_FOLDER else path


def _point(home: pathlib.Path, stage: str) -> dict:
    """What the run's plans say that a stage stands for in Table 5, if one of them does."""
    plans = _json(home.parent / RUN_FILE).get("experiments", {}).values()
    points = [plan.get("points", {}).get(stage, {}) for plan in plans]
    return next((point for point in points if "model" in point), {})


def _json(path: pathlib.Path) -> dict:
    return read_json(path) if path.exists() else {}
