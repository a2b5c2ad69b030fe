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
                "**/mlp/dense_1/kernel": "+hidden mlp",
                "**/mlp/dense_1/bias": "mlp",
                "**/mlp/dense_2/kernel": "+mlp hidden",
                "**/mlp/dense_2/bias": "hidden",
                "pre_logits/kernel": "+hidden hidden'",
                "pre_logits/bias": "hidden'",
                "predictions/kernel": "+hidden classes",
                "predictions/bias": "classes",
            },
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
                "**layernorm*.weight": "norm: hidden",
                "**layernorm*.bias": "norm: hidden",
                "**pooler.dense.weight": "pooled +hidden",
                "**pooler.dense.bias": "pooled",
            },
            sizes=common.ENCODER_SIZES | {"pooled": ("pooler_output_size",)},
            defaults={"pooler_output_size": ("hidden_size", 1)},
            layers="num_hidden_layers",
        ),
    )
)
