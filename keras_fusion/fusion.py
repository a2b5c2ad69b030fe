"""`kf.fuse`: one call for any fusable model."""

from keras_fusion.functional import fuse_functional, is_graph
from keras_fusion.layers import checks
from keras_fusion.layers.tree import is_fusable
from keras_fusion.operator import Noise


def fuse(models, norm="property", noise=0.0, noise_kind="gaussian", seed=0):
    """Fuses networks of one structure into one that computes their mean (section 3.1).

    Args:
        models: Two or more built models of one structure; widths may differ. Either all are
            fusable themselves, such as `kf.models.T5`, or all are functional or sequential Keras
            models of fusable layers. The mean is that of the outputs before the last activation.
        norm: `"property"` normalises each source's units apart and keeps the function;
            `"rule"` normalises all together and keeps the architecture (section 3.2).
        noise: Standard deviation of η over the root mean square of each weight.
        noise_kind: `"gaussian"` or `"balanced"`, see `keras_fusion.noise.Noise`.
        seed: Seed of the noise.

    Returns:
        A built model.

    Raises:
        FusionError: Naming everything that keeps the models from being fused.

    Example:
        >>> big = kf.fuse([model_a, model_b], norm="property")
    """
    models = list(models)
    if models and all(is_fusable(model) for model in models):
        first, *others = models
        return first.fuse(*others, norm=norm, noise=noise, noise_kind=noise_kind, seed=seed)
    messages = [
        f"source {index} is a {type(model).__name__}; fusing takes kf.models, or functional or "
        "sequential Keras models"
        for index, model in enumerate(models)
        if not is_graph(model)
    ]
    if len(models) < 2:
        messages.append(f"fusing takes at least two networks, received {len(models)}")
    checks.raise_mismatches(messages)
    return fuse_functional(models, norm, Noise(noise, noise_kind, seed))
