"""Models fused from checkpoints without training: what `trainers.fuse` does."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import keras_fusion as kf
from keras_fusion.interop.cards import growth_summary
from keras_fusion.interop.writing import MAX_SHARD_SIZE
from keras_fusion.layers.fusing import unusable_values
from keras_fusion.layers.values import deferred
from keras_fusion.noise import NOISE_KINDS
from keras_fusion.options import NORMS
from trainers.checkpoints import CHECKPOINT_FOLDER, Checkpoint, models
from trainers.checkpoints.format import PARTIAL
from trainers.data.batches import PretrainingBatches
from trainers.data.objectives import Objective
from trainers.errors import UserError
from trainers.pretraining import fused_folders
from trainers.programs import check_options, option, options
from trainers.storage import Kind, shown


@dataclasses.dataclass(frozen=True)
class FuseConfig:
    """Sources and options of a fusion; checks itself."""

    sources: tuple[str, ...] = option(
        (),
        "Folders of stages or checkpoints, of transformers, or presets of KerasHub; two or more of "
        "one kind; one may stand twice.",
        group="Fusion",
        place=Kind.READ,
    )
    output: str = option("", "New folder for the fused model.", place=Kind.NEW)
    norm: str = option("property", "Norm that is kept (section 3.2).", choices=NORMS)
    noise: float = option(0.0, "Standard deviation of the noise over the weights' RMS.", at_least=0)
    noise_kind: str = option(
        "gaussian", "Where that noise is: off the diagonal, or balanced.", choices=NOISE_KINDS
    )
    seed: int = option(0, "Seed of the noise.", at_least=0)
    grow: dict | None = option(
        None,
        "Axes of one source that grow in place of all, such as mlp:2; noise is balanced then.",
        parse=fused_folders.read_growth,
    )
    max_shard_size: int = option(
        MAX_SHARD_SIZE,
        "Bytes of a file of weights of transformers, such as 5GB.",
        parse=fused_folders.read_size,
    )
    dry_run: bool = option(
        False, "Say what would come out, from configurations and headers alone.", group="Check"
    )
    verify: bool | None = option(
        None,
        "Load a result for transformers, and compare it with its sources; by default where torch "
        "and transformers are installed and memory suffices.",
    )
    check_data_dir: str | None = option(
        None, "Prepared tokens to measure the loss on; of checkpoints.", place=Kind.TOKENS
    )
    batch_size: int = option(32, "Sequences of the batch for that.", at_least=1)
    input_length: int = option(128, "Encoder tokens of its sequences.", at_least=3)
    task: Objective = options(Objective)
    command: str = ""

    def __post_init__(self):
        check_options(self)
        if self.grow and len(self.sources) != 1:
            raise UserError(
                "--sources to name one folder, whose axes --grow names",
                f"sources={','.join(self.sources)!r}",
                "Name one source, or leave out --grow",
            )
        if self.grow and self.norm != NORMS[0]:
            raise UserError(
                f"--norm={NORMS[0]} with --grow: the norms of one source are kept",
                f"norm={self.norm!r}",
                "Leave out --norm",
            )
        if len(self.sources) < 2 and not self.grow:
            raise UserError(
                "--sources to name at least two folders",
                f"sources={','.join(self.sources)!r}",
                "Separate them by commas; for a self-fusion name the folder twice",
            )
        if not self.output and not self.dry_run:
            raise UserError("--output to be given", "output=''", "Add --output=FOLDER")
        if os.path.lexists(self.output) and not _is_free(pathlib.Path(self.output)):
            raise UserError(
                "--output to be a new or empty folder",
                f"output={self.output!r}, which holds something",
                "Choose another one; nothing is overwritten",
            )


def _is_free(output: pathlib.Path) -> bool:
    """Returns whether a folder holds nothing, or nothing but what a killed fusion left."""
    if not output.is_dir():
        return False
    inside = output / CHECKPOINT_FOLDER
    if inside.is_dir() and any(not path.name.startswith(PARTIAL) for path in inside.iterdir()):
        return False
    return all(path == inside for path in output.iterdir())


def fuse(config: FuseConfig) -> pathlib.Path | None:
    """Fuses the sources' files into those of a new folder of their kind, which it returns.

    Raises:
        UserError: a source cannot be read.
        kf.FusionError: the sources do not fit together; every mismatch is named.
    """
    fusers = {
        fused_folders.TRANSFORMERS: fused_folders.fuse_transformers,
        fused_folders.KERAS_HUB: fused_folders.fuse_presets,
        fused_folders.CHECKPOINTS: fuse_checkpoints,
    }
    kind = fused_folders.kind_of(config.sources)
    _check_read(config, kind)
    return fusers[kind](config)


# Options that fusions of some kinds read, and the kinds.
_READ = {
    "verify": (fused_folders.TRANSFORMERS, fused_folders.KERAS_HUB),
    "max_shard_size": (fused_folders.TRANSFORMERS,),
    "check_data_dir": (fused_folders.CHECKPOINTS,),
}


def _check_read(config: FuseConfig, kind: str) -> None:
    """Refuses what sources of a kind leave unread: who asks for a check has to get one."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name, kinds in _READ.items():
        value = getattr(config, name)
        if value not in (defaults[name], False) and kind not in kinds:
            raise UserError(
                f"--{name} with sources of {' or '.join(kinds)}",
                f"{name}={value!r} with sources of {kind}",
                f"Leave out --{name}",
            )


