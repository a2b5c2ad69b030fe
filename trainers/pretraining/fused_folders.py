"""Fusions of models of other libraries, from folder to folder."""

import pathlib
from collections.abc import Callable, Sequence

from keras_fusion import interop
from keras_fusion.interop import presets, verifying
from keras_fusion.options import COUNTS, is_count
from trainers import checkpoints
from trainers.errors import UserError, os_errors

TRANSFORMERS, KERAS_HUB, CHECKPOINTS = "transformers", "keras_hub", "keras_fusion"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# The weights of a checkpoint are called as those of transformers.
_OURS = (checkpoints.MARKER_FILE, checkpoints.MANIFEST_FILE, checkpoints.CHECKPOINT_FOLDER)
_AXES = ("mlp", "heads", "hidden")


def kind_of(folders: Sequence[str]) -> str:
    """Returns the library that folders are of.

    Raises:
        UserError: they are of several.
    """
    kinds = {folder: _kind(folder) for folder in folders}
    if len(set(kinds.values())) > 1:
        raise UserError(
            "sources of one library",
            ", ".join(f"{folder!r} of {kind}" for folder, kind in kinds.items()),
            "Convert some of them with trainers.convert first",
        )
    return kinds[folders[0]]


def _kind(folder: str) -> str:
    if not pathlib.Path(folder).exists():
        raise UserError("a folder that exists", f"source={folder!r}", "Check the path")
    if presets.is_preset(folder):
        return KERAS_HUB
    if any((pathlib.Path(folder) / name).exists() for name in _OURS):
        return CHECKPOINTS
    # Damaged ones too: what is wrong with them is said where they are read.
    return TRANSFORMERS if interop.is_folder(folder) else CHECKPOINTS


def fuse_transformers(config) -> pathlib.Path | None:
    """Fuses folders of transformers.

    Args:
        config: a `FuseConfig`.

    Returns:
        The folder that was written; None for a dry run.

    Raises:
        kf.FusionError: the sources cannot be fused, or the result is not what it should be.
        UserError: the output cannot be written.
    """
    options = {name: getattr(config, name) for name in ("norm", "noise", "noise_kind", "seed")}
    plan = interop.plan_fusion(config.sources, grow=config.grow, **options)
    print(plan.describe(config.max_shard_size))
    if config.dry_run:
        return None
    written = {"max_shard_size": config.max_shard_size, "command": config.command}
    with os_errors("to write a model", f"output={config.output!r}"):
        plan.write(config.output, check=_check(plan, config.verify), **written)
    print(f"Wrote {config.output}")
    return pathlib.Path(config.output)


def _check(plan, is_wanted: bool | None) -> Callable | None:
    """The check of a written folder; None where it cannot be, or is not to be."""
    if is_wanted is False:
        return None
    obstacle = verifying.obstacle(plan)
    if obstacle and is_wanted:
        raise UserError(
            "to verify the result, as --verify asks",
            obstacle,
            "Leave out --verify, or give --noverify",
        )
    if obstacle:
        print(f"not verified: {obstacle}")
        return None

    def check(plan, folder):
        result = verifying.verify(plan, folder)
        print(result)
        return result

    return check


def fuse_presets(config) -> pathlib.Path | None:
    """Fuses presets of KerasHub; arguments, result and errors as for `fuse_transformers`."""
    if config.grow:
        options = {"growth": config.grow, "noise": config.noise, "seed": config.seed}
    else:
        options = {name: getattr(config, name) for name in ("norm", "noise", "noise_kind", "seed")}
    plan = interop.plan_presets(config.sources, **options)
    print(plan.describe())
    if config.dry_run:
        return None
    with os_errors("to write a model", f"output={config.output!r}"):
        plan.write(config.output, command=config.command, check=config.verify is not False)
    print(f"Wrote {config.output}")
    return pathlib.Path(config.output)


def read_size(flag: str, text: str) -> int:
    """Returns the bytes that a text such as 5GB stands for.

    Raises:
        UserError: it stands for none.
    """
    number = text.strip().upper().rstrip("BKMGT")
    unit = text.strip().upper()[len(number) :]
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise UserError(
            f"--{flag} to be a size",
            f"{flag}={text!r}",
            "Give a number with a unit, such as 5GB or 500MB",
        )
    return size


def read_growth(flag: str, text: str) -> dict[str, int]:
    """Returns the axes with their factors that a text such as mlp:2,heads:3 stands for.

    Raises:
        UserError: it stands for none.
    """
    growth = {}
    for part in text.split(","):
        axis, _, factor = (word.strip() for word in part.partition(":"))
        is_number = factor.isdecimal() and len(factor) < 10
        if axis not in _AXES or axis in growth or not (is_number and is_count(int(factor))):
            raise UserError(
                f"--{flag} to name each of the axes {', '.join(_AXES)} once, with {COUNTS}",
                f"{flag}={text!r}",
                "Write it as mlp:2 or mlp:2,heads:2",
            )
        growth[axis] = int(factor)
    return growth
