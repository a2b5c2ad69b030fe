"""KerasHub models whose norms treat each source's units apart: the fusion property.

A grouped model is of a subclass of the stock class: the stock network, in which every norm over the
width normalises each source's block. It saves, loads and trains as the stock one.
"""

import contextlib
import functools
import json
import pathlib

import keras
from keras import ops

from keras_fusion import _keras
from keras_fusion.errors import FusionError
from keras_fusion.optional import optional

_PACKAGE = "keras_fusion"
_NAME = "GroupedModel"
_HUB = "keras_hub"
# In one file, or in several with an index.
_WEIGHTS = ("model.weights.h5", "model.weights.json")


@keras.saving.register_keras_serializable(package=_PACKAGE, name=_NAME)
class GroupedModel:
    """Base of the models with grouped norms; `from_config` builds any of them.

    Attributes:
        stock_class: The class that it stands for.
        group_widths: Widths of the groups of units that norms treat apart, one for each source.
    """

    stock_class = None
    group_widths = ()

    def get_config(self):
        return super().get_config() | {
            "stock_class": keras.saving.get_registered_name(self.stock_class),
            "group_widths": list(self.group_widths),
        }

    @classmethod
    def from_config(cls, config):
        """Builds the stock model and groups its norms.

        Raises:
            FusionError: No class of that name is registered with Keras.
        """
        config = dict(config)
        widths = config.pop("group_widths")
        name = config.pop("stock_class")
        if name.startswith(_HUB + ">"):
            # Of no other package: a file must not say what is imported.
            optional(_HUB)
        stock = keras.saving.get_registered_object(name)
        if stock is None:
            raise FusionError(
                f"a model with grouped norms stands for a class that Keras does not know. "
                f"Received: {name!r}; import the module that registers it first"
            )
        return group_norms(stock.from_config(config), widths)


def stock_class(model):
    """Class of a model, or the stock one that it stands for."""
    return getattr(model, "stock_class", None) or type(model)


def load_preset(folder, load_weights=True):
    """Loads a preset folder, also that of a model with grouped norms.

    KerasHub's `from_preset` looks for a task of the backbone's very class, and knows none of a
    grouped one.

    Args:
        folder: A folder that `save_to_preset` of a backbone or a task wrote.
        load_weights: Without them the model has shapes, and its variables no values.

    Returns:
        The task, or the backbone where the folder holds no task.

    Raises:
        FusionError: The folder holds no configuration that can be read, or no weights; or
            keras-hub is not installed.

    Examples:
        >>> kf.fuse([gpt2_a, gpt2_b]).save_to_preset("fused")
        >>> model = kf.families.load_preset("fused")
    """
    optional(_HUB)
    folder = pathlib.Path(folder)
    is_task = (folder / "task.json").exists()
    file = folder / ("task.json" if is_task else "config.json")
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FusionError(
            f"Expected a preset with {file.name}. Received: {str(folder)!r} ({reason:.200})"
        ) from error
    with contextlib.nullcontext() if load_weights else _keras.kept_initializers():
        model = keras.saving.deserialize_keras_object(config)
    backbone = model.backbone if is_task else model
    files = [folder / name for name in _WEIGHTS if (folder / name).exists()]
    if not files:
        raise FusionError(f"Expected one of {_WEIGHTS} in a preset. Received: {str(folder)!r}")
    if load_weights:
        backbone.load_weights(str(files[0]))
    if is_task:
        if load_weights and (folder / "task.weights.h5").exists():
            model.load_task_weights(str(folder / "task.weights.h5"))
        if model.preprocessor is not None:
            model.preprocessor.load_preset_assets(str(folder))
    return model


def group_norms(model, widths):
    """Makes the norms over the width of a stock model grouped ones; returns the model.

    Args:
        model: A built stock backbone or task, which changes; a task that has no norm of its own
            stays of its class.
        widths: Widths of the groups, which add up to the width.
    """
    width = sum(widths)
    norms = [
        layer
        for layer in _keras.layers_in(model)
        if _is_norm(layer) and any(v.shape == (width,) for v in _keras.own_variables(layer))
    ]
    for layer in norms:
        layer.__class__ = _grouped_norm(type(layer))
        layer.group_widths = tuple(widths)
    if norms:
        model.__class__ = _grouped_class(type(model))
        model.group_widths = tuple(widths)
    return model


@functools.cache
def _grouped_class(stock):
    """Subclass of a stock model's class that keeps the widths of its groups."""
    cls = type(f"Grouped{stock.__name__}", (GroupedModel, stock), {"stock_class": stock})
    return keras.saving.register_keras_serializable(_PACKAGE, _NAME)(cls)


@functools.cache
def _grouped_norm(stock):
    def call(self, inputs, *args, **kwargs):
        outputs, start = [], 0
        for width in self.group_widths:
            block = slice(start, start + width)
            view = _Block(self, block)
            outputs.append(stock.call(view, inputs[..., block], *args, **kwargs))
            start += width
        return ops.concatenate(outputs, axis=-1)

    return type(f"Grouped{stock.__name__}", (stock,), {"call": call})


class _Block:
    """A norm as it is for one group: its weights are those of the group's units."""

    def __init__(self, layer, block):
        self._layer, self._block = layer, block
        self._width = sum(layer.group_widths)

    def __getattr__(self, name):
        value = getattr(self._layer, name)
        if isinstance(value, keras.Variable) and value.shape == (self._width,):
            return ops.convert_to_tensor(value)[self._block]
        return value


def _is_norm(layer):
    is_grouped = hasattr(layer, "group_widths")
    return "norm" in type(layer).__name__.lower() and not is_grouped and not _keras.children(layer)
