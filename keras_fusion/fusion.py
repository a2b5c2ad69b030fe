"""`kf.fuse`: one call for any fusable model."""

import functools
from collections.abc import Iterable, Mapping

import keras

from keras_fusion._keras import layers_in
from keras_fusion.compiling import compile_alike, compile_mismatches, declared_growths
from keras_fusion.errors import FusionError
from keras_fusion.families import keras_hub
from keras_fusion.families.fusing import Growth
from keras_fusion.graph.fusing import GraphOptions, fuse_graphs, is_graph
from keras_fusion.graph.growing import grow_graph
from keras_fusion.layers import checks
from keras_fusion.layers.fusing import FusionOptions, fuse_layers
from keras_fusion.layers.tree import is_fusable
from keras_fusion.noise import Noise
from keras_fusion.options import COUNTS, BlockOptions, copies_of, is_count, mean_weights


def fuse(
    models,
    norm="property",
    noise=0.0,
    noise_kind="gaussian",
    seed=0,
    *,
    weights=None,
    inputs="shared",
    outputs="average",
    average="logits",
    fill="diagonal",
    asymmetry=0.0,
    optimizer="fresh",
    check=True,
):
    """Fuses networks of one structure into one that computes their mean (section 3.1).

    Args:
        models: Two or more built models of one structure; widths may differ. Functional or
            sequential Keras models of any layers, or `kf.models`.
        norm: `"property"` normalises each source's units apart and keeps the function;
            `"rule"` normalises all together and keeps the architecture (section 3.2).
        noise: Standard deviation of η over the root mean square of each weight.
        noise_kind: `"gaussian"` or `"balanced"`, see `keras_fusion.noise.Noise`.
        seed: Seed of the noise.
        weights: Weight of each source in the mean, adding up to 1; default 1/n.
        inputs: `"shared"`: all sources read the same input. `"concat"`: each reads its own, and
            the fused model's input is their concatenation along the last dimension.
        outputs: `"average"` or `"concat"`, which keeps the outputs of all sources.
        average: Where the mean is taken. `"logits"`: in the last layers with weights, before their
            activation and what follows without weights, so that a softmax of the mean of the
            logits comes out. `"outputs"`: of the outputs themselves, so that probabilities are
            averaged.
        fill: `"diagonal"`: each source's block on the diagonal (Eq. 5). `"copies"`, for a network
            with itself: its weights over n in every block.
        asymmetry: Of copies: makes their shares unequal by up to this part of 1/n, with the same
            sum, so that they part without noise.
        optimizer: Of a result whose first source is compiled: `"fresh"`, or `"grow"`, which takes
            over the state that the sources' Adam, AdamW or Adafactor have.
        check: Whether to run the sources and the result on random inputs, and to raise where a
            tensor is further from what was promised than rounding explains.

    Returns:
        A built model: of stock layers only, except for norms in groups.

    Raises:
        FusionError: Naming everything that keeps the models from being fused.

    Examples:
        >>> big = kf.fuse([model_a, model_b])
    """
    if isinstance(models, keras.layers.Layer) or not isinstance(models, Iterable):
        raise FusionError(
            "fuse takes a list of models. Received: models of type "
            f"{type(models).__name__}; write kf.fuse([a, b])"
        )
    models = list(models)
    blocks = {
        "weights": weights,
        "norm": norm,
        "noise": Noise(noise, noise_kind, seed),
        "fill": fill,
        "asymmetry": asymmetry,
    }
    graph = {"inputs": inputs, "outputs": outputs, "average": average}
    if models and all(map(is_fusable, models)):
        _refuse_set(models[0], graph)
        return _fuse_declared(models, optimizer, **blocks)
    if any(map(keras_hub.is_stock, models)):
        _refuse_set(models[0], graph)
        blocks["weights"] = mean_weights(weights, len(models))
        options = BlockOptions(**blocks)
        checks.raise_mismatches(options.copies_mismatches(models))
        shares = options.shares(len(models))
        growth = Growth(options.weights, noise=options.noise, shares=shares)
        return keras_hub.fuse_stock(models, growth, norm, check, optimizer)
    with keras_hub.hints(models):
        fused = _fuse_graphs(models, blocks, graph, check, optimizer)
        keras_hub.check_growth(fused, models)
    return fused


def _fuse_graphs(models, blocks, graph, check, optimizer):
    """Fuses functional or sequential models, from the options of their weights and of graphs."""
    messages = [
        f"source {index} is a {type(model).__name__}; fusing takes kf.models, or functional or "
        "sequential Keras models"
        if not is_graph(model)
        else f"source {index} (`{model.name}`) is not built; call it on data or `build` it first"
        for index, model in enumerate(models)
        if not is_graph(model) or not model.built
    ]
    if len(models) < 2:
        messages.append(f"fusing takes at least two networks, received {len(models)}")
    checks.raise_mismatches(messages)
    blocks["weights"] = mean_weights(blocks["weights"], len(models))
    return fuse_graphs(models, GraphOptions(**blocks, **graph), check, optimizer)


def _refuse_set(model, given):
    """Raises for options of graphs that a model of another kind is fused without."""
    defaults = GraphOptions()
    checks.raise_mismatches(
        [
            f"{name}: a {type(model).__name__} is fused without this option; leave it out"
            for name, value in given.items()
            if value != getattr(defaults, name)
        ]
    )


