"""Fusing KerasHub's backbones and tasks in memory.

The result is of the stock class wherever that computes what is promised: for one network, and with
`norm="rule"`. With `norm="property"` different networks give a backbone whose norms are grouped.
"""

import collections
import contextlib
import dataclasses
import re

import keras
import numpy as np

from keras_fusion import _keras
from keras_fusion.compiling import SlotGrowth, compile_alike, compile_mismatches
from keras_fusion.errors import PLEASE_REPORT, FusionError
from keras_fusion.families import checking
from keras_fusion.families.fusing import FamilyFusion, Growth, growths_by
from keras_fusion.families.grouped import group_norms, stock_class
from keras_fusion.families.notation import KEPT
from keras_fusion.families.table import families
from keras_fusion.layers import checks
from keras_fusion.layers.tree import to_numpy
from keras_fusion.layers.values import ArrayInitializer
from keras_fusion.noise import Noise
from keras_fusion.options import BlockOptions, mean_weights
from keras_fusion.record import FusedWeight, recall, remember, remember_growth


def is_stock(model):
    """Returns whether a model is a backbone or task of a class that a family's table names."""
    return _family(stock_class(_backbone(model))) is not None


@contextlib.contextmanager
def hints(models):
    """Adds to a `FusionError` inside it that a KerasHub model's class has no table.

    Args:
        models: The sources.
    """
    try:
        yield
    except FusionError as error:
        stock = next((type(_backbone(model)) for model in models if _lacks_table(model)), None)
        if stock is None:
            raise
        tables = [family.keras_hub for family in families().values() if family.keras_hub]
        classes = ", ".join(name for names in tables for name in names.class_names)
        raise FusionError(
            f"{error}; no family has a table of {stock.__name__}'s weights. There are tables for "
            f"{classes}: add one with kf.families.register"
        ) from error


def check_growth(fused, models):
    """Raises where a KerasHub model that was fused as a graph has not grown.

    Layers that no one has declared pass a fusion of equal sources as they are.
    """
    if any(map(_lacks_table, models)) and not any(weight.grows for weight in recall(fused)):
        raise FusionError(f"cannot fuse: no layer of {models[0].name} grows")


def _lacks_table(model):
    classes = type(_backbone(model)).__mro__
    return any(cls.__module__.startswith("keras_hub.") for cls in classes) and not is_stock(model)


def fuse_stock(models, growth, norm="property", check=True, optimizer="fresh"):
    """Fuses KerasHub models of one class; see `kf.fuse`.

    Args:
        models: Backbones, or tasks.
        growth: A `Growth`.
        norm: `"property"` or `"rule"`, which are the same for a network with itself.
        check: Whether to compare the result with the mean of the sources on random inputs, where
            it promises that.
        optimizer: `"fresh"` or `"grow"`, see `kf.fuse`.

    Returns:
        The fused model.

    Raises:
        FusionError: Naming everything that keeps the sources from being fused, before anything is
            built; or that the result is not what it should be.
    """
    backbones = [_backbone(model) for model in models]
    checks.raise_mismatches(checking.mismatches(models, backbones))
    checks.raise_mismatches(compile_mismatches(models, optimizer))
    family, names = _family(stock_class(backbones[0]))
    first = _variables(models[0])
    variables = {id(model): _aligned(first, model, names) for model in models}
    sources = [variables[id(model)] for model in models]
    values = {
        key: {name: to_numpy(variable) for name, variable in source.items()}
        for key, source in variables.items()
    }
    arrays = [values[id(model)] for model in models]
    exact_norms = norm == "property"
    configs = [_config(backbone, names) for backbone in backbones]
    # Noise moves the function, so it comes after the check.
    silent = dataclasses.replace(growth, noise=Noise()) if check else growth
    fusion = FamilyFusion(family, names, configs, arrays, silent, is_exact=exact_norms)
    if not growth.noise.scale and len(set(growth.shares or (1,))) == 1:
        checks.warn_if_never_parting(models, arrays)
    is_self = all(backbone is backbones[0] for backbone in backbones)
    groups = fusion.widths if exact_norms and not is_self else None
    fused = _built(models, fusion.config, names, _task_sizes(models, fusion), groups)
    growths = _give_weights(fused, fusion, sources)
    remember(fused, [entry.weight for entry in growths])
    if check:
        if is_self or exact_norms or not fusion.widths:
            checking.check(models, fused, fusion)
        _add_noise(growths, fusion, growth.noise)
    _keep_state(fused, models[0])
    compile_alike(fused, models, growths, optimizer)
    if hasattr(models[0], "sampler"):
        fused.sampler = models[0].sampler
    return fused


