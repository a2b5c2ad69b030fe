"""Fusing functional and sequential models: compare, plan, build, check."""

import dataclasses

from keras_fusion import _keras
from keras_fusion.compiling import SlotGrowth, compile_alike, compile_mismatches
from keras_fusion.errors import PLEASE_REPORT, FusionError
from keras_fusion.graph.alignment import align
from keras_fusion.graph.building import Builder
from keras_fusion.graph.checking import check
from keras_fusion.graph.planning import Planner
from keras_fusion.graph.tracing import trace
from keras_fusion.layers import checks
from keras_fusion.layers.tree import Values
from keras_fusion.noise import Noise
from keras_fusion.options import BlockOptions
from keras_fusion.record import remember

INPUTS = ("shared", "concat")
OUTPUTS = ("average", "concat")
AVERAGES = ("logits", "outputs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphOptions(BlockOptions):
    """Options of a fusion of graphs: arguments of `kf.fuse`; weights are always given."""

    inputs: str = "shared"
    outputs: str = "average"
    average: str = "logits"

    _choices = (
        *BlockOptions._choices,
        ("inputs", INPUTS),
        ("outputs", OUTPUTS),
        ("average", AVERAGES),
    )


def fuse_graphs(models, options, check_result=True, optimizer="fresh"):
    """Fuses built functional or sequential models of one structure; see `kf.fuse`.

    Args:
        models: The sources.
        options: `GraphOptions`.
        check_result: Whether to run sources and result on random numbers.
        optimizer: `"fresh"` or `"grow"`.

    Returns:
        The fused model.

    Raises:
        FusionError: Naming everything that keeps them from being fused, before anything is built;
            or the layer at which the result is not what it should be.
    """
    traced = {id(model): trace(model) for model in models}
    graphs = [traced[id(model)] for model in models]
    pairs, messages = align(graphs)
    messages += compile_mismatches(models, optimizer) + options.copies_mismatches(models)
    checks.raise_mismatches(messages)
    planner = Planner(graphs, pairs, options)
    planner.run()
    planner.check_outputs()
    checks.raise_mismatches(list(dict.fromkeys(planner.messages)))
    return build_planned(models, planner, check_result, optimizer)


def build_planned(models, planner, check_result, optimizer):
    """Builds, checks and compiles the model that a planner has planned.

    Args:
        models: The sources.
        planner: A `Planner` that has run, without messages.
        check_result, optimizer: As for `fuse_graphs`.

    Raises:
        FusionError: As `fuse_graphs`.
    """
    graphs, pairs, options = planner.graphs, planner.pairs, planner.options
    if not options.noise.scale and not options.asymmetry:
        values = {id(model): Values(enumerate(model.weights)) for model in models}
        checks.warn_if_never_parting(models, [values[id(model)] for model in models])
    # Noise moves the function, so it comes after the check.
    builder = Builder(graphs[0], planner, options, Noise() if check_result else options.noise)
    try:
        fused, weights = builder.build()
    except FusionError:
        raise
    except Exception as error:
        # Whatever Keras raises here, no rule has foreseen it.
        raise FusionError(
            f"cannot fuse: the fused model cannot be built: {' '.join(str(error).split())[:500]}. "
            f"No rule of fusion has foreseen this: {PLEASE_REPORT}"
        ) from error
    if check_result:
        check(graphs, pairs, planner, builder, fused, options)
        if options.noise.scale:
            for weight in weights:
                array = builder.arrays[id(weight.variable)]
                weight.variable.assign(array.with_noise(options.noise)[...])
    remember(fused, weights)
    growths = [
        SlotGrowth(
            weight,
            builder.arrays[id(weight.variable)].grow,
            builder.origins[id(weight.variable)],
            [1.0 if weight.averages else share for share in options.weights],
        )
        for weight in weights
    ]
    compile_alike(fused, models, growths, optimizer)
    return fused


def is_graph(model):
    """Returns whether a model has a graph that can be read."""
    return _keras.is_functional(model)
