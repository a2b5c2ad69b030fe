"""Conversions of T5s between libraries: what `trainers.convert` does."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np

import keras_fusion as kf
from keras_fusion import interop
from keras_fusion.interop import presets, t5, writing
from keras_fusion.layers.values import deferred
from trainers.checkpoints import models
from trainers.data.manifest import VOCABULARY, sha256_of
from trainers.errors import UserError, os_errors
from trainers.pretraining import fused_folders
from trainers.programs import check_options, option
from trainers.storage import Kind

HUGGINGFACE, KERAS_HUB, KERAS_FUSION = "huggingface", "keras_hub", "keras_fusion"
# What a T5's SentencePiece model is called in a folder of transformers.
_SENTENCEPIECE = "spiece.model"


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Source and target of a conversion; checks itself."""

    source: str = option(
        "",
        "Folder of a stage or checkpoint, a preset of KerasHub, or a folder of transformers.",
        required="FOLDER",
        place=Kind.READ,
    )
    output: str = option(
        "", "New folder for the converted model.", required="FOLDER", place=Kind.NEW
    )
    format: str = option(
        HUGGINGFACE, "Library to convert to.", choices=(HUGGINGFACE, KERAS_HUB, KERAS_FUSION)
    )

    def __post_init__(self):
        check_options(self)
        if os.path.lexists(self.output):
            raise UserError(
                "--output to be a new folder",
                f"output={self.output!r}, which exists",
                "Choose another one; nothing is overwritten",
            )


def convert(config: ConvertConfig) -> pathlib.Path:
    """Converts a T5, and returns the folder of what was written.

    Raises:
        UserError: the source cannot be read, or the output not written.
        kf.FusionError: the other library has no such T5.
    """
    t5_config, weights, vocabulary = _read(config.source)
    writers = {
        HUGGINGFACE: _write_transformers,
        KERAS_HUB: _write_preset,
        KERAS_FUSION: _write_checkpoint,
    }
    write = writers[config.format]
    with os_errors("to write a model", f"output={config.output!r}"):
        written = write(config.output, t5_config, weights, vocabulary)
    print(f"Wrote {written}, {kf.models.parameter_count(t5_config):,} parameters")
    return written


def _read(source: str) -> tuple["kf.models.T5Config", dict, pathlib.Path | None]:
    """Configuration and weights of a T5 as ours has them, and the file of its vocabulary."""
    kind = fused_folders.kind_of([source])
    if kind == fused_folders.CHECKPOINTS:
        checkpoint = models.find_checkpoint(source)
        vocabulary = pathlib.Path(source) / VOCABULARY
        # Conversions rearrange whole arrays; those in one file stay mapped.
        weights = {name: np.asarray(array) for name, array in checkpoint.weights.items()}
        read = models.read_config(checkpoint), weights
    elif kind == fused_folders.TRANSFORMERS:
        vocabulary = pathlib.Path(source) / _SENTENCEPIECE
        read = t5.from_transformers(interop.read_folder(source))
    else:
        model = presets.load_preset(source)
        vocabulary = pathlib.Path(source) / "assets" / "tokenizer" / "vocabulary.spm"
        read = t5.from_keras_hub(getattr(model, "backbone", model))
    return *read, vocabulary if vocabulary.is_file() else None


def _write_transformers(output, config, weights, vocabulary) -> pathlib.Path:
    content, arrays = t5.to_transformers(config, weights)
    with writing.new_folder(output) as folder:
        writing.write_model(folder, content, arrays)
        if vocabulary:
            shutil.copyfile(vocabulary, folder / _SENTENCEPIECE)
    return pathlib.Path(output)


def _write_preset(output, config, weights, vocabulary) -> pathlib.Path:
    backbone = t5.to_keras_hub(config, weights)
    with writing.new_folder(output) as folder:
        backbone.save_to_preset(str(folder))
        if vocabulary:
            presets.save_t5_tokenizer(folder, vocabulary)
    return pathlib.Path(output)


def _write_checkpoint(output, config, weights, vocabulary) -> pathlib.Path:
    settings = {}
    if vocabulary:
        settings["vocabulary"] = sha256_of(vocabulary)
    with deferred():
        model = kf.models.T5.from_weights(config, weights, seed=0)
    with writing.new_folder(output) as folder:
        written = models.save_model(model, folder, settings).relative_to(folder)
        if vocabulary:
            shutil.copyfile(vocabulary, folder / VOCABULARY)
    return pathlib.Path(output) / written
