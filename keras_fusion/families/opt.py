"""OPT: a decoder of BART's parts with a tied head; one size has embeddings of their own width."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register

OPT = register(
    Family(
        "opt",
        keras_hub=Names(
            ("OPTBackbone",),
            weights=common.TRANSFORMER,
            sizes=common.KERAS_SIZES,
            readout=("layer_norm/*",),
        ),
        transformers=Names(
            ("OPTForCausalLM", "OPTModel"),
            weights=common.SEQUENCE
            | {
                "**embed_tokens.weight": "vocabulary embedding",
                "**project_in.weight": "hidden +embedding",
                "**project_out.weight": "embedding +hidden",
                "lm_head.weight": "vocabulary +embedding",
            },
            sizes={
                "hidden": ("hidden_size",),
                "embedding": ("word_embed_proj_dim",),
                "heads": ("num_attention_heads",),
                "mlp": ("ffn_dim",),
            },
            fixed=common.VOCABULARY,
            required={
                "*": (
                    "**embed_tokens.weight",
                    "**embed_positions.weight",
                    *common.SEQUENCE_LAYERS,
                )
            },
            stacks={"**decoder.layers": "num_hidden_layers"},
            defaults={"word_embed_proj_dim": ("hidden_size", 1)},
            head=("lm_head.weight",),
            readout=("**project_out.weight", "**decoder.final_layer_norm.*"),
            layers="num_hidden_layers",
        ),
    )
)