def _fuse_declared(models, optimizer, grow=None, weights=None, **options):
    """Fuses layers or models that declare their axes, and compiles the result."""
    grow = frozenset(models[0].default_grow() if grow is None else grow)
    weights = mean_weights(weights, len(models))
    options = FusionOptions(grow=grow, weights=weights, **options)
    checks.raise_mismatches(compile_mismatches(models, optimizer))
    fused = fuse_layers(models, options)
    compile_alike(fused, models, declared_growths(fused, models, options), optimizer)
    return fused


def self_fuse(model, n=2, **options):
    """Fuses a network with itself n times (section 3.1): its function stays what it is.

    Args:
        model: A built model, as for `fuse`.
        n: Number of copies, from 2 to 1,000.
        **options: Those of `fuse`; without noise or dropout the copies never part.

    Returns:
        A built model.

    Raises:
        FusionError: As `fuse`, and for another number of copies.

    Examples:
        >>> big = kf.self_fuse(model, 2, noise=0.1)
    """
    return fuse(copies_of(model, n), **options)


def grow(
    model,
    factors=None,
    /,
    *,
    noise=0.0,
    fill="diagonal",
    asymmetry=0.0,
    seed=0,
    optimizer="fresh",
    check=True,
    **named,
):
    """Widens some layers of one network, which still computes what it did.

    A layer that grows has copies of its units side by side; the next layer that sums over them is
    divided by the number of copies (AVG). Nothing else changes.

    Args:
        model: A built functional or sequential Keras model, or a `kf.models.T5`.
        factors: Optional `{name: factor}`, for names that are no Python identifiers.
        noise: Deviation of noise in the layers behind, over the root mean square of each weight.
            It is balanced (`keras_fusion.noise.Noise`): it adds up to zero over the copies, and
            the function stays.
        fill, asymmetry: As for `fuse`.
        seed: Seed of the noise.
        optimizer: `"fresh"`, or `"grow"` for the state of a model compiled with Adam, AdamW or
            Adafactor.
        check: Whether to run both networks on random inputs, and to compare them.
        **named: `name=factor`: how many times as wide it gets, an integer from 2 to 1,000. A name
            is that of a layer, which grows by its units, an attention by its heads; of a group:
            `heads`, the heads of every attention; `mlp`, the units of every Dense, EinsumDense or
            convolution that only layers with weights read. On the way there may be what treats
            each unit apart, such as an activation, a BatchNormalization, or a product with other
            units that grow; no sum with another tensor, no norm over the units, no output. A
            layer inside a nested model also has the name "model/layer". A T5 has the names
            `hidden`, `heads` and `mlp`.

    Returns:
        A built model, of stock layers only.

    Raises:
        FusionError: Naming what cannot grow, and the layers that can.

    Examples:
        >>> wide = kf.grow(model, mlp=2, heads=2, noise=0.1)
        >>> wide = kf.grow(model, {"dense_1": 3})
    """
    if not isinstance(factors, Mapping | None):
        raise FusionError(
            f"grow takes names with factors. Received: factors={factors!r}; write mlp=2, or a "
            'dictionary such as {"dense_1": 2}'
        )
    twice = sorted(set(factors or ()) & named.keys())
    factors = {**(factors or {}), **named}
    wrong = {name: n for name, n in factors.items() if not (isinstance(name, str) and is_count(n))}
    if wrong or not factors:
        raise FusionError(
            f"grow takes names with factors, {COUNTS}, such as mlp=2. "
            f"Received: {wrong or 'no names'}"
        )
    if twice:
        raise FusionError(f"grow takes each name once. Received: two factors of {twice}")
    options = {"fill": fill, "asymmetry": asymmetry, "check": check, "optimizer": optimizer}
    with keras_hub.hints([model]):
        return _grower(model)(factors, noise=Noise(noise, "balanced", seed), **options)


def _grower(model):
    """Function that grows a model of this kind, from the arguments of `grow_graph` but the first.

    Raises:
        FusionError: There is none.
    """
    if keras_hub.is_stock(model):
        return functools.partial(keras_hub.grow_stock, model)
    if is_fusable(model) and isinstance(model, keras.Model):
        return functools.partial(_grow_declared, model)
    if is_graph(model) and model.built:
        return functools.partial(grow_graph, model)
    raise FusionError(
        "growing takes a kf.models.T5, or a built functional or sequential Keras model. Received: "
        f"a {type(model).__name__}; call it on data or `build` it first"
    )


def _grow_declared(model, factors, *, noise, fill, asymmetry, check, optimizer):
    """Grows a model that declares its axes, such as a T5, along some of them."""
    del check  # Its fusion needs none.
    unknown = factors.keys() - model.default_grow()
    if unknown:
        raise FusionError(
            f"cannot grow {', '.join(sorted(unknown))}: a {type(model).__name__} grows along "
            f"{', '.join(sorted(model.default_grow()))}"
        )
    grouped = any(getattr(layer, "groups", None) for layer in layers_in(model))
    for factor in dict.fromkeys(factors.values()):
        model = _fuse_declared(
            [model] * factor,
            optimizer,
            grow={name for name, times in factors.items() if times == factor},
            # A norm over copies is what it is over one of them.
            norm="property" if grouped else "rule",
            noise=noise,
            fill=fill,
            asymmetry=asymmetry,
        )
    return model
