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
from collections.abc import Mapping, Sequence

import numpy as np

import keras_fusion as kf
from keras_fusion.layers.fusing import FusionOptions
from keras_fusion.layers.values import array_of
from keras_fusion.models.t5 import shared_skeleton
from keras_fusion.optimizers.growth import lazy_state
from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.engines.base import Engine
from trainers.engines.state import state_variables
from trainers.errors import UserError

# Names under which `state_variables` has an optimizer's state; those of Adam's slots by the letters
# that `keras_fusion.optimizers.growth` has for them.
OPTIMIZER_PREFIX = "optimizer/"
ITERATIONS = OPTIMIZER_PREFIX + "iteration"
_ADAM_SLOTS = {"m": "momentum", "v": "velocity"}


def find_checkpoint(path: str | os.PathLike, hosts: Engine | None = None) -> checkpoints.Checkpoint:
    """Opens the newest good checkpoint of a folder of a stage, of checkpoints, or of one of them.

    Args:
        path: the folder.
        hosts: as for `trainers.checkpoints.latest`.

    Raises:
        UserError: there is no such folder, no checkpoint in it, or no good one.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        fault = f"folder={str(path)!r}, which is none"
        raise UserError("the folder of a stage or checkpoint", fault, "Check the path")
    if (path / checkpoints.MARKER_FILE).exists() or (path / checkpoints.MANIFEST_FILE).exists():
        return checkpoints.load(path)
    inside = path / CHECKPOINT_FOLDER
    checkpoint = checkpoints.latest(inside if inside.is_dir() else path, hosts=hosts)
    if checkpoint is None:
        raise UserError(
            f"a checkpoint in the folder or in its {CHECKPOINT_FOLDER}/",
            f"folder={str(path)!r}, which has none",
            "Train the stage first, or restore what it had",
        )
    return checkpoint


def load_model(
    path: str | os.PathLike, dropout: float | None = None
) -> tuple["kf.models.T5", checkpoints.Checkpoint]:
    """Returns the model of a checkpoint, and the checkpoint; see the two functions."""
    checkpoint = find_checkpoint(path)
    return build_model(checkpoint, dropout), checkpoint


def build_model(checkpoint: checkpoints.Checkpoint, dropout: float | None = None) -> "kf.models.T5":
    """Builds the model of a checkpoint from its weights; arguments as for `read_config`."""
    config = read_config(checkpoint, dropout)
    try:
        return kf.models.T5.from_weights(config, checkpoint.weights, seed=0)
    except ValueError as error:
        raise _unusable("the weights of its configuration", checkpoint, f"({error})") from error


def fused_weights(
    sources: Sequence[checkpoints.Checkpoint], dropout: float | None = None, **how
) -> tuple["kf.models.T5Config", dict]:
    """Fuses checkpoints; the fused weights are computed from their files when they are read.

    Args:
        sources: checkpoints; the same one may stand twice.
        dropout: rate that the fused model is to have; None keeps the sources' own.
        **how: other arguments, as for `kf.models.fused_weights`.

    Returns:
        Configuration and weights, for `kf.models.T5.from_weights`.
    """
    configs = [read_config(checkpoint, dropout) for checkpoint in sources]
    return kf.models.fused_weights(configs, [checkpoint.weights for checkpoint in sources], **how)


def grown_weights(
    source: checkpoints.Checkpoint, factors: Mapping[str, int], **how
) -> tuple["kf.models.T5Config", dict]:
    """Grows some axes of a checkpoint; returns configuration and weights as `fused_weights`.

    Args:
        source: the checkpoint.
        factors: `{axis: factor}`.
        **how: other arguments, as for `kf.models.grown_weights`.
    """
    return kf.models.grown_weights(read_config(source), source.weights, factors, **how)


def stacked_weights(
    source: checkpoints.Checkpoint, copies: int, dropout: float | None = None
) -> tuple["kf.models.T5Config", dict]:
    """Stacks the layers of a checkpoint; returns configuration and weights as `fused_weights`."""
    return kf.models.stacked_weights(read_config(source, dropout), source.weights, copies)


def grown_slots(
    sources: Sequence[checkpoints.Checkpoint],
    grow: Sequence[str],
    blocks: str,
    min_dim_size_to_factor: int = 128,
) -> dict[str, np.ndarray]:
    """Grows the optimizer state of checkpoints by the map of their weights, as it is read.

    Slots are read and computed one weight at a time, whole: a block off the diagonal takes averages
    over all of the sources' slots, whatever part of it a device holds.

    Args:
        sources: checkpoints of one optimizer; the same one may stand twice.
        grow: axes that grow.
        blocks: blocks that have grown state, as for `kf.optimizers.growth.grow_state`.
        min_dim_size_to_factor: that of the fused model's `Adafactor`.

    Returns:
        The slots of the fused model's optimizer under the names of `state_variables`, with shapes
        and slicing.
    """
    states = {id(checkpoint): _slots_of(checkpoint) for checkpoint in sources}
    skeletons = [shared_skeleton(read_config(checkpoint)) for checkpoint in sources]
    options = FusionOptions.of(grow, len(sources))
    grown = lazy_state(
        kf.weight_axes(skeletons[0]),
        grow,
        [states[id(checkpoint)] for checkpoint in sources],
        skeletons[0].weight_factors(skeletons, options),
        min_dim_size_to_factor,
        blocks,
    )
    return {
        f"{OPTIMIZER_PREFIX}{path}/{_ADAM_SLOTS[key] if 'm' in slots else key}": value
        for path, slots in grown.items()
        for key, value in slots.items()
    }


def optimizer_steps(checkpoint: checkpoints.Checkpoint) -> int:
    """Returns the step count of a checkpoint's optimizer."""
    return int(checkpoint.training[ITERATIONS])


