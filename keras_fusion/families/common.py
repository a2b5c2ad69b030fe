"""Names that several families share."""

# KerasHub's TransformerEncoder and TransformerDecoder, and what else calls its parts so.
ATTENTION = {
    "**/query/kernel": "+hidden heads head_dim",
    "**/key/kernel": "+hidden heads head_dim",
    "**/value/kernel": "+hidden heads head_dim",
    "**/query/bias": "heads head_dim",
    "**/key/bias": "heads head_dim",
    "**/value/bias": "heads head_dim",
    "**/attention_output/kernel": "+heads +head_dim hidden",
    "**/attention_output/bias": "hidden",
    "**seed_generator_state": "kept",
}
GROUPED_ATTENTION = ATTENTION | {
    "**/key/kernel": "+hidden key_heads head_dim",
    "**/value/kernel": "+hidden key_heads head_dim",
    "**/key/bias": "key_heads head_dim",
    "**/value/bias": "key_heads head_dim",
}
FEEDFORWARD = {
    "**/feedforward_intermediate_dense/kernel": "+hidden mlp",
    "**/feedforward_intermediate_dense/bias": "mlp",
    "**/feedforward_gate_dense/kernel": "+hidden mlp",
    "**/feedforward_output_dense/kernel": "+mlp hidden",
    "**/feedforward_output_dense/bias": "hidden",
}
TRANSFORMER = (
    ATTENTION
    | FEEDFORWARD
    | {
        "**layer_norm/gamma": "norm: hidden",
        "**layer_norm/beta": "norm: hidden",
        "**token_embedding/embeddings": "vocabulary hidden",
        "**position_embedding/embeddings": "positions hidden",
    }
)
MASKED_LM = {
    "mlm_head/intermediate_dense/kernel": "+hidden hidden'",
    "mlm_head/intermediate_dense/bias": "hidden'",
    "mlm_head/output_bias": "vocabulary",
}
CLASSIFIER = {
    "pooled_dense/kernel": "+hidden hidden'",
    "pooled_dense/bias": "hidden'",
    "logits/kernel": "+hidden classes",
    "logits/bias": "classes",
}
MLM_READOUT = ("mlm_head/intermediate_layer_norm/*",)
KERAS_SIZES = {"hidden": ("hidden_dim",), "heads": ("num_heads",), "mlp": ("intermediate_dim",)}
KERAS_GROUPED_SIZES = {
    "hidden": ("hidden_dim",),
    "heads": ("num_query_heads",),
    "key_heads": ("num_key_value_heads",),
    "mlp": ("intermediate_dim",),
}
# A decoder of the kind of Llama, in both libraries.
KERAS_DECODER = (
    GROUPED_ATTENTION
    | FEEDFORWARD
    | {
        "token_embedding/embeddings": "vocabulary hidden",
        "token_embedding/reverse_embeddings": "+hidden vocabulary",
        "*/self_attention_layernorm/scale": "norm: hidden",
        "*/feedforward_layernorm/scale": "norm: hidden",
        "sequence_output_layernorm/scale": "norm: hidden",
    }
)
KERAS_HEAD = ("token_embedding/reverse_embeddings",)
DECODER = {
    "**embed_tokens.weight": "vocabulary hidden",
    "**.self_attn.q_proj.weight": "heads*head_dim +hidden",
    "**.self_attn.q_proj.bias": "heads*head_dim",
    "**.self_attn.k_proj.weight": "key_heads*head_dim +hidden",
    "**.self_attn.k_proj.bias": "key_heads*head_dim",
    "**.self_attn.v_proj.weight": "key_heads*head_dim +hidden",
    "**.self_attn.v_proj.bias": "key_heads*head_dim",
    "**.self_attn.o_proj.weight": "hidden +heads*head_dim",
    "**.self_attn.o_proj.bias": "hidden",
    "**.mlp.gate_proj.weight": "mlp +hidden",
    "**.mlp.gate_proj.bias": "mlp",
    "**.mlp.up_proj.weight": "mlp +hidden",
    "**.mlp.up_proj.bias": "mlp",
    "**.mlp.down_proj.weight": "hidden +mlp",
    "**.mlp.down_proj.bias": "hidden",
    "**layernorm.weight": "norm: hidden",
    "model.norm.weight": "norm: hidden",
    "norm.weight": "norm: hidden",
    "lm_head.weight": "vocabulary +hidden",
    "score.weight": "classes +hidden",
    "**rotary_emb.inv_freq": "kept",
}
DECODER_HEAD = ("lm_head.weight", "score.weight")
DECODER_READOUT = ("model.norm.weight", "norm.weight")
DECODER_SIZES = {
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "key_heads": ("num_key_value_heads",),
    "mlp": ("intermediate_size",),
}
QUERY_KEY_NORMS = {
    "**.self_attn.q_norm.weight": "equal: head_dim",
    "**.self_attn.k_norm.weight": "equal: head_dim",
}
# An encoder of the kind of BERT in transformers.
ENCODER = {
    "**embeddings.word_embeddings.weight": "vocabulary hidden",
    "**embeddings.position_embeddings.weight": "positions hidden",
    "**embeddings.token_type_embeddings.weight": "segments hidden",
    "**embeddings.position_ids": "kept",
    "**LayerNorm.weight": "norm: hidden",
    "**LayerNorm.bias": "norm: hidden",
    **{
        f"**attention.*.{name}.{kind}": line
        for name in ("query", "key", "value")
        for kind, line in (("weight", "heads*head_dim +hidden"), ("bias", "heads*head_dim"))
    },
    "**attention.output.dense.weight": "hidden +heads*head_dim",
    "**attention.output.dense.bias": "hidden",
    "**intermediate.dense.weight": "mlp +hidden",
    "**intermediate.dense.bias": "mlp",
    "**layer.*.output.dense.weight": "hidden +mlp",
    "**layer.*.output.dense.bias": "hidden",
    "**pooler.dense.weight": "hidden' +hidden",
    "**pooler.dense.bias": "hidden'",
    "classifier.weight": "classes +hidden",
    "classifier.bias": "classes",
    "qa_outputs.weight": "classes +hidden",
    "qa_outputs.bias": "classes",
}
ENCODER_SIZES = {
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "mlp": ("intermediate_size",),
}
# Attention and feed-forward parts of transformers' BART, OPT and Whisper.
SEQUENCE = {
    **{
        f"**attn.{name}_proj.{kind}": line
        for name in ("q", "k", "v")
        for kind, line in (("weight", "heads*head_dim +hidden"), ("bias", "heads*head_dim"))
    },
    "**attn.out_proj.weight": "hidden +heads*head_dim",
    "**attn.out_proj.bias": "hidden",
    "**.fc1.weight": "mlp +hidden",
    "**.fc1.bias": "mlp",
    "**.fc2.weight": "hidden +mlp",
    "**.fc2.bias": "hidden",
    "**layer_norm.weight": "norm: hidden",
    "**layer_norm.bias": "norm: hidden",
    "**embed_positions.weight": "positions hidden",
}
SEQUENCE_SIZES = {
    "hidden": ("d_model",),
    "heads": ("encoder_attention_heads", "decoder_attention_heads"),
    "mlp": ("encoder_ffn_dim", "decoder_ffn_dim"),
}
