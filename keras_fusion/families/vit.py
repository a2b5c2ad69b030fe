"""ViT: an encoder of image patches."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register

VIT = register(
    Family(
        "vit",
        keras_hub=Names(
            ("ViTBackbone",),
            weights=common.ATTENTION
            | {
                "*/class_token": "one first hidden",
                "*/patch_embedding/kernel": "row column color hidden",
                "*/patch_embedding/bias": "hidden",
                "*/position_embedding/embeddings": "positions hidden",
                "**/ln*/gamma": "norm: hidden",
                "**/ln*/beta": "norm: hidden",
            }
            | common.dense(
                {
                    "**/mlp/dense_1/": "+hidden mlp",
                    "**/mlp/dense_2/": "+mlp hidden",
                    "pre_logits/": "+hidden hidden'",
                    "predictions/": "+hidden classes",
                },
                "kernel",
            ),
            sizes=common.KERAS_SIZES | {"mlp": ("mlp_dim",)},
            task_sizes=("intermediate_dim",),
        ),
        transformers=Names(
            ("ViTModel", "ViTForImageClassification"),
            weights=common.ENCODER
            | {
                "**cls_token": "one first hidden",
                "**patch_embeddings.projection.weight": "hidden color row column",
                "**patch_embeddings.projection.bias": "hidden",
                "**position_embeddings": "one positions hidden",
            }
            | common.dense({"**layernorm*.": "norm: hidden", "**pooler.dense.": "pooled +hidden"}),
            required={
                "*": (
                    "**cls_token",
                    "**position_embeddings",
                    *common.weights_and_biases(
                        "**patch_embeddings.projection",
                        *(f"**layernorm{place}" for place in ("", "_before", "_after")),
                    ),
                    *common.ENCODER_LAYERS,
                ),
                "*ForImageClassification": common.weights_and_biases("classifier"),
            },
            stacks=common.ENCODER_STACKS,
            sizes=common.ENCODER_SIZES | {"pooled": ("pooler_output_size",)},
            defaults={"pooler_output_size": ("hidden_size", 1)},
            layers="num_hidden_layers",
        ),
    )
)
