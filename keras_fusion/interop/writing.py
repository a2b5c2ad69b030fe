"""Writing a model as a new folder: whole, or not at all.

The folder is written beside its place as `.NAME.partial` and renamed when everything is on the
disk. What a killed process left there is removed by the next one that writes the same folder.
"""

import contextlib
import json
import math
import os
import pathlib
import shutil

from keras_fusion.errors import FusionError
from keras_fusion.interop import tensors
from keras_fusion.interop.folders import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE

MAX_SHARD_SIZE = 5_000_000_000
CARD_FILE = "README.md"

# What a folder holds besides the model, and that stays as it is.
_COPIED = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.spm",
    "spiece.model",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "normalizer.json",
)


@contextlib.contextmanager
def new_folder(path):
    """Makes a folder that gets its name when the block ends, and is gone if the block fails.

    Args:
        path: The folder; it must not be there, or be empty.

    Yields:
        The path to write to.

    Raises:
        FusionError: There is something at the path, or it is none.
    """
    path = pathlib.Path(path)
    if "\0" in str(path):
        raise FusionError(
            f"Expected a path to write to. Received: {str(path)!r}. Leave out the NUL."
        )
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise FusionError(
            f"Expected a new or empty folder to write to. Received: {str(path)!r}, which holds "
            "something. Choose another one; nothing is overwritten."
        )
    # A link to an empty folder stands for that folder.
    path = path.resolve() if path.is_dir() else path
    beside = path.absolute().with_name(f".{path.absolute().name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    parents = [parent for parent in beside.parents if not parent.exists()]
    try:
        beside.mkdir(parents=True)
        yield beside
        tensors.sync(beside)
        beside.rename(path)
        tensors.sync(path.absolute().parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for parent in parents:
            with contextlib.suppress(OSError):  # Something else is there by now.
                parent.rmdir()
        raise


def write_model(folder, config, arrays, max_shard_size=MAX_SHARD_SIZE):
    """Writes a model's configuration and weights as transformers does.

    Args:
        folder: A folder that is there.
        config: Content of config.json.
        arrays: Name to array; those that are computed when they are read are computed one by one.
        max_shard_size: Bytes that a file of weights may have; a larger tensor gets its own.

    Returns:
        `{name of a file: Digest}` of the weights.
    """
    shards = shards_of(arrays, max_shard_size)
    digests, places = {}, {}
    for number, names in enumerate(shards, 1):
        file = WEIGHTS_FILE
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard = {name: arrays[name] for name in names}
        # Without this entry older versions of transformers do not load the file.
        digests[file] = tensors.write(folder / file, shard, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(map(nbytes, arrays.values()))
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_json(folder / INDEX_FILE, index)
    write_json(folder / CONFIG_FILE, config)
    return digests


def shards_of(arrays, max_shard_size=MAX_SHARD_SIZE):
    """Names of the tensors of each file, in order.

    Raises:
        FusionError: The size is no positive integer.
    """
    if type(max_shard_size) is not int or max_shard_size < 1:
        raise FusionError(
            "max_shard_size must be a number of bytes. "
            f"Received: max_shard_size={max_shard_size!r}; give one such as 5_000_000_000"
        )
    shards, size = [[]], 0
    for name, array in arrays.items():
        if shards[-1] and size + nbytes(array) > max_shard_size:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes(array)
    return shards


def copy_others(source, folder):
    """Copies tokenizer and generation files; returns their names."""
    names = sorted(
        {path.name for pattern in _COPIED for path in source.glob(pattern) if path.is_file()}
    )
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names


def write_json(path, content):
    """Writes a JSON file, on the disk when this returns."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_text(path, text):
    """Writes a UTF-8 file, on the disk when this returns."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def nbytes(array):
    """Bytes of an array, also of one that is computed when it is read."""
    return math.prod(array.shape) * array.dtype.itemsize
