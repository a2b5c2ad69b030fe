"""Floating-point operations of a training step, counted from the model's declared axes.

Every weight whose operation sums over an axis is a matrix: applied to one token it costs one
multiplication and one addition per entry. Which tokens see it follows from where it stands in an
encoder-decoder: the encoder's weights and the keys and values of cross-attention see the encoder's
tokens, all others the decoder's. Lookups, norms, softmax and activations are not counted (about
1 % at the sizes of Table 8).

Example:
    >>> step_flops(model, batch_size=32, encoder_length=128, decoder_length=29).total
    24739577856.0
"""

import dataclasses
import functools
import math

import keras_fusion as kf
from keras_fusion.models.t5 import shared_skeleton
from trainers.engines.sharding import declared_weights

METHOD = (
    "counted from the model: 2 FLOPs for each entry of a matrix and each token that it is applied "
    "to, plus 2 for each multiplication of attention scores and values (query length x key length "
    "x width of the heads, twice), forward; twice the forward for the backward pass; lookups, "
    "norms, softmax, activations, the optimizer and evaluations are not counted"
)


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one training step of one batch."""

    weights: float  # forward, by the weight matrices
    attention: float  # forward, by attention scores and weighted values
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
        encoder_length, decoder_length: tokens of a sequence that the two see.
    """
    lengths = {"encoder": encoder_length, "decoder": decoder_length}
    per_sequence, attention = 0, 0
    for path, (variable, axes) in declared_weights(model).items():
        if axes.sums:
            per_sequence += 2 * math.prod(variable.shape) * lengths[_seen_by(path)]
        if path.endswith("query/kernel"):
            keys = "encoder" if "cross_attention" in path.split("/") else _seen_by(path)
            inner = math.prod(
                size
                for size, name in zip(variable.shape, axes.names, strict=True)
                if name not in axes.sums
            )
            attention += 2 * 2 * lengths[_seen_by(path)] * lengths[keys] * inner
    if model.config.tie_embedding_weights:
        # A head that shares the embedding, whose lookup does not tell of it.
        per_sequence += 2 * math.prod(model.token_embedding.embeddings.shape) * decoder_length
    return StepFlops(float(batch_size * per_sequence), float(batch_size * attention))


def _seen_by(path: str) -> str:
    """Returns the stack whose tokens the matrix is applied to."""
    parts = path.split("/")
    if parts[0] == "encoder" or ("cross_attention" in parts and parts[-2] in ("key", "value")):
        return "encoder"
    return "decoder"


@functools.lru_cache
def planned_step_flops(
    config: "kf.models.T5Config", batch_size: int, encoder_length: int, decoder_length: int
) -> float:
    """Returns `step_flops(...).total` of a T5 of a configuration, without allocating it."""
    model = shared_skeleton(config)
    return step_flops(model, batch_size, encoder_length, decoder_length).total
