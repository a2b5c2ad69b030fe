"""GPT-2: layer norms before each part and at the end, a tied head."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register

GPT2 = register(
    Family(
        "gpt2",
        keras_hub=Names(
            ("GPT2Backbone",),
            weights=common.TRANSFORMER,
            sizes=common.KERAS_SIZES,
            readout=("layer_norm/*",),
        ),
        transformers=Names(
            ("GPT2LMHeadModel", "GPT2Model", "GPT2ForSequenceClassification"),
            # Kernels are (in, out) here, and query, key and value stand side by side.
            weights={
                "**wte.weight": "vocabulary hidden",
                "**wpe.weight": "positions hidden",
                **common.dense(
                    {
                        "**.attn.c_attn.": "+hidden 3*heads*head_dim",
                        "**.attn.c_proj.": "+heads*head_dim hidden",
                        "**.mlp.c_fc.": "+hidden mlp",
                        "**.mlp.c_proj.": "+mlp hidden",
                        "**ln_*.": "norm: hidden",
                    }
                ),
                "**.attn.bias": "kept",
                "**.attn.masked_bias": "kept",
                "lm_head.weight": "vocabulary +hidden",
                "score.weight": "classes +hidden",
            },
            fixed=common.VOCABULARY | {"positions": "n_positions"},
            required={
                "*": (
                    "**wte.weight",
                    "**wpe.weight",
                    *common.weights_and_biases(
                        "**ln_1",
                        "**.attn.c_attn",
                        "**.attn.c_proj",
                        "**ln_2",
                        "**.mlp.c_fc",
                        "**.mlp.c_proj",
                        "**ln_f",
                    ),
                ),
                "*ForSequenceClassification": ("score.weight",),
            },
            stacks={"**h": "n_layer"},
            sizes={"hidden": ("n_embd",), "heads": ("n_head",), "mlp": ("n_inner",)},
            defaults={"n_inner": ("n_embd", 4)},
            head=common.DECODER_HEAD,
            readout=("**ln_f.*",),
            layers="n_layer",
        ),
    )
)
