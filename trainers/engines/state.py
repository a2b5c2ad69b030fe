"""The names under which the state of a run is kept: weights, optimizer slots, seeds."""

import re
from collections.abc import Mapping, Sequence

import keras

from keras_fusion import _keras
from trainers.errors import UserError

_PART = re.compile(r"(.*)\[((?:[0-9]{1,15},)*[0-9]{1,15}|)\]")


def state_variables(model, optimizer=None) -> dict[str, keras.Variable]:
    """Names every variable of a run's state, the same in every process, strategy and backend.

    Keras' own paths carry counters of the process ("dense_7", "seed_generator_31"), so a second
    model in one process would have other names. Here:

        model/<path inside the model>                  weights
        seeds/<path of the layer>/<k>                  seed generators, in order of creation
        optimizer/<name>                               iterations, learning rate
        optimizer/<path of the weight>/<slot name>     slots

    The order is fixed. Model and optimizer have to be built.
    """
    names: dict[str, keras.Variable] = {}
    seen: set[int] = set()
    for layer_path, layer in _layers(model, (), set()):
        for variable in _keras.own_variables(layer):
            if id(variable) not in seen:
                seen.add(id(variable))
                _put(names, "/".join(("model", *layer_path, variable.name)), variable)
        for number, generator in enumerate(_keras.seed_generators(layer)):
            if id(generator.state) not in seen:
                seen.add(id(generator.state))
                _put(names, "/".join(("seeds", *layer_path, str(number))), generator.state)
    missing = [v.path for v in model.variables if id(v) not in seen]
    if missing:
        raise UserError(
            "every variable of the model to belong to one of its layers",
            f"variables={missing} without one",
            "Create them with `add_weight`",
        )
    if optimizer is not None:
        _name_optimizer(names, optimizer)
    return names


def part_name(name: str, starts: Sequence[int]) -> str:
    """Name of a part of an array, of which it says where it begins: kernel[0,128]."""
    return f"{name}[{','.join(map(str, starts))}]"


def parse_part_name(text: str) -> tuple[str, tuple[int, ...]]:
    """Returns name and beginnings; a `ValueError` where the text is not of that form."""
    match = _PART.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r:.80} for the name of a part")
    return match[1], tuple(map(int, match[2].split(","))) if match[2] else ()


def _put(names: dict, name: str, variable) -> None:
    """Adds under `name`, or name#2, name#3, … in order of creation where it is taken."""
    unique, count = name, 1
    while unique in names:
        count += 1
        unique = f"{name}#{count}"
    names[unique] = variable


def _layers(layer, path: tuple[str, ...], visited: set[int]):
    """Walks a layer and the layers below it: (path of names, layer), parents first."""
    visited.add(id(layer))
    yield path, layer
    taken: dict[str, int] = {}
    for child in _keras.children(layer):
        # Counted also when visited already, so that a shared layer shifts no name.
        name = _stable_name(child)
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:
            name = f"{name}_{taken[name] - 1}"
        if id(child) not in visited:
            yield from _layers(child, (*path, name), visited)


def _stable_name(layer) -> str:
    """Returns the name that the user gave, or the class name alone where Keras numbered it."""
    # As Keras makes them: "MultiHeadAttention" is numbered as "multi_head_attention_3".
    automatic = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
    automatic = re.sub(r"([a-z])([A-Z])", r"\1_\2", automatic).lower()
    rest = layer.name.removeprefix(automatic)
    return automatic if rest[:1] == "_" and rest[1:].isdigit() else layer.name


def _name_optimizer(names: dict, optimizer) -> None:
    weights = {
        variable.path.replace("/", "_") + "_": name.removeprefix("model/")
        for name, variable in names.items()
        if name.startswith("model/")
    }
    # Longest first: the path of one weight may be the beginning of another's.
    prefixes = sorted(weights, key=len, reverse=True)
    for variable in optimizer.variables:
        prefix = next((p for p in prefixes if variable.name.startswith(p)), None)
        if prefix is None:
            _put(names, f"optimizer/{variable.name}", variable)
        else:
            slot = variable.name.removeprefix(prefix)
            _put(names, f"optimizer/{weights[prefix]}/{slot}", variable)


def check_state(expected: Mapping[str, tuple], received: Mapping[str, tuple], source: str) -> None:
    """Raises one `UserError` that lists every name and shape in which two states differ.

    Args:
        expected: name to shape, of the variables that will be set.
        received: name to shape, of the values at hand.
        source: where the values come from, for the message.
    """
    missing = [name for name in expected if name not in received]
    unknown = [name for name in received if name not in expected]
    faults = [f"missing {name} {tuple(expected[name])}" for name in missing]
    faults += [f"unknown {name} {tuple(received[name])}" for name in unknown]
    faults += [
        f"{name} expected {tuple(shape)}, got {tuple(received[name])}"
        for name, shape in expected.items()
        if name in received and tuple(received[name]) != tuple(shape)
    ]
    if faults:
        raise UserError(
            f"the weights and shapes of this model in {source}",
            f"{len(faults)} mismatches: {'; '.join(faults)}",
            "Use the configuration that it was saved with",
        )
