"""Data sets of TensorFlow Datasets in the version that the disk has.

TensorFlow Datasets looks for the newest version that its code can make. A folder that was prepared
years ago has another, which it can read all the same.
"""

import os
import re

_VERSION = re.compile(r"\d+\.\d+\.\d+")


class NotPrepared(Exception):
    """A data set that is not on the disk, or only in versions that cannot be read.

    Args:
        wanted: the version that was looked for first; empty where not even that is known.
        versions: those that are on the disk.
    """

    def __init__(self, wanted: str, versions: list[str]):
        super().__init__(wanted, versions)
        self.wanted, self.versions = wanted, versions


def open_split(name: str, split: str, data_dir: str | None = None):
    """Opens a split, with its files in their order: by default they are shuffled anew each time.

    Args:
        name: such as "c4/en".
        split: such as "train".
        data_dir: folder of data sets; None for that of TensorFlow Datasets.

    Returns:
        The builder, which knows name and version, and the `tf.data.Dataset`.

    Raises:
        NotPrepared: there is none that can be read.

    Example:
        builder, dataset = open_split("glue/cola", "train", "tensorflow_datasets")
    """
    import tensorflow_datasets as tfds

    faults = (AssertionError, FileNotFoundError, tfds.core.DatasetNotFoundError)

    def open_version(suffix: str = ""):
        builder = tfds.builder(f"{name}{suffix}", data_dir=data_dir)
        return builder, builder.as_dataset(split=split, shuffle_files=False)

    try:
        return open_version()
    except faults:
        wanted, versions = _versions(name, data_dir)
    for version in versions:
        try:
            return open_version(f":{version}")
        except faults:
            continue
    raise NotPrepared(wanted, versions)


def _versions(name: str, data_dir: str | None) -> tuple[str, list[str]]:
    """The version of the code, and those that lie on the disk, newest first."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        folder = os.path.dirname(builder.data_dir)
        names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    except (AssertionError, OSError, tfds.core.DatasetNotFoundError):
        return "", []
    versions = filter(_VERSION.fullmatch, (name.rstrip("/") for name in names))
    by_number = sorted(versions, key=lambda text: [*map(int, text.split("."))], reverse=True)
    return str(builder.version), by_number
