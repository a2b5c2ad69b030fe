"""Gemma 1 to 3: norms that scale by 1 + their weight, a tied head, embeddings times √hidden."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register

_KERAS = {
    "weights": {
        "token_embedding/embeddings": "vocabulary hidden",
        "token_embedding/reverse_embeddings": "+hidden vocabulary",
        "*/attention/query/kernel": "heads +hidden head_dim",
        "*/attention/key/kernel": "key_heads +hidden head_dim",
        "*/attention/value/kernel": "key_heads +hidden head_dim",
        "*/attention/attention_output/kernel": "+heads +head_dim hidden",
        "*/attention/query_norm/scale": "equal: head_dim",
        "*/attention/key_norm/scale": "equal: head_dim",
        "*/ffw_gating/kernel": "+hidden mlp",
        "*/ffw_gating_2/kernel": "+hidden mlp",
        "*/ffw_linear/kernel": "+mlp hidden",
        "*/pre_attention_norm/scale": "norm: hidden",
        "*/post_attention_norm/scale": "norm: hidden",
        "*/pre_ffw_norm/scale": "norm: hidden",
        "*/post_ffw_norm/scale": "norm: hidden",
        "final_normalization/scale": "norm: hidden",
        "**seed_generator_state": "kept",
    },
    "sizes": common.KERAS_GROUPED_SIZES,
    "head": common.KERAS_HEAD,
    "readout": ("final_normalization/scale",),
    "embedding": ("token_embedding/embeddings",),
    "head_dim": "head_dim",
    "head_dim_scales": "query_head_dim_normalize",
    "logits_cap": "final_logit_soft_cap",
}
_SANDWICH = ("**.pre_feedforward_layernorm.weight", "**.post_feedforward_layernorm.weight")
_TRANSFORMERS = {
    "weights": common.DECODER | common.QUERY_KEY_NORMS,
    "sizes": common.DECODER_SIZES,
    "fixed": common.VOCABULARY,
    "required": common.DECODER_REQUIRED
    | {
        "Gemma2*": _SANDWICH,
        "Gemma3*": (*_SANDWICH, *common.QUERY_KEY_NORMS),
    },
    "stacks": common.DECODER_STACKS,
    "head": common.DECODER_HEAD,
    "readout": common.DECODER_READOUT,
    "layers": "num_hidden_layers",
    "embedding": ("**embed_tokens.weight",),
    "head_dim": "head_dim",
}

GEMMA = register(
    Family(
        "gemma",
        keras_hub=Names(("GemmaBackbone",), **_KERAS),
        transformers=Names(
            ("GemmaForCausalLM", "GemmaModel", "Gemma2ForCausalLM", "Gemma2Model"),
            heads_divide_hidden=True,
            **_TRANSFORMERS,
        ),
        scales_by_one_plus=True,
    )
)
GEMMA3 = register(
    Family(
        "gemma3",
        keras_hub=Names(("Gemma3Backbone",), **_KERAS),
        transformers=Names(
            ("Gemma3ForCausalLM", "Gemma3TextModel"), heads_divide_hidden=True, **_TRANSFORMERS
        ),
        scales_by_one_plus=True,
    )
)
