"""Folders of transformers: a configuration, and weights as views of memory-mapped files.

    config.json                          the class in `architectures`, and its sizes
    model.safetensors                    the weights, or
    model.safetensors.index.json         the names of the shards that hold them

Whatever else lies there is copied (tokenizer, generation) or ignored.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.families.notation import KEPT
from keras_fusion.families.table import Family, Names, families, family_of, matches
from keras_fusion.interop import tensors
from keras_fusion.interop.checking import CONFIG_FILE, axis_names, check_weights, refusal
from keras_fusion.regions import pieces, region_of

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TIED = "tie_word_embeddings"

# What old files call the parts of a norm; transformers renames them as it loads.
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_ADAPTER_NAMES = ("**lora_**", "**.base_layer.**")
# Classes whose head's rows are those of the vocabulary.
_WITH_LOGITS = ("ForCausalLM", "ForConditionalGeneration", "ForMaskedLM", "LMHeadModel")
_MOST_BYTES_OF_JSON = 100_000_000
_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Folder:
    """A model in a folder of transformers.

    Attributes:
        path: The folder.
        class_name: Name of its class in transformers.
        family: `Family` of the class.
        names: `Names` of the family in transformers.
        config: Content of config.json; whether a head of its own is tied is written out.
        arrays: Name to array, read from the files when asked for. A copy of the embedding that
            stands for a tied head is left out.
        files: Files of the weights.
    """

    path: pathlib.Path
    class_name: str
    family: Family
    names: Names
    config: dict
    arrays: Mapping[str, np.ndarray]
    files: tuple[pathlib.Path, ...]

    @property
    def parameters(self):
        """Number of values of its weights."""
        return sum(array.size for array in self.arrays.values())


def is_folder(path):
    """Returns whether a folder holds files of a model of transformers, damaged or not."""
    names = (CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE)
    return any((pathlib.Path(path) / name).is_file() for name in names)


def read_folder(path):
    """Opens a folder of transformers; reads configuration and headers alone.

    Args:
        path: The folder.

    Returns:
        A `Folder`.

    Raises:
        FusionError: It is no such folder, or holds what cannot be fused: a class without a table,
            quantised weights, an adapter, pickled weights alone, missing shards.

    Examples:
        >>> read_folder("gpt2").arrays["wte.weight"].shape
        (50257, 768)
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise refusal(path, "which is no folder", "Check the path")
    config = read_json(path / CONFIG_FILE)
    _refuse_adapters(path, config)
    class_name, family, names = _class(path, config)
    files = _weight_files(path)
    arrays = _arrays(path, files)
    adapters = [name for name in arrays if matches(name, _ADAPTER_NAMES)]
    if adapters:
        raise refusal(path, f"with the adapter `{adapters[0]}`", "Merge the adapter first")
    for name, array in arrays.items():
        if array.dtype.kind in "iub" and names.entry(name).kind != KEPT:
            fault = f"with `{name}` of {array.dtype}, which is no floating-point type"
            raise refusal(path, fault, "Convert quantised weights to floating-point ones first")
    config, arrays = _tied(path, class_name, names, config, arrays)
    check_weights(path, class_name, names, config, arrays)
    return Folder(path, class_name, family, names, config, arrays, files)


def read_json(path):
    """Reads a JSON object.

    Raises:
        FusionError: There is none.
    """
    try:
        if path.stat().st_size > _MOST_BYTES_OF_JSON:
            raise ValueError("it is too large")
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise refusal(path, f"({reason})", "Restore the file", "a JSON file") from None
    if not isinstance(content, dict):
        raise refusal(path, f"with a {type(content).__name__}", "Restore it", "a JSON object")
    return content


def _refuse_adapters(path, config):
    if quantization := config.get("quantization_config"):
        is_named = isinstance(quantization, dict) and "quant_method" in quantization
        method = quantization["quant_method"] if is_named else "some method"
        fault = f"with weights quantised by {method}"
        raise refusal(path, fault, "Convert them to floating-point ones first")
    if any((path / name).exists() for name in _ADAPTER_FILES):
        raise refusal(path, "with an adapter", "Merge it into the model (merge_and_unload) first")


def _class(path, config):
    """Name of the class, its family and names."""
    classes = config.get("architectures")
    if not isinstance(classes, list) or len(classes) != 1:
        fault = f"whose {CONFIG_FILE} has architectures={classes!r}"
        raise refusal(path, fault, "Name the model's class there")
    entry = family_of(classes[0], "transformers")
    if entry is None:
        supported = sorted(
            name
            for family in families().values()
            if family.transformers
            for name in family.transformers.class_names
        )
        fault = f"of the class {classes[0]}, of which no table is known"
        do = f"Give one of {', '.join(supported)}, or register its family"
        raise refusal(path, fault, do)
    return classes[0], *entry


