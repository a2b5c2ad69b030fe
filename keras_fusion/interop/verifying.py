"""Loading what was written with transformers, and comparing it with the mean of its sources."""

import contextlib
import gc
import importlib.util
import sys

import ml_dtypes
import numpy as np

from keras_fusion.errors import PLEASE_REPORT, FusionError

_LENGTH = 6
# Rounding errors that pile up through a network, over the spacing of its numbers.
_ROUNDING = 1e4
# Weights in single precision, and what a forward pass and its loading take.
_BYTES_PER_PARAMETER = 6


def obstacle(plan):
    """Reason why a plan's result cannot be verified, in words; "" where it can.

    Args:
        plan: A `Plan`.
    """
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed"
    needed, available = plan.parameters * _BYTES_PER_PARAMETER, _available_memory()
    if needed > available:
        return f"it takes {needed / 1e9:.1f} GB of memory, of which {available / 1e9:.1f} are free"
    return ""


def verify(plan, folder):
    """Compares a written folder with the weighted mean of its sources, on random inputs.

    Each is loaded by its stock class in single precision, one after the other.

    Args:
        plan: The `Plan` that was written.
        folder: The folder.

    Returns:
        A sentence that says how far apart they are.

    Raises:
        FusionError: They differ by more than rounding, and the plan promised that they do not; or
            transformers does not find the weights of the class in the folder.
    """
    outputs = {source.path: _outputs(source.class_name, source.path) for source in plan.folders}
    result = _outputs(plan.sources[0].class_name, folder)
    parts = [outputs[source.path] for source in plan.sources]
    if result.shape == parts[0].shape:
        pairs = zip(plan.weights, parts, strict=True)
        candidates = [sum(weight * part for weight, part in pairs)]
        name = "logits"
    else:
        # The hidden units of a bare model; those that a tied head reads have the factors of AVG.
        scaled = [factor * part for factor, part in zip(plan.factors, parts, strict=True)]
        candidates = [np.concatenate(arrays, axis=-1) for arrays in (parts, scaled)]
        name = "hidden units"
    gap = min(_distance(result, candidate) for candidate in candidates)
    dtype = next(iter(plan.sources[0].arrays.values())).dtype
    most = min(0.1, _ROUNDING * float(ml_dtypes.finfo(dtype).eps))
    if plan.is_exact and not gap <= most:
        raise FusionError(
            f"the {name} of the result are {gap:.3g} of their size away from those of its sources, "
            f"beyond the {most:.3g} that rounding explains: the table of "
            f"{plan.sources[0].class_name} is wrong: {PLEASE_REPORT}"
        )
    return (
        f"Loaded by transformers as {plan.sources[0].class_name}, its {name} on random inputs "
        f"are within {gap:.3g} of their largest size of the weighted mean of the sources'."
    )


def _distance(result, expected):
    return float(np.max(np.abs(result - expected)) / max(np.max(np.abs(expected)), 1e-30))


def _outputs(class_name, folder):
    """Logits, or hidden units, of a folder's model."""
    with _without_triton():
        return _computed(class_name, folder)


@contextlib.contextmanager
def _without_triton():
    """Hides Triton, which ends the process if it is loaded after TensorFlow; torch needs none."""
    is_hidden = "tensorflow" in sys.modules and "triton" not in sys.modules
    if is_hidden:
        sys.modules["triton"] = None
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules["triton"]


def _computed(class_name, folder):
    import torch
    import transformers

    try:
        model, info = getattr(transformers, class_name).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # noqa: BLE001 - whatever a class makes of a configuration
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise FusionError(
            f"transformers loads no {class_name} from {str(folder)!r} ({text:.300}); correct "
            "config.json, or, if the sources load, give other sources or another growth"
        ) from error
    if info["missing_keys"] or info.get("mismatched_keys"):
        names = sorted(map(str, info["missing_keys"] or info["mismatched_keys"]))
        raise FusionError(
            f"transformers finds no `{names[0]}` of a {class_name} in {str(folder)!r}, and would "
            "draw it at random"
        )
    model.eval()
    with torch.no_grad():
        outputs = model(**_inputs(model, torch))
    values = outputs["logits"] if "logits" in outputs else outputs["last_hidden_state"]
    array = values.numpy().astype("float64")
    del model, outputs, values
    gc.collect()
    return array


def _inputs(model, torch):
    """Random inputs of a model, the same for all of one configuration."""
    config, generator = model.config, torch.Generator().manual_seed(0)

    def tokens():
        return torch.randint(0, config.vocab_size, (1, _LENGTH), generator=generator)

    if model.main_input_name == "pixel_values":
        shape = (1, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(shape, generator=generator)}
    inputs = {}
    if model.main_input_name == "input_features":
        shape = (1, config.num_mel_bins, 2 * config.max_source_positions)
        inputs["input_features"] = torch.randn(shape, generator=generator)
    else:
        inputs["input_ids"] = tokens()
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens()
    return inputs


def _available_memory():
    """Bytes of memory that can be had; none where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
