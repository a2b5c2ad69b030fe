"""Names that several families share."""


def dense(layers, weight="weight"):
    """Weights and biases of layers: a bias has the axes over which its layer does not sum.

    Args:
        layers: `{pattern: axes}` of their weights, the pattern with the separator at its end.
        weight: Name of a weight.

    Examples:
        >>> dense({"**.fc1.": "mlp +hidden"})
        {'**.fc1.weight': 'mlp +hidden', '**.fc1.bias': 'mlp'}
    """
    rows = {f"{pattern}{weight}": axes for pattern, axes in layers.items()}
    for pattern, axes in layers.items():
        rows[f"{pattern}bias"] = " ".join(a for a in axes.split() if not a.startswith("+"))
    return rows


def weights_and_biases(*names):
    """Names of the weight and the bias of each layer."""
    return tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))


VOCABULARY = {"vocabulary": "vocab_size"}

# KerasHub's TransformerEncoder and TransformerDecoder, and what else calls its parts so.
ATTENTION = {"**seed_generator_state": "kept"} | dense(
    {f"**/{name}/": "+hidden heads head_dim" for name in ("query", "key", "value")}
    | {"**/attention_output/": "+heads +head_dim hidden"},
    "kernel",
)
GROUPED_ATTENTION = ATTENTION | dense(
    {f"**/{name}/": "+hidden key_heads head_dim" for name in ("key", "value")}, "kernel"
)
FEEDFORWARD = {"**/feedforward_gate_dense/kernel": "+hidden mlp"} | dense(
    {
        "**/feedforward_intermediate_dense/": "+hidden mlp",
        "**/feedforward_output_dense/": "+mlp hidden",
    },
    "kernel",
)
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
MASKED_LM = {"mlm_head/output_bias": "vocabulary"} | dense(
    {"mlm_head/intermediate_dense/": "+hidden hidden'"}, "kernel"
)
CLASSIFIER = dense({"pooled_dense/": "+hidden hidden'", "logits/": "+hidden classes"}, "kernel")
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
    **dense(
        {
            "**.self_attn.q_proj.": "heads*head_dim +hidden",
            "**.self_attn.k_proj.": "key_heads*head_dim +hidden",
            "**.self_attn.v_proj.": "key_heads*head_dim +hidden",
            "**.self_attn.o_proj.": "hidden +heads*head_dim",
            "**.mlp.gate_proj.": "mlp +hidden",
            "**.mlp.up_proj.": "mlp +hidden",
            "**.mlp.down_proj.": "hidden +mlp",
        }
    ),
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
DECODER_STACKS = {"**layers": "num_hidden_layers"}
DECODER_REQUIRED = {
    "*": (
        "**embed_tokens.weight",
        *(f"**.self_attn.{part}_proj.weight" for part in "qkvo"),
        *(f"**.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
        "**.input_layernorm.weight",
        "**.post_attention_layernorm.weight",
        "|".join(DECODER_READOUT),
    ),
    "*ForSequenceClassification": ("score.weight",),
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
    **dense(
        {
            "**LayerNorm.": "norm: hidden",
            "**attention.*.query.": "heads*head_dim +hidden",
            "**attention.*.key.": "heads*head_dim +hidden",
            "**attention.*.value.": "heads*head_dim +hidden",
            "**attention.output.dense.": "hidden +heads*head_dim",
            "**intermediate.dense.": "mlp +hidden",
            "**layer.*.output.dense.": "hidden +mlp",
            "**pooler.dense.": "hidden' +hidden",
            "classifier.": "classes +hidden",
            "qa_outputs.": "classes +hidden",
        }
    ),
}
ENCODER_FIXED = VOCABULARY | {
    "positions": "max_position_embeddings",
    "segments": "type_vocab_size",
}
ENCODER_STACKS = {"**encoder.layer": "num_hidden_layers"}
ENCODER_LAYERS = (
    *(f"**attention.*.{name}.weight" for name in ("query", "key", "value")),
    "**attention.output.dense.weight",
    "**intermediate.dense.weight",
    "**layer.*.output.dense.weight",
)
ENCODER_EMBEDDINGS = (
    *(f"**embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")),
    *weights_and_biases("**embeddings.LayerNorm", "**output.LayerNorm"),
)
ENCODER_SIZES = {
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "mlp": ("intermediate_size",),
}
# Attention and feed-forward parts of transformers' BART, OPT and Whisper.
SEQUENCE = {
    **dense(
        {
            "**attn.q_proj.": "heads*head_dim +hidden",
            "**attn.k_proj.": "heads*head_dim +hidden",
            "**attn.v_proj.": "heads*head_dim +hidden",
            "**attn.out_proj.": "hidden +heads*head_dim",
            "**.fc1.": "mlp +hidden",
            "**.fc2.": "hidden +mlp",
            "**layer_norm.": "norm: hidden",
        }
    ),
    "**embed_positions.weight": "positions hidden",
}
SEQUENCE_LAYERS = (
    *(f"**self_attn.{part}_proj.weight" for part in ("q", "k", "v", "out")),
    "**.fc1.weight",
    "**.fc2.weight",
)
_STACKS = ("encoder", "decoder")
SEQUENCE_TO_SEQUENCE = (
    *(f"**{stack}.embed_positions.weight" for stack in _STACKS),
    *(f"**.encoder_attn.{part}_proj.weight" for part in ("q", "k", "v", "out")),
    *weights_and_biases("**.encoder_attn_layer_norm", "**.self_attn_layer_norm"),
    *weights_and_biases("**.final_layer_norm"),
    *SEQUENCE_LAYERS,
)
SEQUENCE_STACKS = {"**encoder.layers": "encoder_layers", "**decoder.layers": "decoder_layers"}
SEQUENCE_SIZES = {
    "hidden": ("d_model",),
    "heads": ("encoder_attention_heads", "decoder_attention_heads"),
    "mlp": ("encoder_ffn_dim", "decoder_ffn_dim"),
}
