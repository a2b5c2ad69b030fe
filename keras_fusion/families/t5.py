"""T5 1.0 (tied head, logits over √hidden) and 1.1 (a head of its own)."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register


def _stack(stack, *attentions):
    """Patterns of the weights that a stack of transformers has, gated or not."""
    kernels = [f"{kind}.{part}.weight" for kind in attentions for part in "qkvo"]
    kernels += ["relative_attention_bias.weight", "layer_norm.weight", "DenseReluDense.wo.weight"]
    return (
        *(f"{stack}.block.**{name}" for name in kernels),
        f"{stack}.block.**.wi.weight|{stack}.block.**.wi_0.weight",
        f"{stack}.final_layer_norm.weight",
    )


_DECODER = _stack("decoder", "SelfAttention", "EncDecAttention")

T5 = register(
    Family(
        "t5",
        keras_hub=Names(
            ("T5Backbone",),
            weights={
                "token_embedding/embeddings": "vocabulary hidden",
                "token_embedding/reverse_embeddings": "+hidden vocabulary",
                "self_attention/embeddings": "buckets heads",
                **{
                    f"**attention/{name}_projector/kernel": "+hidden heads*head_dim"
                    for name in ("query", "key", "value")
                },
                "**attention/output_projector/kernel": "+heads*head_dim hidden",
                "*/input_projector/kernel": "+hidden mlp",
                "*/gate_projector/kernel": "+hidden mlp",
                "*/output_projector/kernel": "+mlp hidden",
                "**layer_norm*/weight": "norm: hidden",
                "**seed_generator_state": "kept",
            },
            sizes=common.KERAS_SIZES,
            head=common.KERAS_HEAD,
            readout=("decoder_output_layer_norm/weight",),
            logits_over_root=True,
            head_dim="key_value_dim",
        ),
        transformers=Names(
            ("T5ForConditionalGeneration", "T5Model", "T5EncoderModel"),
            weights={
                "shared.weight": "vocabulary hidden",
                "*.embed_tokens.weight": "vocabulary hidden",
                "**.relative_attention_bias.weight": "buckets heads",
                **{
                    f"**Attention.{name}.weight": "heads*head_dim +hidden"
                    for name in ("q", "k", "v")
                },
                "**Attention.o.weight": "hidden +heads*head_dim",
                "**.DenseReluDense.wi*.weight": "mlp +hidden",
                "**.DenseReluDense.wo.weight": "hidden +mlp",
                "**layer_norm.weight": "norm: hidden",
                "lm_head.weight": "vocabulary +hidden",
            },
            fixed=common.VOCABULARY | {"buckets": "relative_attention_num_buckets"},
            required={
                "*": ("shared.weight|*.embed_tokens.weight", *_stack("encoder", "SelfAttention")),
                "T5Model": _DECODER,
                "T5ForConditionalGeneration": _DECODER,
            },
            stacks={"encoder.block": "num_layers", "decoder.block": "num_decoder_layers"},
            once=("**.relative_attention_bias.weight",),
            defaults={"num_decoder_layers": ("num_layers", 1)},
            sizes={"hidden": ("d_model",), "heads": ("num_heads",), "mlp": ("d_ff",)},
            head=("lm_head.weight",),
            readout=("decoder.final_layer_norm.weight",),
            logits_over_root=True,
            logits_flag="scale_decoder_outputs",
            head_dim="d_kv",
        ),
    )
)
