"""Llama, Mistral, Qwen: RMS norms, rotary positions, grouped queries, a gated MLP."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register

_KERAS = {
    "weights": common.KERAS_DECODER,
    "sizes": common.KERAS_GROUPED_SIZES,
    "head": common.KERAS_HEAD,
    "readout": ("sequence_output_layernorm/scale",),
}
_TRANSFORMERS = {
    "weights": common.DECODER,
    "sizes": common.DECODER_SIZES,
    "fixed": common.VOCABULARY,
    "required": common.DECODER_REQUIRED,
    "stacks": common.DECODER_STACKS,
    "head": common.DECODER_HEAD,
    "readout": common.DECODER_READOUT,
    "layers": "num_hidden_layers",
    "head_dim": "head_dim",
    "ties": False,
    "defaults": {"num_key_value_heads": ("num_attention_heads", 1)},
}


def _classes(name):
    return (
        f"{name}ForCausalLM",
        f"{name}Model",
        f"{name}ForSequenceClassification",
    )


LLAMA = register(
    Family(
        "llama",
        keras_hub=Names(
            ("LlamaBackbone", "Llama3Backbone"),
            extra={"tie_word_embeddings": "tie_word_embeddings"},
            **_KERAS,
        ),
        transformers=Names(_classes("Llama"), heads_divide_hidden=True, **_TRANSFORMERS),
    )
)
MISTRAL = register(
    Family(
        "mistral",
        keras_hub=Names(("MistralBackbone",), head_dim="head_dim", **_KERAS),
        transformers=Names(_classes("Mistral"), **_TRANSFORMERS),
    )
)
QWEN2 = register(
    Family(
        "qwen2",
        keras_hub=Names(("QwenBackbone",), **_KERAS),
        transformers=Names(
            _classes("Qwen2"),
            **_TRANSFORMERS
            | {
                "required": common.DECODER_REQUIRED
                | {"Qwen2*": tuple(f"**.self_attn.{part}_proj.bias" for part in "qkv")}
            },
        ),
    )
)
QWEN3 = register(
    Family(
        "qwen3",
        keras_hub=Names(
            ("Qwen3Backbone",),
            head_dim="head_dim",
            **_KERAS
            | {
                "weights": common.KERAS_DECODER
                | {
                    "**/query_dense_layernorm/scale": "equal: head_dim",
                    "**/key_dense_layernorm/scale": "equal: head_dim",
                }
            },
        ),
        transformers=Names(
            _classes("Qwen3"),
            **_TRANSFORMERS
            | {
                "weights": common.DECODER | common.QUERY_KEY_NORMS,
                "required": common.DECODER_REQUIRED | {"Qwen3*": tuple(common.QUERY_KEY_NORMS)},
            },
        ),
    )
)
