"""Models from and to the folders of stages, for fused stages, `trainers.fuse` and finetuning.

A folder may be that of a stage (W/small_0), its checkpoints (W/small_0/checkpoints) or one
checkpoint (W/small_0/checkpoints/step_00003000); of several checkpoints the newest good one counts.

Example:
    >>> model, checkpoint = load_model("W/small_0")
    >>> checkpoint.step
    3000
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import keras

import keras_fusion as kf
from trainers import checkpoints
from trainers.engines.base import state_variables
from trainers.errors import UserError
from trainers.loop import CHECKPOINT_FOLDER


def find_checkpoint(path: str | os.PathLike) -> checkpoints.Checkpoint:
    """Opens the newest good checkpoint of a folder.

    Args:
        path: folder of a stage, of checkpoints, or of one checkpoint.

    Raises:
        UserError: there is no such folder, no checkpoint in it, or no good one.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise UserError(
            "Expected the folder of a stage or checkpoint. "
            f"Received: folder={str(path)!r}, which is none. Check the path."
        )
    if (path / checkpoints.MARKER_FILE).exists() or (path / checkpoints.MANIFEST_FILE).exists():
        return checkpoints.load(path)
    inside = path / CHECKPOINT_FOLDER
    found = checkpoints.latest(inside if inside.is_dir() else path)
    if found is None:
        raise UserError(
            f"Expected a checkpoint in the folder or in its {CHECKPOINT_FOLDER}/. "
            f"Received: folder={str(path)!r}, which has none. Train the stage first."
        )
    return found


def load_model(
    path: str | os.PathLike, dropout: float | None = None
) -> tuple["kf.models.T5", checkpoints.Checkpoint]:
    """Builds the model of a checkpoint and sets its weights.

    Args:
        path: as for `find_checkpoint`.
        dropout: rate that the model is to have; None keeps its own.

    Returns:
        The model and the checkpoint that it came from.

    Raises:
        UserError: as for `find_checkpoint`; its configuration is not that of a T5; or its weights
            do not fit the configuration.
    """
    checkpoint = find_checkpoint(path)
    config = _config(checkpoint)
    if dropout is not None:
        config = dataclasses.replace(config, dropout=dropout)
    _check_size(config, checkpoint)
    model = kf.models.T5(config, seed=0)
    try:
        checkpoints.load_weights_into(model, checkpoint.path)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
    return model, checkpoint


def save_model(model, folder: str | os.PathLike, settings: Mapping) -> pathlib.Path:
    """Writes an untrained model as the checkpoint of step 0 of a new folder.

    Args:
        model: a built `kf.models.T5`.
        folder: the folder that `find_checkpoint` is to find it in.
        settings: what else the checkpoint says of itself.

    Returns:
        The checkpoint's folder.
    """
    state = {
        name: keras.ops.convert_to_numpy(variable.value)
        for name, variable in state_variables(model).items()
    }
    config = {"settings": {"model": model.config.to_dict(), **settings}}
    return checkpoints.save(pathlib.Path(folder) / CHECKPOINT_FOLDER, 0, state, config)


def _config(checkpoint: checkpoints.Checkpoint) -> "kf.models.T5Config":
    try:
        return kf.models.T5Config.from_dict(checkpoint.config["settings"]["model"])
    except (KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            "Expected a checkpoint with the configuration of a T5. "
            f"Received: checkpoint={str(checkpoint.path)!r} ({text}). Use another checkpoint."
        ) from error


def _check_size(config: "kf.models.T5Config", checkpoint: checkpoints.Checkpoint) -> None:
    """Refuses a configuration that its own file does not fill, before anything is allocated."""
    stored = sum(value.size for value in checkpoint.weights.values())
    expected = kf.models.parameter_count(config)
    if expected != stored:
        raise UserError(
            f"Expected {expected:,} weights as its configuration says. Received: "
            f"checkpoint={str(checkpoint.path)!r} with {stored:,}. Use another checkpoint."
        )
