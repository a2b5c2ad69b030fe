"""The axes of Keras' recurrent layers, their cells, and the wrappers around layers."""

from keras import layers

from keras_fusion.axes import Axes, Joined, Stacked
from keras_fusion.layers.declarations import Declaration, declaration_of, register_fusion

# Gates whose units lie side by side in one dimension of a cell's kernels.
_GATES = {layers.SimpleRNNCell: 1, layers.GRUCell: 3, layers.LSTMCell: 4}
_STATES = {layers.SimpleRNNCell: 1, layers.GRUCell: 1, layers.LSTMCell: 2}


def _kind(cell):
    return next((kind for kind in _GATES if isinstance(cell, kind)), None)


def _cell(cell, source, units, path):
    """Weights of one cell: `{path: Axes}`."""
    gates = Joined(units, before=_GATES[_kind(cell)])
    state = f"state of {units}"
    weights = {
        f"{path}/kernel": Axes((source, gates), sums=(source,), averages=False),
        f"{path}/recurrent_kernel": Axes((state, gates), sums=(state,), averages=False),
    }
    if cell.use_bias:
        two = isinstance(cell, layers.GRUCell) and cell.reset_after
        weights[f"{path}/bias"] = Axes(("input and state", gates) if two else (gates,))
    return weights


def _cells(layer):
    """Cells of a recurrent layer and their paths inside it; none for cells of other classes."""
    cell = layer.cell
    if isinstance(cell, layers.StackedRNNCells):
        cells = [(inner, f"{cell.name}/{inner.name}") for inner in cell.cells]
    else:
        cells = [(cell, cell.name)]
    return cells if all(_kind(inner) for inner, _ in cells) else []


def _resize_cells(config, cells, layouts, units):
    """Writes the fused units, where they grow, into the configurations of cells, in place."""
    if "units" in config:
        stack = [config]
    else:
        inner = config["cell"]["config"]
        stack = [cell["config"] for cell in inner["cells"]] if "cells" in inner else [inner]
    for cell, name in zip(stack, units, strict=True):
        if name in layouts:
            cell["units"] = layouts[name].size


@register_fusion(layers.RNN)
def recurrent(layer, prefix="", path=""):
    cells = _cells(layer)
    if not cells:
        return None
    units = [f"{prefix}units_{index}" for index in range(len(cells))]
    weights, sources = {}, ["input", *units]
    for (cell, where), source, name in zip(cells, sources, units, strict=False):
        weights |= _cell(cell, source, name, f"{path}/{where}".lstrip("/"))
    states = [
        {-1: name}
        for (cell, _), name in zip(cells, units, strict=True)
        for _ in range(_STATES[_kind(cell)])
    ]

    def resize(config, all_sources, layouts, norm):
        _resize_cells(config, cells, layouts, units)
        return type(layer), config

    def refuse(all_sources, layouts, norm):
        if layer.stateful:
            return "it keeps a state for each row of a batch; build the models with stateful=False"
        return None

    return Declaration(
        weights,
        inputs={0: {-1: "input"}, "initial_state": tuple(states)},
        outputs=({-1: units[-1]}, *(states if layer.return_state else ())),
        fixed=("input and state",),
        tied={f"state of {name}": name for name in units},
        averages=False,
        resize=resize,
        refuse=refuse,
    )


@register_fusion(layers.Bidirectional)
def bidirectional(layer):
    forward = recurrent(layer.forward_layer, "forward ", layer.forward_layer.name)
    backward = recurrent(layer.backward_layer, "backward ", layer.backward_layer.name)
    if forward is None or backward is None:
        return None
    (out, *forward_states), (back, *backward_states) = forward.outputs, backward.outputs
    if layer.merge_mode == "concat":
        outputs = ({-1: Stacked((out[-1], back[-1]))},)
    elif layer.merge_mode is None:
        outputs = (out, back)
    else:
        outputs = (out,)

    def resize(config, sources, layouts, norm):
        for key, inner in (("layer", forward), ("backward_layer", backward)):
            if config.get(key):
                inner.resize(config[key]["config"], sources, layouts, norm)
        return type(layer), config

    return Declaration(
        forward.weights | backward.weights,
        inputs={
            0: {-1: "input"},
            "initial_state": forward.inputs["initial_state"] + backward.inputs["initial_state"],
        },
        outputs=(*outputs, *forward_states, *backward_states),
        fixed=("input and state",),
        tied=dict(forward.tied) | dict(backward.tied),
        averages=False,
        resize=resize,
        refuse=forward.refuse,
    )


@register_fusion(layers.TimeDistributed)
def time_distributed(layer):
    inner = declaration_of(layer.layer)
    if inner is None:
        return None

    def later(dims):
        return {dim if dim < 0 else dim + 1: axis for dim, axis in dims.items()}

    def resize(config, sources, layouts, norm):
        insides = [source.layer for source in sources]
        kind, inside = inner.widened(layer.layer, insides, layouts, norm)
        if kind is not type(layer.layer):
            config["layer"] |= {
                "class_name": kind.__name__,
                "module": kind.__module__,
                "registered_name": f"keras_fusion>{kind.__name__}",
            }
        config["layer"] |= {"config": inside}
        return type(layer), config

    def passed(function):
        if function is None:
            return None
        return lambda sources, *rest: function([source.layer for source in sources], *rest)

    return Declaration(
        {f"{layer.layer.name}/{path}": axes for path, axes in inner.weights.items()},
        inputs={0: later(inner.inputs.get(0, {}))},
        outputs=tuple(later(dims) for dims in inner.outputs),
        fixed=inner.fixed,
        tied=inner.tied,
        averages=inner.averages,
        unitwise=inner.unitwise,
        resize=resize,
        refuse=passed(inner.refuse),
        keeps=passed(inner.keeps),
    )
