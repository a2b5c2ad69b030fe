"""T5 between `kf.models`, KerasHub and transformers: configurations, and rearranged weights.

Everything goes by ours: a configuration is a `T5Config`, weights have the paths of `kf.models.T5`.
Rearranged weights are views: nothing is copied until they are read.
"""

import math

import keras
import numpy as np

from keras_fusion.errors import FusionError
from keras_fusion.families.notation import parse
from keras_fusion.families.t5 import T5 as FAMILY
from keras_fusion.families.t5_names import HEAD, rows
from keras_fusion.interop.folders import TIED
from keras_fusion.layers.tree import to_numpy
from keras_fusion.models.config import T5Config
from keras_fusion.optional import optional

CLASS_NAME = "T5ForConditionalGeneration"
# feed_forward_proj of transformers: activation, and whether the MLP is gated. Ours is GELU's tanh
# approximation, which transformers means by gated-gelu and by gelu_new.
_ACTIVATIONS = {
    "relu": ("relu", False),
    "gated-relu": ("relu", True),
    "gelu_new": ("gelu", False),
    "gated-gelu": ("gelu", True),
    "silu": ("silu", False),
    "gated-silu": ("silu", True),
}
_FIELDS = {
    "vocab_size": "vocabulary_size",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "d_model": "hidden_dim",
    "d_ff": "intermediate_dim",
    "d_kv": "key_value_dim",
    "dropout_rate": "dropout",
    "layer_norm_epsilon": "layer_norm_epsilon",
    "relative_attention_num_buckets": "relative_attention_num_buckets",
    "relative_attention_max_distance": "relative_attention_max_distance",
}
_HUB_FIELDS = (
    "vocabulary_size",
    "num_layers",
    "num_heads",
    "hidden_dim",
    "intermediate_dim",
    "key_value_dim",
    "dropout",
    "use_gated_activation",
    "layer_norm_epsilon",
    "tie_embedding_weights",
)
# KerasHub's position biases have no other ones.
_HUB_BUCKETS = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}
_HUB_GELU = "keras_hub>gelu_approximate"
_STANDARD = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}