def plan_stock(models, options, factors=None):
    """Plans a fusion from configurations and shapes: values are neither read nor compared.

    Args:
        models: Backbones, or tasks; their variables need no values.
        options: `BlockOptions`.
        factors: `{axis: factor}` where one model grows.

    Returns:
        A `FamilyFusion`, whose arrays have shapes and dtypes.

    Raises:
        FusionError: Naming what keeps the sources from being fused.
    """
    backbones = [_backbone(model) for model in models]
    if len(models) > 1:
        checks.raise_mismatches(checking.mismatches(models, backbones))
    family, names = _family(stock_class(backbones[0]))
    first = _variables(models[0])
    arrays = [
        {name: _unread(variable) for name, variable in _aligned(first, model, names).items()}
        for model in models
    ]
    configs = [_config(backbone, names) for backbone in backbones]
    if factors is None:
        growth = Growth(mean_weights(options.weights, len(models)), noise=options.noise)
        return FamilyFusion(family, names, configs, arrays, growth, options.norm == "property")
    for growth in growths_by(names, factors, options):
        copies = len(growth.weights)
        fusion = FamilyFusion(family, names, configs * copies, arrays * copies, growth)
        configs, arrays = [fusion.config], [fusion.arrays]
    return fusion


def _unread(variable):
    """An array of a variable's shape and dtype that takes no memory."""
    dtype = np.dtype(keras.backend.standardize_dtype(variable.dtype))
    return np.broadcast_to(np.zeros((), dtype), tuple(variable.shape))


def grow_stock(model, factors, *, noise, fill, asymmetry, check, optimizer):
    """Grows a KerasHub backbone or task along named axes; see `kf.grow`.

    Args:
        model: A backbone or a task.
        factors: `{axis: factor}`: "mlp", "heads" (with the heads of the keys), "hidden".
        noise, fill, asymmetry, check, optimizer: As for `kf.grow`.

    Raises:
        FusionError: Naming what cannot grow, before anything is built.
    """
    options = BlockOptions(noise=noise, fill=fill, asymmetry=asymmetry)
    for growth in growths_by(_names(model), factors, options):
        copies = [model] * len(growth.weights)
        grown = fuse_stock(copies, growth, check=check, optimizer=optimizer)
        remember_growth(grown, recall(model))
        model = grown
    return model


def repeat_key_heads(model, times):
    """Repeats the key and value heads of a model with grouped queries, which computes the same.

    Models with unequal numbers of query heads for each key head can be fused then.

    Args:
        model: A backbone or task of a family whose key heads are fewer than its query heads.
        times: How many times each key head is repeated.

    Returns:
        A model of the same class.

    Raises:
        FusionError: It has no key heads of their own, or not as many query heads.

    Examples:
        >>> kf.fuse([a, kf.families.repeat_key_heads(b, 2)], norm="rule")
    """
    backbone = _backbone(model)
    if not is_stock(model) or "key_heads" not in _names(model).sizes:
        raise FusionError(
            "repeat_key_heads takes a backbone or task with grouped queries. Received: "
            f"a {type(model).__name__}"
        )
    if type(times) is not int or times < 2:
        raise FusionError(f"times must be an integer of at least 2. Received: times={times!r}")
    names = _names(model)
    config = _config(backbone, names)
    (field,), (queries,) = names.sizes["key_heads"], names.sizes["heads"]
    config[field] *= times
    if config[queries] % config[field]:
        raise FusionError(
            f"times must divide the {config[queries]} query heads into equal groups. "
            f"Received: times={times} with {config[field] // times} key heads"
        )
    wide = _built([model], config, names, {})
    pairs = zip(_variables(model).items(), wide.variables, strict=True)
    for (key, variable), made in pairs:
        entry, value = names.entry(_stem(key)), to_numpy(variable)
        if ("key_heads",) in entry.dims:
            value = np.repeat(value, times, axis=entry.dims.index(("key_heads",)))
        _keras.initialize(made, ArrayInitializer(value))
    _keep_state(wide, model)
    return wide


def _backbone(model):
    return getattr(model, "backbone", model)


def _names(model):
    return _family(stock_class(_backbone(model)))[1]


def _family(stock):
    """The family of a class, and its `Names`: named there by KerasHub's name, or as it is."""
    ours = stock.__module__.startswith("keras_hub.")
    for family in families().values():
        names = family.keras_hub
        if names and (stock in names.classes or (ours and stock.__name__ in names.classes)):
            return family, names
    return None


def _config(backbone, names):
    config = backbone.get_config()
    return config | {
        field: getattr(backbone, attribute)
        for field, attribute in names.extra.items()
        if field not in config
    }


