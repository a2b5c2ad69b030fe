"""Fusing functional and sequential models: compare, plan, build, check."""

import dataclasses

from keras_fusion import _keras
from keras_fusion.compiling import SlotGrowth, compile_alike, compile_mismatches
from keras_fusion.errors import FusionError
from keras_fusion.graph.alignment import align
from keras_fusion.graph.building import Builder
from keras_fusion.graph.checking import check
from keras_fusion.graph.planning import Planner
from keras_fusion.graph.tracing import trace
from keras_fusion.layers import checks
from keras_fusion.layers.fusing import NORMS
from keras_fusion.layers.tree import Values
from keras_fusion.noise import Noise
from keras_fusion.operator import unequal_shares
from keras_fusion.record import remember

INPUTS = ("shared", "concat")
OUTPUTS = ("average", "concat")
AVERAGES = ("logits", "outputs")
FILLS = ("diagonal", "copies")


@dataclasses.dataclass(frozen=True)
class GraphOptions:
    """Options of a fusion of graphs: the arguments of `kf.fuse`."""

    weights: tuple[float, ...]
    norm: str = "property"
    noise: Noise = Noise()
    inputs: str = "shared"
    outputs: str = "average"
    average: str = "logits"
    fill: str = "diagonal"
    asymmetry: float = 0.0

    @property
    def shares(self):
        """Shares of the copies in every block; None where blocks are on the diagonal."""
        if self.fill == "diagonal":
            return None
        return unequal_shares(len(self.weights), self.asymmetry)

    def __post_init__(self):
        for name, choices in (
            ("norm", NORMS),
            ("inputs", INPUTS),
            ("outputs", OUTPUTS),
            ("average", AVERAGES),
            ("fill", FILLS),
        ):
            if getattr(self, name) not in choices:
                raise FusionError(
                    f"{name} must be one of {choices}. Received: {name}={getattr(self, name)!r}"
                )
        if self.asymmetry and self.fill != "copies":
            raise FusionError(
                "asymmetry is that of copies. "
                f"Received: asymmetry={self.asymmetry} with fill={self.fill!r}; use fill='copies'"
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
    checks.raise_mismatches([*messages, *compile_mismatches(models, optimizer)])
    if options.fill == "copies" and any(graph is not graphs[0] for graph in graphs):
        raise FusionError(
            "fill='copies' puts a network's weights into every block, so it takes one network "
            f"several times. Received: {len(traced)} networks; use kf.self_fuse, or "
            "fill='diagonal'"
        )
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
            "No rule of fusion has foreseen this: please report it with both models' summaries"
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