def from_transformers(folder):
    """Configuration and weights of a folder of transformers.

    Args:
        folder: A `Folder`, see `interop.read_folder`.

    Returns:
        A `T5Config`, and `{path: array}` for `T5.from_weights`.

    Raises:
        FusionError: It is no T5 that `kf.models.T5` can be.
    """
    config = folder.config
    if folder.class_name != CLASS_NAME:
        raise _refusal(f"{CLASS_NAME}", f"a {folder.class_name} in {str(folder.path)!r}")
    if config.get("num_decoder_layers") not in (None, config.get("num_layers")):
        layers = f"num_decoder_layers={config['num_decoder_layers']}"
        raise _refusal(f"num_layers={config.get('num_layers')} decoder layers", layers)
    activation = config.get("feed_forward_proj", "relu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise _refusal(f"one of {', '.join(_ACTIVATIONS)}", f"feed_forward_proj={activation!r}")
    name, gated = _ACTIVATIONS[activation]
    fields = {ours: config[theirs] for theirs, ours in _FIELDS.items() if theirs in config}
    fields.setdefault("dropout", 0.1)
    has_head = HEAD.transformers in folder.arrays
    scales = config["scale_decoder_outputs"]
    try:
        made = T5Config(
            **fields,
            activation=name,
            use_gated_activation=gated,
            tie_embedding_weights=not has_head and scales,
        )
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        received = f"that of {str(folder.path)!r} ({reason:.200})"
        raise _refusal("a configuration of T5", received) from error
    arrays = dict(folder.arrays)
    if not has_head and not scales:
        # A tied head whose logits are not scaled: ours has that as a head of its own.
        arrays[HEAD.transformers] = arrays["shared.weight"]
    return made, _renamed(made, arrays, "transformers", "keras_fusion")


def to_transformers(config, weights):
    """Content of config.json, and weights by transformers' names.

    Args:
        config: A `T5Config`.
        weights: `{path: array}` of its weights.

    Raises:
        FusionError: The network has what T5 in transformers has not, such as grouped norms.
    """
    _refuse_groups(config)
    kind = (config.activation, config.use_gated_activation)
    names = {value: name for name, value in _ACTIVATIONS.items()}
    made = {
        "architectures": [CLASS_NAME],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "num_decoder_layers": config.num_layers,
        "feed_forward_proj": names[kind],
        # transformers casts what it loads to this one.
        "dtype": str(np.result_type(*{np.dtype(array.dtype) for array in weights.values()})),
        TIED: config.tie_embedding_weights,
        "scale_decoder_outputs": config.tie_embedding_weights,
        **_STANDARD,
        **{theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()},
    }
    return made, _renamed(config, weights, "keras_fusion", "transformers")


def from_keras_hub(backbone):
    """Configuration and weights of KerasHub's `T5Backbone`.

    Args:
        backbone: The backbone.

    Raises:
        FusionError: Its activation is none that `kf.models.T5` has, or its weights are quantised.
    """
    fields = {name: getattr(backbone, name) for name in _HUB_FIELDS}
    made = T5Config(**fields, activation=_activation_name(backbone.activation))
    arrays = {row.keras_hub: to_numpy(_variable(backbone, row.keras_hub)) for row in _rows_of(made)}
    _check_dtypes(arrays)
    return made, _renamed(made, arrays, "keras_hub", "keras_fusion")


def to_keras_hub(config, weights):
    """KerasHub's `T5Backbone` with the weights of ours, in float32, which holds smaller ones.

    Args:
        config: A `T5Config`.
        weights: `{path: array}` of its weights.

    Raises:
        FusionError: The network has what KerasHub's T5 has not, float32 does not hold its weights,
            or keras-hub is not installed.
    """
    keras_hub = optional("keras_hub")
    _refuse_groups(config)
    _check_dtypes(weights)
    for field, value in _HUB_BUCKETS.items():
        if getattr(config, field) != value:
            received = f"{field}={getattr(config, field)}"
            raise _refusal(f"{field}={value}, as KerasHub's T5 has it", received)
    activation = config.activation
    if activation == "gelu":
        activation = keras.saving.get_registered_object(_HUB_GELU)
    backbone = keras_hub.models.T5Backbone(
        **{name: getattr(config, name) for name in _HUB_FIELDS},
        activation=activation,
        dtype="float32",
    )
    for name, array in _renamed(config, weights, "keras_fusion", "keras_hub").items():
        _variable(backbone, name).assign(np.asarray(array))
    return backbone


def _rows_of(config):
    return rows(config.num_layers, config.use_gated_activation, not config.tie_embedding_weights)


def _renamed(config, arrays, source, target):
    """Arrays by the names of another library, as it lays them out.

    Raises:
        FusionError: A weight is missing.
    """
    sizes = {"heads": config.num_heads, "head_dim": config.key_value_dim}
    made = {}
    for row in _rows_of(config):
        name = getattr(row, source)
        if name not in arrays:
            raise _refusal("every weight of a T5", f"none that is called {name!r}")
        entries = [_entry(row, library) for library in (source, target)]
        made[getattr(row, target)] = rearranged(arrays[name], *entries, sizes)
    return made


def _entry(row, library):
    if library == "transformers":
        return FAMILY.transformers.entry(row.transformers)
    return parse(row.axes)


def rearranged(array, source, target, sizes):
    """A weight laid out as another library has it: a view where that is possible.

    Args:
        array: The weight.
        source, target: `Entry` of the weight here and there, which name the same axes.
        sizes: `{axis: size}` of the axes that are joined with others.

    Examples:
        >>> rearranged(np.zeros((8, 6)), parse("hidden heads*head_dim"),
        ...            parse("heads*head_dim hidden"), {"heads": 3, "head_dim": 2}).shape
        (6, 8)
    """
    factors = [factor for dim in source.dims for factor in dim]
    shape = []
    for dim, size in zip(source.dims, array.shape, strict=True):
        shape += [size] if len(dim) == 1 else [sizes[factor] for factor in dim]
    order = [factors.index(factor) for dim in target.dims for factor in dim]
    lengths = dict(zip(factors, shape, strict=True))
    joined = [math.prod(lengths[factor] for factor in dim) for dim in target.dims]
    # Dimensions whose factors stay together move as one: the result stays a view.
    if [*source.dims] == [*reversed(target.dims)]:
        return array.T
    return array.reshape(shape).transpose(order).reshape(joined)


def _variable(backbone, path):
    """The variable at a path of attributes, in which a number is a place in a list."""
    value = backbone
    for part in path.split("."):
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    return value


def _activation_name(activation):
    """Name of the activation in `T5Config`."""
    names = {_HUB_GELU: "gelu", "relu": "relu", "silu": "silu"}
    name = keras.saving.get_registered_name(activation)
    name = name if isinstance(name, str) else getattr(activation, "__name__", str(activation))
    if name not in names:
        raise _refusal(f"one of the activations {', '.join(names)}", f"activation={name!r}")
    return names[name]


def _check_dtypes(arrays):
    """Refuses weights that are no numbers, or more precise ones than float32."""
    for name, array in arrays.items():
        dtype = np.dtype(array.dtype)
        if dtype.kind in "iub" or not np.can_cast(dtype, np.float32):
            received = f"{name!r} of {dtype}"
            raise _refusal("weights that float32 holds", received, "Convert them to float32 first")


def _refuse_groups(config):
    if config.norm_groups is not None and len(config.norm_groups) > 1:
        raise _refusal(
            "a T5 whose norms have one group",
            f"norm_groups={config.norm_groups}",
            "Fuse with norm='rule' for other libraries",
        )


def _refusal(expected, received, do="Convert another model"):
    return FusionError(f"Expected {expected}. Received: {received}. {do}.")