def _slots_of(checkpoint: checkpoints.Checkpoint) -> dict[str, dict[str, np.ndarray]]:
    """Optimizer slots of a checkpoint, `{path of the weight: {slot: array}}`, yet to be read."""
    keys = {name: key for key, name in _ADAM_SLOTS.items()}
    slots: dict[str, dict[str, np.ndarray]] = {path: {} for path in checkpoint.weights}
    for name, value in checkpoint.training.items():
        path, _, slot = name.removeprefix(OPTIMIZER_PREFIX).rpartition("/")
        if name.startswith(OPTIMIZER_PREFIX) and path in slots:
            slots[path][keys.get(slot, slot)] = value
    if without := [path for path, keyed in slots.items() if not keyed]:
        fault = f"without that of {len(without)} weights, the first {without[0]}"
        raise _unusable("the optimizer state of every weight", checkpoint, fault)
    return slots


def save_model(model, folder: str | os.PathLike, settings: Mapping) -> pathlib.Path:
    """Writes an untrained model as the checkpoint of step 0 of a new folder.

    Args:
        model: a built `kf.models.T5`. Where it is deferred, its weights are computed one by one.
        folder: the folder that `find_checkpoint` is to find it in.
        settings: further entries of the checkpoint's settings.
    """
    state = {name: array_of(variable) for name, variable in state_variables(model).items()}
    config = {"settings": {"model": model.config.to_dict(), **settings}}
    return checkpoints.save(pathlib.Path(folder) / CHECKPOINT_FOLDER, 0, state, config)


def read_config(
    checkpoint: checkpoints.Checkpoint, dropout: float | None = None
) -> "kf.models.T5Config":
    """The configuration of a checkpoint's model.

    Args:
        checkpoint: what `find_checkpoint` returned.
        dropout: rate that it is to have; None keeps its own.

    Raises:
        UserError: it is not that of a T5, or of one of another size than its own weights.
    """
    try:
        config = kf.models.T5Config.from_dict(checkpoint.config["settings"]["model"])
    except (KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise _unusable("the configuration of a T5", checkpoint, f"({text})") from error
    # Before anything is allocated.
    stored = sum(value.size for value in checkpoint.weights.values())
    expected = kf.models.parameter_count(config)
    if expected != stored:
        expected = f"{expected:,} weights as its configuration says"
        raise _unusable(expected, checkpoint, f"with {stored:,}")
    return config if dropout is None else dataclasses.replace(config, dropout=dropout)


def _unusable(expected: str, checkpoint: checkpoints.Checkpoint, fault: str) -> UserError:
    received = f"checkpoint={str(checkpoint.path)!r} {fault}"
    return UserError(expected, received, "Use another checkpoint")
