"""KerasHub's preset folders: loaded, fused, and saved as presets."""

import dataclasses
import math
import pathlib

from keras_fusion import families
from keras_fusion.errors import FusionError
from keras_fusion.families import checking, keras_hub
from keras_fusion.families.fusing import FamilyFusion
from keras_fusion.fusion import fuse, grow
from keras_fusion.interop import vocabularies
from keras_fusion.interop.cards import (
    Facts,
    Promise,
    card,
    fusion_summary,
    growth_summary,
    sha256,
)
from keras_fusion.interop.writing import CARD_FILE, nbytes, new_folder, write_text
from keras_fusion.layers import checks
from keras_fusion.noise import Noise
from keras_fusion.optional import optional
from keras_fusion.options import BlockOptions

_WEIGHTS = "*.weights.h5"
_TOKENIZER_FILE = "tokenizer.json"
_BACKBONE_FILES = ("config.json", "metadata.json")


def is_preset(path):
    """Returns whether a folder holds a preset of KerasHub."""
    return all((pathlib.Path(path) / name).is_file() for name in _BACKBONE_FILES)


def load_preset(path, load_weights=True):
    """Loads a task, or the backbone where the preset has no task.

    Args:
        path: Folder of a preset.
        load_weights: Without them the model has shapes alone.

    Raises:
        FusionError: keras-hub is not installed, or it cannot load the preset.
    """
    optional("keras_hub")
    return _loaded(path, families.load_preset, load_weights)


def _tokenizer(path):
    """The tokenizer of a preset, which one of a backbone may have beside it; None without one."""
    if not (path / _TOKENIZER_FILE).is_file():
        return None
    return _loaded(path, optional("keras_hub").tokenizers.Tokenizer.from_preset)


def _loaded(path, load, *arguments):
    try:
        return load(str(path), *arguments)
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise FusionError(
            f"Expected a preset of KerasHub. Received: {str(path)!r} ({text:.300}). Save it again."
        ) from error


@dataclasses.dataclass(frozen=True)
class PresetFusion:
    """A fusion of presets before any weight is read.

    Attributes:
        sources: Folders; one that stands twice is fused with itself.
        growth: For one source, `{"mlp", "heads" or "hidden": factor}`; else None.
        options: Those of `kf.fuse`, or of `kf.grow`.
        class_name: Stock class of the result.
        fusion: The `FamilyFusion` of their configurations and shapes.
        promise: `Promise` of what the result computes.
        notes: Sentences for the model card.
    """

    sources: tuple[pathlib.Path, ...]
    growth: dict | None
    options: dict
    class_name: str
    fusion: FamilyFusion
    promise: Promise
    notes: tuple[str, ...] = ()

    @property
    def summary(self):
        """Words that say what is done."""
        if self.growth:
            return growth_summary(self.growth, self.promise.noise.scale)
        norm = self.options.get("norm", "property")
        weights = self.fusion.growth.weights
        return fusion_summary(len(self.sources), self.promise, norm, weights)

    @property
    def _weights(self):
        """Arrays of the result but those that are kept, such as the state of random numbers."""
        return [self.fusion.arrays[name] for name in self.fusion.blocks]

    def facts(self):
        """`Facts` of the model card."""
        count = len(self.sources)
        shares = {path: self.sources.count(path) / count for path in self.sources}
        parameters = sum(math.prod(array.shape) for array in self._weights)
        is_grouped = self.promise.is_grouped
        name = f"{self.class_name} with grouped norms" if is_grouped else self.class_name
        promise, notes = self.promise, self.notes
        return Facts("keras-hub", name, self.summary, parameters, promise, shares, notes)

    def describe(self):
        """The sources, what comes out, and its configuration, in lines of text."""
        facts = self.facts()
        size = sum(map(nbytes, self._weights))
        names = self.fusion.names
        fields = {
            field: self.fusion.config[field] for sizes in names.sizes.values() for field in sizes
        }
        return "\n".join(
            [
                *(f"source {path}: {self.class_name}" for path in dict.fromkeys(self.sources)),
                f"result: {facts.class_name}, {facts.parameters:,} parameters, {size:,} bytes",
                "configuration: " + ", ".join(f"{f}={v}" for f, v in sorted(fields.items())),
                facts.summary,
                *facts.notes,
            ]
        )

    def write(self, output, command="", check=True):
        """Computes the result and writes it, with a model card, to a new folder in one piece.

        Args:
            output: The folder; it must not be there, or be empty.
            command: The command that asked for it, for the model card.
            check: Whether the result is compared with its sources on random inputs.

        Raises:
            FusionError: As `kf.fuse`; a folder that holds something.
        """
        models = {path: load_preset(path) for path in dict.fromkeys(self.sources)}
        with new_folder(output) as folder:
            if self.growth:
                (model,) = models.values()
                fused = grow(model, self.growth, check=check, **self.options)
            else:
                fused = fuse([models[path] for path in self.sources], check=check, **self.options)
            fused.save_to_preset(str(folder))
            tokenizer = _tokenizer(self.sources[0])
            if tokenizer is not None and not (folder / _TOKENIZER_FILE).exists():
                tokenizer.save_to_preset(str(folder))
            files = [file for path in models for file in sorted(path.glob(_WEIGHTS))]
            written = {
                file.name: (file.stat().st_size, sha256(file))
                for file in sorted(folder.glob(_WEIGHTS))
            }
            digests = {file: sha256(file) for file in files}
            write_text(folder / CARD_FILE, card(self.facts(), digests, written, command, ""))