def _weight_files(path):
    # In the order of transformers, which reads no index beside this file.
    if (path / WEIGHTS_FILE).exists():
        return (path / WEIGHTS_FILE,)
    if (path / INDEX_FILE).exists():
        shards = read_json(path / INDEX_FILE).get("weight_map")
        if not isinstance(shards, dict) or not all(map(_is_file_name, shards.values())):
            raise refusal(path / INDEX_FILE, "without names of shards", "Restore it", "an index")
        files = [path / name for name in sorted(set(shards.values()))]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise refusal(path, f"without the shards {', '.join(missing)}", "Restore them")
        return tuple(files)
    pickled = sorted(file.name for file in path.glob("*.bin"))
    if pickled:
        do = (
            "Convert them: in Python, transformers.AutoModel.from_pretrained(FOLDER)"
            ".save_pretrained(NEW_FOLDER), with the class that config.json names"
        )
        raise refusal(path, f"with pickled weights alone ({pickled[0]})", do)
    raise refusal(path, f"without {WEIGHTS_FILE}", "Download the weights")


def _is_file_name(name):
    return isinstance(name, str) and name == pathlib.PurePath(name).name and name not in ("", "..")


def _open(file):
    try:
        with open(file, "rb") as opened:
            return tensors.views(opened)
    except FusionError:
        raise  # It says that a package is missing, nothing of the file.
    except OSError as error:
        fault = f"that cannot be read ({error.strerror or error})"
    except ValueError as error:
        fault = str(error)
    raise refusal(file, fault, "It is damaged: use another file", "a safetensors file")


def _arrays(path, files):
    """The weights of all files, by their present names."""
    arrays = {}
    for file in files:
        tensors_of_file = _open(file)
        arrays |= {_renamed(name): array for name, array in tensors_of_file.items()}
        if len({_renamed(name) for name in tensors_of_file}) < len(tensors_of_file):
            fault = f"with a weight by both of its names in {file.name} ({', '.join(_OLD_NAMES)})"
            raise refusal(path, fault, "Load and save it with transformers")
    if not arrays:
        raise refusal(path, "without any weight", "Download the weights")
    if files[0].name != WEIGHTS_FILE:
        names = {_renamed(name) for name in read_json(path / INDEX_FILE)["weight_map"]}
        if missing := sorted(names - set(arrays)):
            raise refusal(path, f"without the weight `{missing[0]}`", "Restore its shard")
    return arrays


def _renamed(name):
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def _tied(path, class_name, names, config, arrays):
    """Configuration and arrays in which a head is there if, and only if, it is one of its own."""
    config, flag = dict(config), config.get(TIED)
    if names.logits_flag:
        config.setdefault(names.logits_flag, flag is not False)
    heads = [name for name in arrays if matches(name, names.head)]
    heads = [name for name in heads if "vocabulary" in axis_names(names, name)]
    says_tied = names.ties if flag is None else flag
    if not heads:
        if names.head and not says_tied and class_name.endswith(_WITH_LOGITS):
            fault = f"without the head of a {class_name}, which {CONFIG_FILE} does not tie"
            do = f"Restore its weights, or set {TIED} in {CONFIG_FILE} to true"
            raise refusal(path, fault, do)
        return config, arrays
    (head,) = heads
    embedding = _embedding(names, head, arrays)
    is_equal = embedding is not None and _equal(arrays[head], arrays[embedding])
    # The field of T5 that says how its logits are scaled tells an untied head as well.
    says_tied = says_tied and not (names.logits_flag and config[names.logits_flag] is False)
    if says_tied and not is_equal:
        fault = f"that ties `{head}` to the embedding, and holds another one"
        do = f"Set {TIED} in {CONFIG_FILE} to false if the head is one of its own"
        raise refusal(path, fault, do)
    if says_tied:
        return config, {name: array for name, array in arrays.items() if name != head}
    if names.logits_flag and config[names.logits_flag]:
        fault = f"that scales the logits of a head of its own ({names.logits_flag}=true)"
        raise refusal(path, fault, "Multiply that into the head, and set the field to false")
    return config | {TIED: False}, arrays


def _embedding(names, head, arrays):
    """Name of the table that a head can be tied to."""
    dims = names.entry(head).dims
    for name, array in arrays.items():
        entry = names.entry(name)
        if entry.dims == dims and not entry.sums and array.shape == arrays[head].shape:
            return name
    return None


def _equal(a, b):
    return all(
        np.array_equal(a[piece], b[piece]) for piece in pieces(region_of(..., a.shape), _PIECE)
    )
