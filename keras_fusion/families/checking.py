"""Checks of a fusion of KerasHub models: of the sources before it, of the result after it."""

import keras
import ml_dtypes
import numpy as np
from keras import ops

from keras_fusion import _keras
from keras_fusion.errors import FusionError, docs_page
from keras_fusion.families.grouped import stock_class

_BATCH, _LENGTH = 2, 6
_ONE_TOKENIZER = f"fuse models of one tokenizer: {docs_page('models', 'what-is-refused')}"
# Rounding errors that pile up through a network, over the spacing of its numbers.
_ROUNDING = 1e4


def mismatches(models, backbones):
    """Returns messages on what keeps models from being fused, but their configurations.

    Args:
        models: Backbones or tasks.
        backbones: The backbone of each.
    """
    if len(models) < 2:
        return [f"fusing takes at least two networks, received {len(models)}"]
    messages = [
        f"source {index} is a {type(part).__name__}, the first a {type(sources[0]).__name__}"
        for sources in (models, backbones)
        for index, part in enumerate(sources)
        if stock_class(part) is not stock_class(sources[0])
    ]
    if messages:
        return list(dict.fromkeys(messages))
    for index, (model, backbone) in enumerate(zip(models, backbones, strict=True)):
        policies = [part.dtype_policy.name for part in (backbone, backbones[0])]
        if policies[0] != policies[1]:
            messages.append(
                f"dtype of source {index}: {policies[0]} vs {policies[1]}; load all in one dtype"
            )
        if getattr(backbone, "group_widths", None):
            messages.append(
                f"source {index} has grouped norms already; fuse all networks in one call"
            )
        for layer in _keras.layers_in(model):
            state = "LoRA" if getattr(layer, "lora_enabled", False) else None
            state = "quantised" if getattr(layer, "quantization_mode", None) else state
            if state:
                messages.append(
                    f"source {index}: layer `{layer.path}` has {state} weights; merge them into "
                    "plain ones before fusing"
                )
    tokenizers = [
        getattr(getattr(model, "preprocessor", None), "tokenizer", None) for model in models
    ]
    return [*messages, *vocabulary_mismatches(tokenizers)]


def vocabulary_mismatches(tokenizers):
    """Messages on tokenizers that give one number to different tokens.

    Args:
        tokenizers: Tokenizer of each source; None where it has none.
    """
    tokenizers = {index: t for index, t in enumerate(tokenizers) if t is not None}
    messages = []
    if len(set(map(id, tokenizers.values()))) < 2:
        return messages
    (first, tokens), *others = [(index, _tokens(t)) for index, t in tokenizers.items()]
    for index, other in others:
        different = [number for number in tokens if other.get(number) != tokens[number]]
        if len(other) != len(tokens):
            messages.append(
                f"vocabulary of source {index}: {len(other)} tokens vs {len(tokens)} of source "
                f"{first}; {_ONE_TOKENIZER}"
            )
        elif different:
            number = different[0]
            messages.append(
                f"vocabulary of source {index}: {len(different)} tokens differ from those of "
                f"source {first}, first token {number}: {other.get(number)!r} vs "
                f"{tokens[number]!r}; {_ONE_TOKENIZER}"
            )
    return messages


def _tokens(tokenizer):
    """`{number: token}` of a tokenizer of KerasHub."""
    vocabulary = getattr(tokenizer, "vocabulary", None)
    if isinstance(vocabulary, dict):
        return {number: token for token, number in vocabulary.items()}
    return dict(enumerate(tokenizer.get_vocabulary()))


def check(models, fused, fusion):
    """Compares a fused model with the mean of its sources on random inputs.

    Args:
        models: The sources.
        fused: The fused model.
        fusion: The `FamilyFusion` that it came of.

    Raises:
        FusionError: They differ by more than rounding.
    """
    inputs = _inputs(models[0])
    is_task = hasattr(models[0], "backbone")
    cap = fusion.config.get(fusion.names.logits_cap) if is_task else None
    results = _outputs(fused, inputs, cap)
    unique = {id(model): model for model in models}
    computed = {key: _outputs(model, inputs, cap) for key, model in unique.items()}
    sources = [computed[id(model)] for model in models]
    for index, result in enumerate(results):
        parts = [source[index] for source in sources]
        if result.shape == parts[0].shape:
            pairs = zip(fusion.growth.weights, parts, strict=True)
            candidates = [sum(weight * part for weight, part in pairs)]
        else:
            # The hidden units of a backbone; a tied head's readout has the factors of the mean.
            factors = [fusion.readout_factor(source) for source in range(len(parts))]
            scaled = [factor * part for factor, part in zip(factors, parts, strict=True)]
            candidates = [np.concatenate(arrays, axis=-1) for arrays in (parts, scaled)]
        distance = min(np.max(np.abs(result - candidate)) for candidate in candidates)
        scale = max(np.max(np.abs(candidate)) for candidate in candidates)
        # Parts of KerasHub's models compute in float32 whatever their dtype.
        dtypes = (models[0].compute_dtype, "float32")
        spacing = max(float(ml_dtypes.finfo(dtype).eps) for dtype in dtypes)
        if not distance <= min(0.1, _ROUNDING * spacing) * max(scale, 1e-3):
            raise FusionError(
                f"output {index} of the fused {type(fused).__name__} is {distance:.3g} away from "
                f"the mean of its sources, of at most {scale:.3g}: it computes something that the "
                f"table of {fusion.family.name} does not know, such as a `call` of its own. "
                "check=False returns the model all the same"
            )


def _inputs(model):
    """Random inputs of a model."""
    rng = np.random.default_rng(0)
    arrays = {}
    for spec in model.inputs:
        shape = [_BATCH, *(size or _LENGTH for size in spec.shape[1:])]
        if "int" not in spec.dtype:
            arrays[spec.name] = rng.normal(size=shape).astype("float32")
        elif "mask" in spec.name or "segment" in spec.name:
            arrays[spec.name] = np.full(shape, int("padding" in spec.name), "int32")
        else:
            arrays[spec.name] = rng.integers(0, 3, shape).astype("int32")
    return arrays


def _outputs(model, inputs, cap=None):
    """A model's outputs, as double precision arrays; before a soft cap of its logits."""
    feed = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    outputs = keras.tree.flatten(model(feed, training=False))
    arrays = [
        ops.convert_to_numpy(ops.cast(output, "float32")).astype("float64") for output in outputs
    ]
    if cap is None:
        return arrays
    # The mean is taken before the cap, as before an activation.
    return [cap * np.arctanh(np.clip(array / cap, -1 + 1e-6, 1 - 1e-6)) for array in arrays]
