"""Fusing models from folder to folder, without loading them: weights are computed as they go out.

plan = plan_fusion([a, b], norm="rule")     # configurations and headers alone
print(plan.describe())
plan.write("fused")
"""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from keras_fusion.errors import FusionError, docs_page
from keras_fusion.families.fusing import FamilyFusion, Growth, growths_by
from keras_fusion.interop import vocabularies
from keras_fusion.interop.cards import (
    Facts,
    Promise,
    card,
    fusion_summary,
    growth_summary,
    sha256,
)
from keras_fusion.interop.folders import Folder, read_folder
from keras_fusion.interop.writing import (
    CARD_FILE,
    MAX_SHARD_SIZE,
    copy_others,
    nbytes,
    new_folder,
    shards_of,
    write_model,
    write_text,
)
from keras_fusion.noise import Noise
from keras_fusion.options import BlockOptions, mean_weights

_MOST_NAMES = 5


@dataclasses.dataclass(frozen=True)
class Plan:
    """A fusion of folders before anything is computed.

    Attributes:
        sources: A `Folder` for each source; the same one may stand twice.
        config: Configuration of the result.
        arrays: Name to array of the result, computed where it is read.
        weights: Weight of each source in the mean.
        promise: `Promise` of what the result computes.
        summary: What is done, in words.
        notes: Sentences for the model card.
        factors: Numbers that the hidden units of each source are multiplied by where a head that is
            the embedding reads them.
    """

    sources: tuple[Folder, ...]
    config: dict
    arrays: Mapping[str, np.ndarray]
    weights: tuple[float, ...]
    promise: Promise
    summary: str
    notes: tuple[str, ...] = ()
    factors: tuple[float, ...] = (1.0,)

    @property
    def is_exact(self):
        """True where the result computes the weighted mean of its sources, up to rounding."""
        return self.promise.is_exact

    @property
    def folders(self):
        """Each folder once."""
        return tuple({folder.path: folder for folder in self.sources}.values())

    @property
    def parameters(self):
        """Number of values of the result's weights."""
        return sum(nbytes(array) // array.dtype.itemsize for array in self.arrays.values())

    @property
    def nbytes(self):
        """Bytes of the result's weights."""
        return sum(map(nbytes, self.arrays.values()))

    def describe(self, max_shard_size=MAX_SHARD_SIZE):
        """The sources, what comes out, and how its configuration differs, in lines of text."""
        first = self.sources[0]
        files = len(shards_of(self.arrays, max_shard_size))
        changed = {
            field: value for field, value in self.config.items() if first.config.get(field) != value
        }
        return "\n".join(
            [
                *(
                    f"source {folder.path}: {folder.class_name}, {folder.parameters:,} parameters"
                    for folder in self.folders
                ),
                f"result: {first.class_name}, {self.parameters:,} parameters, "
                f"{self.nbytes:,} bytes in {files} file{'s' if files > 1 else ''}",
                "configuration: " + ", ".join(f"{f}={v}" for f, v in sorted(changed.items())),
                self.summary,
                *self.notes,
            ]
        )

    def write(self, output, *, max_shard_size=MAX_SHARD_SIZE, command="", check=None):
        """Computes the result, and writes it to a new folder in one piece.

        Args:
            output: The folder; it must not be there, or be empty.
            max_shard_size: Bytes that a file of weights may have; a larger tensor gets its own.
            command: The command that asked for it, for the model card.
            check: Optional function of this plan and the written folder, called before the folder
                gets its name. It returns a sentence for the model card; what it raises leaves
                nothing behind.

        Raises:
            FusionError: A weight holds NaN or infinite values, or would overflow float16; the
                size of shards is none; there is something at the path.
            OSError: The folder cannot be written.
        """
        files = [
            folder.path.resolve() / file.name for folder in self.folders for file in folder.files
        ]
        files = list(dict.fromkeys(files))
        with new_folder(output) as folder, concurrent.futures.ThreadPoolExecutor(1) as hashing:
            jobs = [hashing.submit(sha256, file) for file in files]
            try:
                digests = write_model(folder, self.config, self.arrays, max_shard_size)
                copy_others(self.sources[0].path, folder)
                result = check(self, folder) if check else ""
                sources = dict(zip(files, (job.result() for job in jobs), strict=True))
            finally:
                hashing.shutdown(cancel_futures=True)
            written = {name: (digest.bytes, digest.sha256) for name, digest in digests.items()}
            write_text(folder / CARD_FILE, card(self._facts(), sources, written, command, result))

    def _facts(self):
        shares = dict.fromkeys((folder.path.resolve() for folder in self.folders), 0.0)
        for source, weight in zip(self.sources, self.weights, strict=True):
            shares[source.path.resolve()] += weight
        name = self.sources[0].class_name
        return Facts(
            "transformers", name, self.summary, self.parameters, self.promise, shares, self.notes
        )


def plan_fusion(
    sources, *, norm="property", weights=None, noise=0.0, noise_kind="gaussian", seed=0, grow=None
):
    """Plans the fusion of folders of transformers.

    Args:
        sources: Folders of one class. One that stands twice is fused with itself.
        norm: `"property"`, for a model with itself alone: in a stock class no norm treats the
            units of different sources apart. `"rule"` for different ones.
        weights: Weight of each source in the mean; default 1/n.
        noise, noise_kind, seed: As for `kf.fuse`.
        grow: For one source, `{"mlp" or "heads": factor}`: only these axes grow.

    Returns:
        A `Plan`.

    Raises:
        FusionError: Naming what keeps the sources from being fused.

    Examples:
        >>> plan_fusion(["gpt2", "gpt2"]).write("gpt2_twice_as_wide")
    """
    paths = [pathlib.Path(path) for path in sources]
    folders = {path: read_folder(path) for path in dict.fromkeys(paths)}
    sources = tuple(folders[path] for path in paths)
    if grow is not None:
        return _grown(sources, grow, noise)
    if len(sources) < 2:
        raise FusionError(f"fusing takes at least two sources. Received: {len(sources)}")
    weights = mean_weights(weights, len(sources))
    options = BlockOptions(norm=norm, noise=Noise(noise, noise_kind, seed))
    _refuse_different(folders.values())
    is_self = len({path.resolve() for path in paths}) == 1
    if not is_self and norm == "property":
        raise FusionError(
            "different models fuse exactly only with norms that treat each source's units apart, "
            f"unlike those of {sources[0].class_name}. Received: norm='property'; give "
            "norm='rule', which keeps the class and is not exact, or load the models with KerasHub "
            f"and call kf.fuse: {docs_page('how_it_works', 'norms')}"
        )
    is_compared = vocabularies.check_equal(paths)
    fusion = FamilyFusion(
        sources[0].family,
        sources[0].names,
        [source.config for source in sources],
        [source.arrays for source in sources],
        Growth(weights, noise=options.noise),
        is_exact=is_self,
    )
    promise = Promise(is_self, noise=options.noise)
    notes = _notes(sources[0], fusion)
    if not is_compared:
        notes.append(vocabularies.NOT_COMPARED)
    return Plan(
        sources,
        _written(fusion.config),
        fusion.arrays,
        weights,
        promise,
        fusion_summary(len(sources), promise, norm, weights),
        tuple(notes),
        tuple(map(fusion.readout_factor, range(len(sources)))),
    )


def _grown(sources, factors, noise):
    """The `Plan` of one source some of whose axes grow."""
    if len(sources) != 1 or noise:
        raise FusionError(
            "growing some axes takes one source, and no noise: it would fill what no copy covers, "
            f"and there is nothing of the kind. Received: {len(sources)} sources, noise={noise}; "
            "name one source, and leave out the noise"
        )
    (source,) = sources
    config, arrays = source.config, source.arrays
    for growth in growths_by(source.names, factors):
        copies = len(growth.weights)
        fusion = FamilyFusion(
            source.family, source.names, [config] * copies, [arrays] * copies, growth
        )
        config, arrays = fusion.config, fusion.arrays
    promise = Promise(is_self=True)
    return Plan(sources, _written(config), arrays, (1.0,), promise, growth_summary(factors))


def _refuse_different(folders):
    """Refuses folders of several classes or types, or with other weights, in a few words."""
    first, *others = folders
    for other in others:
        if other.class_name != first.class_name:
            raise FusionError(
                f"the sources must be of one class. Received: {first.class_name} in "
                f"{str(first.path)!r}, {other.class_name} in {str(other.path)!r}"
            )
        missing = sorted(set(first.arrays) ^ set(other.arrays))
        if missing:
            has, lacks = (first, other) if missing[0] in first.arrays else (other, first)
            more = f" and {len(missing) - 1} more differ" if missing[1:] else ""
            raise FusionError(
                f"the sources must have the same weights. Received: {str(has.path)!r} has "
                f"`{missing[0]}`, {str(lacks.path)!r} lacks it{more}; load and save both with one "
                "version of transformers"
            )
        dtypes = {
            name: (str(first.arrays[name].dtype), str(other.arrays[name].dtype))
            for name in first.arrays
        }
        differing = {name: pair for name, pair in dtypes.items() if pair[0] != pair[1]}
        if differing:
            name, pair = next(iter(differing.items()))
            raise FusionError(
                f"the sources must be of one dtype. Received: `{name}` is {pair[0]} in "
                f"{str(first.path)!r}, {pair[1]} in {str(other.path)!r}; convert one of them"
            )


def _notes(source, fusion):
    notes = []
    if fusion.averaged:
        names = ", ".join(f"`{name}`" for name in fusion.averaged[:_MOST_NAMES])
        notes.append(
            f"{len(fusion.averaged)} norms that all heads share are the means of the sources': "
            f"{names}{', …' if fusion.averaged[_MOST_NAMES:] else ''}."
        )
    if source.class_name.endswith("Model") and fusion.readouts:
        notes.append(
            "The hidden units are those of the sources side by side, each multiplied by its weight "
            "in the mean, so that a head that is the embedding computes the mean of the logits."
        )
    return notes


def _written(config):
    """The configuration that is written: without the place that the first source came from."""
    return {field: value for field, value in config.items() if field != "_name_or_path"}
