"""KerasHub's preset folders: loaded, fused, and saved as presets."""

import pathlib

import numpy as np

from keras_fusion import families
from keras_fusion.errors import FusionError
from keras_fusion.fusion import fuse, grow
from keras_fusion.interop.writing import new_folder
from keras_fusion.optional import optional

_BACKBONE_FILES = ("config.json", "metadata.json")


def is_preset(path):
    """Returns whether a folder holds a preset of KerasHub."""
    return all((pathlib.Path(path) / name).is_file() for name in _BACKBONE_FILES)


def load_preset(path):
    """Loads a task, or the backbone where the preset has no task.

    Args:
        path: Folder of a preset.

    Raises:
        FusionError: keras-hub is not installed, or it cannot load the preset.
    """
    optional("keras_hub")
    try:
        return families.load_preset(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise FusionError(
            f"Expected a preset of KerasHub. Received: {str(path)!r} ({text:.300}). Save it again."
        ) from error


def fuse_presets(sources, output, *, growth=None, **options):
    """Fuses presets of KerasHub into a new preset.

    Args:
        sources: Folders; one that stands twice is fused with itself.
        output: A new folder.
        growth: For one source, `{"mlp", "heads" or "hidden": factor}`.
        **options: Those of `kf.fuse`, or of `kf.grow`.

    Returns:
        The fused model.

    Raises:
        FusionError: As `kf.fuse`; vocabularies that differ; a folder that holds something.
    """
    models = {path: load_preset(path) for path in dict.fromkeys(map(str, sources))}
    if growth:
        (model,) = models.values()
        fused = grow(model, growth, **options)
    else:
        fused = fuse([models[str(path)] for path in sources], **options)
    with new_folder(output) as folder:
        fused.save_to_preset(str(folder))
    return fused


def count_parameters(model):
    """Number of values of a model's weights."""
    return sum(int(np.prod(variable.shape)) for variable in model.weights)


def save_t5_tokenizer(folder, vocabulary):
    """Adds a T5's tokenizer to a preset.

    Args:
        folder: The preset.
        vocabulary: File of a SentencePiece model.
    """
    tokenizer = optional("keras_hub").models.T5Tokenizer(str(vocabulary))
    tokenizer.save_to_preset(str(folder))
