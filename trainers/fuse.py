"""Fuses trained models into one, without training it.

    python -m trainers.fuse --sources=W/small_0,W/small_1 --output=W/fused --norm=property

Each source is the folder of a stage (its newest good checkpoint is taken) or of one checkpoint;
one that is named twice is fused with itself. The output is a new folder with the checkpoint of
step 0, which can be a source again. With `--check_data_dir` it also says by how much the loss on a
validation batch moved from that of the sources' mean logits: nothing for `--norm=property`
without noise; something for `--norm=rule` with different sources. No model is built unless it has
to say that: the output is computed weight by weight from the sources' files, in the memory of one.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags

import keras_fusion as kf
from keras_fusion.layers.fusing import unusable_values
from keras_fusion.layers.values import deferred
from trainers import checkpoints, programs, stopping
from trainers.checkpoints import CHECKPOINT_FOLDER, models
from trainers.checkpoints.format import PARTIAL
from trainers.data.batches import PretrainingBatches
from trainers.errors import UserError

NORMS = ("property", "rule")
NOISE_KINDS = ("gaussian", "balanced")


@dataclasses.dataclass(frozen=True)
class FuseConfig:
    """What is fused, and how; checks itself.

    Args:
        sources: folders of stages or checkpoints, two or more; the same may stand twice.
        output: folder to write; it must not exist, or be empty.
        norm: "property" or "rule" (section 3.2).
        noise: standard deviation of the noise over the RMS of the source weight.
        noise_kind: "gaussian" (off the diagonal) or "balanced".
        seed: of the noise.
        check_data_dir: prepared tokens to measure the loss on, or None.
        batch_size: sequences of that batch.
        input_length: tokens of a sequence of it that the encoder sees.

    Raises:
        UserError: a value is out of range, or the output holds something.
    """

    sources: tuple[str, ...]
    output: str
    norm: str = "property"
    noise: float = 0.0
    noise_kind: str = "gaussian"
    seed: int = 0
    check_data_dir: str | None = None
    batch_size: int = 32
    input_length: int = 128

    def __post_init__(self):
        if len(self.sources) < 2:
            raise UserError(
                "Expected --sources to name at least two folders. Received: "
                f"sources={','.join(self.sources)!r}. Separate them by commas; for a self-fusion "
                "name the folder twice."
            )
        for name, known in (("norm", NORMS), ("noise_kind", NOISE_KINDS)):
            if getattr(self, name) not in known:
                raise UserError(
                    f"Expected --{name} to be {' or '.join(known)}. "
                    f"Received: {name}={getattr(self, name)!r}. Choose one of these."
                )
        if not 0 <= self.noise < float("inf"):
            raise UserError(
                "Expected --noise to be a number of at least 0. "
                f"Received: noise={self.noise}. It is relative: 0.1 is a tenth of the weights' RMS."
            )
        if self.seed < 0:
            raise UserError(
                f"Expected --seed to be at least 0. Received: seed={self.seed}. Give another one."
            )
        self._check_output()

    def _check_output(self):
        if not self.output:
            raise UserError(
                "Expected --output to name a new folder. Received: output=''. Add --output=FOLDER."
            )
        if os.path.lexists(self.output) and not _is_free(pathlib.Path(self.output)):
            raise UserError(
                "Expected --output to be a new or empty folder. Received: "
                f"output={self.output!r}, which holds something. Choose another one; nothing is "
                "overwritten."
            )


def _is_free(output: pathlib.Path) -> bool:
    """Whether a folder holds nothing, or nothing but what a killed fusion left."""
    if not output.is_dir():
        return False
    inside = output / CHECKPOINT_FOLDER
    if inside.is_dir() and any(not path.name.startswith(PARTIAL) for path in inside.iterdir()):
        return False
    return all(path == inside for path in output.iterdir())


def fuse(config: FuseConfig) -> pathlib.Path:
    """Fuses the sources' files into those of a new checkpoint, and says what it did.

    Args:
        config: what is fused, and how.

    Returns:
        Folder of the checkpoint that was written.

    Raises:
        UserError: a source cannot be read.
        kf.FusionError: the sources do not fit together; every mismatch is named.
    """
    found = {path: models.find_checkpoint(path) for path in dict.fromkeys(config.sources)}
    sources = [found[path] for path in config.sources]
    batch = _validation_batch(config)
    how = _how(config)
    fused_config, weights = models.fused_weights(sources, **how)
    _check_values(found)
    for path, checkpoint in zip(config.sources, sources, strict=True):
        print(f"source {path}, step {checkpoint.step:,}: {_count(checkpoint.weights)} parameters")
    print(f"fused, norm={config.norm}, noise={config.noise}: {_count(weights)} parameters")
    if batch is not None:
        _print_losses(config.sources, found, fused_config, weights, batch)
    with deferred():
        fused = kf.models.T5.from_weights(fused_config, weights, seed=config.seed)
    known = {"sources": [{"checkpoint": str(s.path), "step": s.step} for s in sources], **how}
    written = models.save_model(fused, config.output, {"fusion": known})
    print(f"Wrote {written}")
    return written


def _how(config: FuseConfig) -> dict:
    return {name: getattr(config, name) for name in ("norm", "noise", "noise_kind", "seed")}


def _count(weights: Mapping) -> str:
    """Number of values of weights, to be printed."""
    return f"{sum(array.size for array in weights.values()):,}"


def _check_values(found: Mapping[str, checkpoints.Checkpoint]) -> None:
    """Refuses sources with NaN before anything is written; reading them takes seconds a GB."""
    messages = [
        message
        for path, checkpoint in found.items()
        for message in unusable_values(checkpoint.weights, path)
    ]
    if messages:
        raise kf.FusionError(f"cannot fuse: {'; '.join(messages)}")


def _validation_batch(config: FuseConfig) -> dict | None:
    if config.check_data_dir is None:
        return None
    batches = PretrainingBatches(
        config.check_data_dir, "validation", config.batch_size, config.input_length, seed=0
    )
    return batches.batch(0)


def _print_losses(
    names: Sequence[str],
    found: Mapping[str, checkpoints.Checkpoint],
    fused_config: "kf.models.T5Config",
    weights: Mapping,
    batch: dict,
) -> None:
    """Prints the loss of each source, of their ensemble (Eq. 8), and of the fused model."""
    built = {path: models.build_model(checkpoint) for path, checkpoint in found.items()}
    fused = kf.models.T5.from_weights(fused_config, weights)
    gap = kf.fusion_gap(fused, [built[path] for path in names], batch)
    for path, loss in dict(zip(names, gap.sources, strict=True)).items():
        print(f"loss a token of {path}: {loss:.4f}")
    print(f"fused, on one validation batch: {gap}")


# How a flag is declared, its name, default, and what --help says of it.
_FLAGS = (
    (flags.DEFINE_list, "sources", None, "Folders of stages or checkpoints, comma-separated."),
    (flags.DEFINE_string, "output", None, "New folder for the fused model."),
    (flags.DEFINE_string, "norm", "property", f"Norm that is kept: {' or '.join(NORMS)}."),
    (flags.DEFINE_float, "noise", 0.0, "Standard deviation of the noise over the weights' RMS."),
    (flags.DEFINE_string, "noise_kind", "gaussian", f"Noise: {' or '.join(NOISE_KINDS)}."),
    (flags.DEFINE_integer, "seed", 0, "Seed of the noise."),
    (flags.DEFINE_string, "check_data_dir", None, "Prepared tokens to measure the loss on."),
    (flags.DEFINE_integer, "batch_size", 32, "Sequences of the batch for that."),
    (flags.DEFINE_integer, "input_length", 128, "Encoder tokens of its sequences."),
)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares this binary's flags in `values`."""
    for define, name, default, text in _FLAGS:
        define(name, default, text, flag_values=values)


def config_from_flags(values: flags.FlagValues) -> FuseConfig:
    """Reads the flags into the configuration.

    Raises:
        UserError: the configuration refuses itself.
    """
    given = {f.name: values[f.name].value for f in dataclasses.fields(FuseConfig)}
    given["sources"] = tuple(path.strip() for path in given["sources"] or () if path.strip())
    given["output"] = given["output"] or ""
    return FuseConfig(**given)


@stopping.handled()
def main(argv):
    """Reads the flags, and fuses."""
    del argv
    fuse(config_from_flags(flags.FLAGS))


if __name__ == "__main__":
    define_flags()
    programs.run(main)
