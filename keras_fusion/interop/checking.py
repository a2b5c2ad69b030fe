"""Checks of a folder of transformers: its weights against its configuration.

transformers draws at random what a folder lacks, and says so in a warning. Here it is an error.
"""

from keras_fusion.errors import FusionError
from keras_fusion.families.notation import KEPT
from keras_fusion.families.table import layer_of, matches

CONFIG_FILE = "config.json"


def refusal(path, fault, do, expected="a folder of transformers"):
    """A `FusionError` about a folder, or a file of it."""
    return FusionError(f"Expected {expected}. Received: {str(path)!r} {fault}. {do}.")


def check_weights(path, class_name, names, config, arrays):
    """Refuses weights that are missing, or not of the sizes in the configuration.

    Args:
        path: The folder.
        class_name: Name of its class.
        names: `Names` of the class.
        config: Content of config.json.
        arrays: Name to array.

    Raises:
        FusionError: Naming the first weight or field that is at fault.
    """
    sizes = _sizes(path, names, config, arrays)
    _check_required(path, class_name, names, arrays)
    for stack, field in names.stacks.items():
        _check_layers(path, stack, field, names, config, arrays)
    for name, array in arrays.items():
        entry = names.entry(name)
        if entry.kind == KEPT:
            continue
        expected = [_dim_sizes(dim, names, config, sizes) for dim in entry.dims]
        fits = len(expected) == array.ndim and all(
            size > 0 and (values is None or size in values)
            for size, values in zip(array.shape, expected, strict=True)
        )
        if not fits:
            fault = f"with `{name}` of shape {array.shape}, which {CONFIG_FILE} does not say"
            raise refusal(path, fault, "Restore the configuration or the weights")


def axis_names(names, name):
    """Names of the axes of a weight."""
    return {factor for dim in names.entry(name).dims for factor in dim}


def _sizes(path, names, config, arrays):
    """`{axis: sizes that it may have}` of the axes that the configuration has fields for."""
    used = {axis for name in arrays for axis in axis_names(names, name)}
    fixed = {axis: (field,) for axis, field in names.fixed.items() if axis in used}
    sizes = {
        axis: {_size(path, names, config, field) for field in fields}
        for axis, fields in (*names.sizes.items(), *fixed.items())
    }
    for field in filter(None, (names.head_dim, names.layers)):
        _size(path, names, config, field, is_optional=True)
    return sizes


def _size(path, names, config, field, is_optional=False):
    """A size in the configuration, once it is known to be a positive integer."""
    value = names.value(config, field)
    if value is None and is_optional:
        return None
    if value is None:
        raise refusal(path, f"whose {CONFIG_FILE} lacks {field}", "Restore the file")
    if type(value) is not int or value < 1:
        fault = f"whose {CONFIG_FILE} has {field}={value!r:.80}"
        raise refusal(path, fault, "Restore the file", "a positive integer for every size")
    return value


def _check_required(path, class_name, names, arrays):
    """Refuses a model without a weight that all of its class have."""
    for classes, patterns in names.required.items():
        for pattern in patterns if matches(class_name, (classes,)) else ():
            alternatives = pattern.split("|")
            if not any(matches(name, alternatives) for name in arrays):
                fault = f"without `{alternatives[0].lstrip('*.')}`, which a {class_name} has"
                raise refusal(path, fault, f"Restore its weights, or its class in {CONFIG_FILE}")


def _check_layers(path, stack, field, names, config, arrays):
    """Refuses a stack that lacks layers, or a layer without a weight that others have."""
    layers = {}
    for name in arrays:
        number, rest = layer_of(name, stack) or (None, None)
        if number is not None and names.entry(name).kind != KEPT:
            layers.setdefault(number, set()).add(rest)
    if not layers:
        return
    count = _size(path, names, config, field)
    if missing := sorted(set(range(count)) - layers.keys()):
        fault = f"with the weights of {len(layers)} layers, and {field}={count}"
        do = f"Restore those of layer {missing[0]}, or {CONFIG_FILE}"
        raise refusal(path, fault, do)
    once = {rest for rests in layers.values() for rest in rests if matches(rest, names.once)}
    for rest in sorted(set().union(*layers.values()) - once):
        for number in range(count):
            if rest not in layers[number]:
                fault = f"without `{rest}` of layer {number}, which other layers have"
                raise refusal(path, fault, "Restore its weights")


def _dim_sizes(factors, names, config, sizes):
    """Sizes that a dimension may have; None where the configuration does not say."""
    options = {1}
    for factor in factors:
        factor = factor.rstrip("'")
        if factor.isdigit():
            values = {int(factor)}
        elif factor == "head_dim":
            values = {names.heads_size(config)}
        elif factor in sizes:
            values = sizes[factor]
        else:
            return None
        options = {option * value for option in options for value in values}
    return options
