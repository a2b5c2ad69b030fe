"""KerasHub's T5 of our configurations: the peer of benchmarks, and the oracle of a test."""

import functools

import keras
import keras_hub


def backbone(config, dropout, activation=None):
    """KerasHub's backbone with the configuration of a `T5`; by default with its activation too."""
    if activation is None:
        activation = config.activation
        if activation == "gelu":
            activation = functools.partial(keras.activations.gelu, approximate=True)
    return keras_hub.models.T5Backbone(
        vocabulary_size=config.vocabulary_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.hidden_dim,
        intermediate_dim=config.intermediate_dim,
        key_value_dim=config.key_value_dim,
        dropout=dropout,
        activation=activation,
        use_gated_activation=config.use_gated_activation,
        layer_norm_epsilon=config.layer_norm_epsilon,
        tie_embedding_weights=config.tie_embedding_weights,
    )


class KerasHubT5(keras.Model):
    """KerasHub's T5 backbone with an untied head, on our batches; the arguments of `backbone`."""

    def __init__(self, config, activation=None):
        super().__init__()
        self.config = config
        self.backbone = backbone(config, config.dropout, activation)
        self.head = keras.layers.Dense(config.vocabulary_size, use_bias=False)
        self.head.build((None, None, config.hidden_dim))
        # The backbone's own output table is unused; the head replaces it.
        self.built = True

    def call(self, inputs, training=None):
        masks = {
            f"{side}_padding_mask": keras.ops.ones_like(inputs[f"{side}_token_ids"])
            for side in ("encoder", "decoder")
        }
        decoded = self.backbone({**inputs, **masks}, training=training)["decoder_sequence_output"]
        return self.head(decoded)


def peer_of(model):
    """KerasHub's backbone, without dropout, with the configuration and the weights of a `T5`."""
    peer = backbone(model.config, dropout=0.0)
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
            _copy_block(block, layer)
    return peer


def _copy_block(block, layer):
    """Copies the weights of one of our blocks into one of KerasHub's layers."""
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