def fuse_checkpoints(config: FuseConfig) -> pathlib.Path | None:
    """Fuses the sources' files into those of a new checkpoint, and returns its folder.

    Raises:
        UserError: a source cannot be read.
        kf.FusionError: the sources do not fit together; every mismatch is named.
    """
    checkpoints = {path: models.find_checkpoint(path) for path in dict.fromkeys(config.sources)}
    sources = [checkpoints[path] for path in config.sources]
    if config.check_data_dir:
        lengths = (config.batch_size, config.input_length)
        batches = PretrainingBatches(
            config.check_data_dir, "validation", *lengths, objective=config.task
        )
        batch = batches.batch(0)
    vocabulary = _vocabulary(checkpoints)
    fused_config, weights, how = _computed(config, sources)
    for path, checkpoint in zip(config.sources, sources, strict=True):
        print(f"source {path}, step {checkpoint.step:,}: {_count(checkpoint.weights)} parameters")
    summary = (
        growth_summary(config.grow, config.noise)
        if config.grow
        else (f"fused, norm={config.norm}, noise={config.noise}")
    )
    print(f"{summary}: {_count(weights)} parameters")
    if config.dry_run:
        return None
    _check_values(checkpoints)
    if config.check_data_dir:
        _print_losses(config.sources, checkpoints, fused_config, weights, batch)
    with deferred():
        fused = kf.models.T5.from_weights(fused_config, weights, seed=config.seed)
    facts = {
        "sources": [{"checkpoint": shown(str(s.path)), "step": s.step} for s in sources],
        **how,
    }
    settings = {"fusion": facts, **({"vocabulary": vocabulary} if vocabulary else {})}
    written = models.save_model(fused, config.output, settings)
    print(f"Wrote {written}")
    return written


def _computed(
    config: FuseConfig, sources: Sequence[Checkpoint]
) -> tuple["kf.models.T5Config", Mapping, dict]:
    """Configuration and weights of the result, computed as they are read, and how, as options."""
    if config.grow:
        how = {"noise": config.noise, "seed": config.seed}
        return *models.grown_weights(sources[0], config.grow, **how), how | {"grow": config.grow}
    how = {name: getattr(config, name) for name in ("norm", "noise", "noise_kind", "seed")}
    return *models.fused_weights(sources, **how), how


def _vocabulary(checkpoints: Mapping[str, Checkpoint]) -> str | None:
    """Hash of the sources' vocabulary; None where no source says.

    Raises:
        UserError: two sources have different ones.
    """
    hashes = {
        path: checkpoint.config["settings"].get("vocabulary")
        for path, checkpoint in checkpoints.items()
        if isinstance(checkpoint.config.get("settings"), dict)
    }
    hashes = {path: digest for path, digest in hashes.items() if digest}
    if len(set(hashes.values())) > 1:
        raise UserError(
            "sources that were trained with one vocabulary",
            ", ".join(f"{path!r} with {digest:.12}…" for path, digest in hashes.items()),
            "Train them on tokens of one vocabulary (--vocabulary of trainers.prepare)",
        )
    return next(iter(hashes.values()), None)


def _count(weights: Mapping) -> str:
    """Number of values of weights, to be printed."""
    return f"{sum(array.size for array in weights.values()):,}"


def _check_values(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuses sources with NaN before anything is written; reading them takes seconds per GB."""
    messages = [
        message
        for path, checkpoint in checkpoints.items()
        for message in unusable_values(checkpoint.weights, path)
    ]
    if messages:
        raise kf.FusionError(f"cannot fuse: {'; '.join(messages)}")


def _print_losses(
    names: Sequence[str],
    checkpoints: Mapping[str, Checkpoint],
    fused_config: "kf.models.T5Config",
    weights: Mapping,
    batch: dict,
) -> None:
    """Prints the loss of each source, of their ensemble (Eq. 8), and of the fused model."""
    built = {path: models.build_model(checkpoint) for path, checkpoint in checkpoints.items()}
    fused = kf.models.T5.from_weights(fused_config, weights)
    gap = kf.fusion_gap(fused, [built[path] for path in names], batch)
    for path, loss in dict(zip(names, gap.sources, strict=True)).items():
        print(f"loss per token of {path}: {loss:.4f}")
    print(f"fused, on one validation batch: {gap}")
