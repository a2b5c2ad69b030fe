"""Floating-point operations of a training step, counted from the model's declared axes.

Every weight whose operation sums over an axis is a matrix: applied to one token it costs one
multiplication and one addition an entry. Which tokens see it follows from where it stands in an
encoder-decoder: the encoder's weights and the keys and values of cross-attention see the encoder's
tokens, all others the decoder's. Lookups, norms, softmax and activations are not counted (about
1 % at the sizes of Table 8).

Example:
    >>> step_flops(model, batch_size=32, encoder_length=128, decoder_length=29).total
    24739577856.0
"""

import dataclasses
import math

from keras_fusion.layers.tree import weight_axes
from trainers.engines.state import state_variables

METHOD = (
    "counted from the model: 2 FLOPs for each entry of a matrix and each token that it is applied "
    "to, plus 2 for each multiplication of attention scores and values (query length x key length "
    "x width of the heads, twice), forward; twice the forward for the backward pass; lookups, "
    "norms, softmax, activations, the optimizer and evaluations are not counted"
)


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one training step of one batch.

    Args:
        weights: forward, by the weight matrices.
        attention: forward, by attention scores and weighted values.
        method: a sentence that says how they were counted.
    """

    weights: float
    attention: float
    method: str = METHOD

    @property
    def forward(self) -> float:
        """FLOPs of the forward pass."""
        return self.weights + self.attention

    @property
    def total(self) -> float:
        """FLOPs of the step: each product has two gradients of its own cost."""
        return 3.0 * self.forward


def step_flops(model, batch_size: int, encoder_length: int, decoder_length: int) -> StepFlops:
    """Counts the FLOPs of a training step.

    With E encoder and D decoder tokens in the batch, the weights cost 2 · size · (E or D) each;
    an attention of inner width h·d over T queries and S keys costs 2 · T · S · h·d for its scores
    and as much for its values. Causal attention is counted whole, as it is computed.

    Args:
        model: a built `kf.models.T5` or another encoder-decoder of fusable layers.
        batch_size: sequences in the batch.
        encoder_length: tokens of a sequence that the encoder sees.
        decoder_length: tokens of a sequence that the decoder sees.

    Raises:
        ValueError: the model declares axes for a weight that it does not have.
    """
    lengths = {"encoder": encoder_length, "decoder": decoder_length}
    shapes = {
        name.removeprefix("model/"): tuple(variable.shape)
        for name, variable in state_variables(model).items()
    }
    per_sequence, attention = 0, 0
    for path, axes in weight_axes(model).items():
        if path not in shapes:
            raise ValueError(
                "Expected a weight for every declared axes. "
                f"Received: path={path!r}, which the model does not have."
            )
        if axes.sums:
            per_sequence += 2 * math.prod(shapes[path]) * lengths[_seen_by(path)]
        if _is_query(path):
            keys = "encoder" if "cross_attention" in path.split("/") else _seen_by(path)
            inner = math.prod(
                size
                for size, name in zip(shapes[path], axes.names, strict=True)
                if name not in axes.sums
            )
            attention += 2 * 2 * lengths[_seen_by(path)] * lengths[keys] * inner
    per_sequence += _tied_head(model) * decoder_length
    return StepFlops(float(batch_size * per_sequence), float(batch_size * attention))


def _seen_by(path: str) -> str:
    """The stack whose tokens the matrix is applied to."""
    parts = path.split("/")
    if parts[0] == "encoder":
        return "encoder"
    if "cross_attention" in parts and parts[-2] in ("key", "value"):
        return "encoder"
    return "decoder"


def _is_query(path: str) -> bool:
    parts = path.split("/")
    return parts[-2:] == ["query", "kernel"]


def _tied_head(model) -> int:
    """FLOPs a token of an output head that shares the embedding: the lookup does not tell of it."""
    if not model.config.tie_embedding_weights:
        return 0
    return 2 * model.config.vocabulary_size * model.config.hidden_dim


def planned_step_flops(config, batch_size: int, encoder_length: int, decoder_length: int) -> float:
    """What `step_flops(...).total` will be for a T5 of a configuration; builds nothing.

    Args:
        config: `kf.models.T5Config`.
        batch_size: sequences in the batch.
        encoder_length: tokens of a sequence that the encoder sees.
        decoder_length: tokens of a sequence that the decoder sees.

    Example:
        >>> config = kf.models.T5Config.from_size("tiny_m", vocabulary_size=512)
        >>> planned_step_flops(config, 32, 128, 29)
        14276198400.0
    """
    encoder, decoder = encoder_length, decoder_length
    inner = config.num_heads * config.key_value_dim
    projection = config.hidden_dim * inner
    mlp = (3 if config.use_gated_activation else 2) * config.hidden_dim * config.intermediate_dim
    layer = (4 * projection + mlp) * encoder  # of the encoder
    layer += (6 * projection + mlp) * decoder + 2 * projection * encoder  # of the decoder
    weights = config.num_layers * layer + config.vocabulary_size * config.hidden_dim * decoder
    scores = encoder * encoder + decoder * decoder + decoder * encoder
    attention = config.num_layers * 2 * scores * inner
    return 3.0 * 2.0 * batch_size * (weights + attention)
