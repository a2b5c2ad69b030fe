"""The forward pass against an independent T5: KerasHub's backbone with the same weights."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from tests.keras_fusion.models import tiny

keras_hub = pytest.importorskip("keras_hub")


def peer_of(model):
    """KerasHub's backbone with the configuration and the weights of a `T5`."""
    config = model.config
    activation = config.activation
    if activation == "gelu":
        activation = functools.partial(keras.activations.gelu, approximate=True)
    peer = keras_hub.models.T5Backbone(
        vocabulary_size=config.vocabulary_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.hidden_dim,
        intermediate_dim=config.intermediate_dim,
        key_value_dim=config.key_value_dim,
        dropout=0.0,
        activation=activation,
        use_gated_activation=config.use_gated_activation,
        layer_norm_epsilon=config.layer_norm_epsilon,
        tie_embedding_weights=config.tie_embedding_weights,
    )
    peer.token_embedding.embeddings.assign(model.token_embedding.embeddings)
    if model.head is not None:
        peer.token_embedding.reverse_embeddings.assign(model.head.kernel)
    for ours, layers, norm in (
        (model.encoder, peer.encoder_transformer_layers, peer.encoder_layer_norm),
        (model.decoder, peer.decoder_transformer_layers, peer.decoder_layer_norm),
    ):
        norm.weight.assign(ours.final_norm.scale)
        layers[0].self_attention.relative_attention_bias.assign(ours.position_bias.table)
        for block, layer in zip(ours.blocks, layers, strict=True):
            copy_block(block, layer)
    return peer


def copy_block(block, layer):
    layer.layer_norm.weight.assign(block.feed_forward_norm.scale)
    for name in ("input_projector", "gate_projector", "output_projector"):
        if getattr(block.feed_forward, name) is not None:
            getattr(layer, name).kernel.assign(getattr(block.feed_forward, name).kernel)
    kinds = ["self_attention"] + (["cross_attention"] if block.cross_attention is not None else [])
    for kind in kinds:
        ours, theirs = getattr(block, kind), getattr(layer, kind)
        getattr(layer, f"{kind}_layer_norm").weight.assign(getattr(block, f"{kind}_norm").scale)
        theirs.query_projector.kernel.assign(ours.query.kernel)
        theirs.key_projector.kernel.assign(ours.key.kernel)
        theirs.value_projector.kernel.assign(ours.value.kernel)
        theirs.output_projector.kernel.assign(ours.attention_output.kernel)


@pytest.mark.filterwarnings("ignore:Layer '.*_attention'.*does not support masking")
@pytest.mark.parametrize("version", [tiny.V1_1, tiny.V1_0], ids=["v1.1", "v1.0"])
def test_the_same_hidden_states_and_logits(version):
    model = tiny.model(num_heads=3, **version)
    peer = peer_of(model)
    assert sum(np.prod(w.shape) for w in peer.weights) == model.count_params()
    # Longer than 16 and 128 positions, so that buckets of all kinds are read.
    inputs = tiny.batch(padding=True, lengths=(140, 40))
    theirs = peer(inputs, training=False)
    encoded = model.encode(inputs["encoder_token_ids"], inputs["encoder_padding_mask"])
    real = inputs["encoder_padding_mask"].astype(bool)
    expected = ops.convert_to_numpy(theirs["encoder_sequence_output"])
    found = ops.convert_to_numpy(encoded)
    assert tiny.relative_gap(found[real], expected[real]) <= 1e-5

    hidden = theirs["decoder_sequence_output"]
    if model.config.tie_embedding_weights:
        hidden = hidden * model.config.hidden_dim**-0.5
    expected = ops.convert_to_numpy(peer.token_embedding(hidden, reverse=True))
    real = inputs["decoder_padding_mask"].astype(bool)
    found = tiny.logits(model, inputs)
    assert tiny.relative_gap(found[real], expected[real]) <= 1e-5