def plan_presets(sources, *, growth=None, **options):
    """Plans the fusion of presets of KerasHub, from their configurations.

    Args:
        sources: Folders; one that stands twice is fused with itself.
        growth: For one source, `{"mlp", "heads" or "hidden": factor}`.
        **options: `norm`, `noise`, `noise_kind` and `seed` of `kf.fuse`; with `growth` `noise`.

    Returns:
        A `PresetFusion`.

    Raises:
        FusionError: Naming what keeps the sources from being fused.

    Examples:
        >>> plan = plan_presets(["llama", "llama"])
        >>> print(plan.describe())
        >>> plan.write("llama_twice_as_wide")
    """
    paths = {}  # A folder that is given by two paths is one source.
    sources = tuple(paths.setdefault(path.resolve(), path) for path in map(pathlib.Path, sources))
    skeletons = {path: load_preset(path, load_weights=False) for path in dict.fromkeys(sources)}
    for path, model in skeletons.items():
        if not keras_hub.is_stock(model):
            raise FusionError(
                "Expected a preset of a class that a family's table names. Received: "
                f"{str(path)!r} with a {type(model).__name__}; add a table with "
                "kf.families.register"
            )
    models = [skeletons[path] for path in sources]
    # The noise of a growth is balanced, see `kf.grow`.
    kind = options.get("noise_kind", "gaussian") if growth is None else "balanced"
    noise = Noise(options.get("noise", 0.0), kind, options.get("seed", 0))
    block = BlockOptions(norm=options.get("norm", "property"), noise=noise)
    fusion = keras_hub.plan_stock(models, block, growth)
    tokenizers = {path: _tokenizer(path) for path in skeletons}
    checks.raise_mismatches(checking.vocabulary_mismatches([tokenizers[path] for path in sources]))
    is_self = len(skeletons) == 1
    promise = Promise(is_self, not is_self and block.norm == "property", noise)
    is_compared = is_self or None not in tokenizers.values()
    notes = () if is_compared else (vocabularies.NOT_COMPARED,)
    name = type(models[0]).__name__
    return PresetFusion(sources, growth, options, name, fusion, promise, notes)


def save_t5_tokenizer(folder, vocabulary):
    """Adds a T5's tokenizer to a preset.

    Args:
        folder: The preset.
        vocabulary: File of a SentencePiece model.
    """
    tokenizer = optional("keras_hub").models.T5Tokenizer(str(vocabulary))
    tokenizer.save_to_preset(str(folder))