def _variables(model):
    """`{path: variable}`; what follows a `#` tells variables of one path apart."""
    variables = {}
    for variable in model.variables:
        key, number = variable.path, 1
        while key in variables:
            number += 1
            key = f"{variable.path}#{number}"
        variables[key] = variable
    return variables


def _aligned(first, model, names):
    """Variables of a model by the names of the first one's: Keras numbers layers of one class.

    Args:
        first: `{path: variable}` of the first source.
        model: A source.
        names: `Names` of the family.
    """
    numbered = dict(zip(_numbered(first), first, strict=True))
    variables = _variables(model)
    keys = zip(_numbered(variables), variables.items(), strict=True)
    aligned = {numbered.get(number, key): variable for number, (key, variable) in keys}
    kept = {key for key in (*first, *aligned) if names.entry(_stem(key)).kind == KEPT}
    # State of random numbers is there where something is random.
    ordered = {key: first[key] if key in kept else aligned.get(key) for key in first}
    others = {key: variable for key, variable in aligned.items() if key not in (*first, *kept)}
    return {key: v for key, v in (ordered | others).items() if v is not None}


def _numbered(variables):
    """Each path without Keras' numbers, and how many such there were before."""
    counts = collections.Counter()
    for key in variables:
        plain = _plain(key)
        counts[plain] += 1
        yield plain, counts[plain]


def _task_sizes(models, fusion):
    """Sizes in a task's own configuration, which grow as `hidden` does."""
    if models[0] is _backbone(models[0]) or not fusion.widths:
        return {}
    configs = [model.get_config() for model in models]
    return {
        field: sum(config[field] for config in configs)
        for field in fusion.names.task_sizes
        if configs[0].get(field) is not None
    }


def _built(models, config, names, task_sizes, groups=None):
    """A model of the first one's class, whose variables wait for their values.

    Args:
        models: The sources.
        config: Configuration of the backbone.
        names: `Names` of the family.
        task_sizes: Fields of the task's configuration that change.
        groups: Widths of the groups of its norms; None for stock ones.
    """
    first = models[0]
    stock = stock_class(_backbone(first))
    with _keras.deferred():
        model = stock.from_config(config)
    if groups:
        group_norms(model, groups)
    if first is not _backbone(first):
        changed = {"backbone": model, "preprocessor": first.preprocessor}
        with _keras.kept_initializers():
            model = stock_class(first)(**first.get_config() | changed | task_sizes)
        if groups:
            group_norms(model, groups)
    return model


def _give_weights(fused, fusion, variables):
    """Gives a fused model its values; returns a `SlotGrowth` for each weight but what is kept."""
    made = list(_variables(fused).values())
    expected = [(_plain(key), tuple(array.shape)) for key, array in fusion.arrays.items()]
    got = [(_plain(variable.path), tuple(variable.shape)) for variable in made]
    if got != expected:
        raise FusionError(
            f"the wider {type(fused).__name__} has other weights than the table of its family "
            f"says: {sorted(set(got) ^ set(expected))}; {PLEASE_REPORT}"
        )
    growths = []
    shares = fusion.growth.weights
    for key, variable in zip(fusion.arrays, made, strict=True):
        _keras.initialize(variable, ArrayInitializer(fusion.arrays[key]))
        block = fusion.blocks.get(key)
        if block is None:
            continue
        weight = FusedWeight(variable.path, variable, block.axes, block.layouts, block.averages)
        scales = [
            (1.0 if block.averages else share) / fusion.factor(key, source)
            for source, share in enumerate(shares)
        ]
        origins = tuple(source[key] for source in variables)
        growths.append(SlotGrowth(weight, block.grow, origins, scales))
    return growths


def _stem(key):
    return key.partition("#")[0]


def _plain(key):
    """A path without the numbers that Keras gives to layers of one class."""
    return re.sub(r"_\d+(?=/|#|$)|#.*", "", key)


def _add_noise(growths, fusion, noise):
    """Fills η, where a weight has any, of a model that has its values; or all inputs, balanced."""
    if not noise.scale:
        return
    for key, entry in zip(fusion.blocks, growths, strict=True):
        axes, layouts = entry.weight.axes, entry.weight.layouts
        growing = {name for name, layout in zip(axes.names, layouts, strict=True) if layout.grows}
        if len(growing) > 1 or (noise.kind == "balanced" and growing & set(axes.sums)):
            entry.weight.variable.assign(fusion.blocks[key].with_noise(noise)[...])


def _keep_state(fused, model):
    """Gives a model's layers the flags of another's: which of them are trained."""
    pairs = zip(_keras.layers_in(fused), _keras.layers_in(model), strict=True)
    # A flag goes down to the layers inside, which come after.
    for layer, origin in pairs:
        if layer is not origin and layer.trainable != origin.trainable:
            layer.trainable = origin.trainable
