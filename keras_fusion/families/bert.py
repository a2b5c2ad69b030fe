"""BERT, RoBERTa, DistilBERT: encoders that normalise after each part; heads of their own."""

from keras_fusion.families import common
from keras_fusion.families.table import Family, Names, register

_KERAS = {
    "weights": common.TRANSFORMER
    | common.MASKED_LM
    | common.CLASSIFIER
    | {"segment_embedding/embeddings": "segments hidden"},
    "sizes": common.KERAS_SIZES,
    "readout": common.MLM_READOUT,
    "task_sizes": ("hidden_dim",),
}

BERT = register(
    Family(
        "bert",
        keras_hub=Names(("BertBackbone",), **_KERAS),
        transformers=Names(
            ("BertModel", "BertForMaskedLM", "BertForSequenceClassification"),
            weights=common.ENCODER
            | {"cls.predictions.bias": "vocabulary"}
            | common.dense(
                {
                    "cls.predictions.transform.dense.": "hidden' +hidden",
                    "cls.predictions.decoder.": "vocabulary +hidden",
                }
            ),
            sizes=common.ENCODER_SIZES,
            fixed=common.ENCODER_FIXED,
            required={
                "*": (*common.ENCODER_EMBEDDINGS, *common.ENCODER_LAYERS),
                "*ForMaskedLM": (
                    *common.weights_and_biases(
                        "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"
                    ),
                    "cls.predictions.bias|cls.predictions.decoder.bias",
                ),
                "*ForSequenceClassification": common.weights_and_biases(
                    "**pooler.dense", "classifier"
                ),
            },
            stacks=common.ENCODER_STACKS,
            head=("cls.predictions.decoder.weight",),
            readout=("cls.predictions.transform.LayerNorm.*",),
            layers="num_hidden_layers",
        ),
    )
)
ROBERTA = register(
    Family(
        "roberta",
        keras_hub=Names(("RobertaBackbone",), **_KERAS),
        transformers=Names(
            ("RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification"),
            weights=common.ENCODER
            | {"lm_head.bias": "vocabulary"}
            | common.dense(
                {
                    "lm_head.dense.": "hidden' +hidden",
                    "lm_head.layer_norm.": "norm: hidden",
                    "lm_head.decoder.": "vocabulary +hidden",
                    "classifier.dense.": "hidden' +hidden",
                    "classifier.out_proj.": "classes +hidden",
                }
            ),
            sizes=common.ENCODER_SIZES,
            fixed=common.ENCODER_FIXED,
            required={
                "*": (*common.ENCODER_EMBEDDINGS, *common.ENCODER_LAYERS),
                "*ForMaskedLM": (
                    *common.weights_and_biases("lm_head.dense", "lm_head.layer_norm"),
                    "lm_head.bias|lm_head.decoder.bias",
                ),
                "*ForSequenceClassification": common.weights_and_biases(
                    "classifier.dense", "classifier.out_proj"
                ),
            },
            stacks=common.ENCODER_STACKS,
            head=("lm_head.decoder.weight",),
            readout=("lm_head.layer_norm.*",),
            layers="num_hidden_layers",
        ),
    )
)
DISTILBERT = register(
    Family(
        "distilbert",
        keras_hub=Names(("DistilBertBackbone",), **_KERAS),
        transformers=Names(
            ("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
            weights={
                "**embeddings.word_embeddings.weight": "vocabulary hidden",
                "**embeddings.position_embeddings.weight": "positions hidden",
                "**embeddings.position_ids": "kept",
                "**LayerNorm.*": "norm: hidden",
                "**layer_norm.*": "norm: hidden",
                **common.dense(
                    {
                        "**attention.q_lin.": "heads*head_dim +hidden",
                        "**attention.k_lin.": "heads*head_dim +hidden",
                        "**attention.v_lin.": "heads*head_dim +hidden",
                        "**attention.out_lin.": "hidden +heads*head_dim",
                        "**ffn.lin1.": "mlp +hidden",
                        "**ffn.lin2.": "hidden +mlp",
                        "vocab_transform.": "hidden' +hidden",
                        "vocab_projector.": "vocabulary +hidden",
                        "pre_classifier.": "hidden' +hidden",
                        "classifier.": "classes +hidden",
                    }
                ),
            },
            fixed=common.VOCABULARY | {"positions": "max_position_embeddings"},
            required={
                "*": (
                    "**embeddings.word_embeddings.weight",
                    "**embeddings.position_embeddings.weight",
                    *common.weights_and_biases(
                        "**embeddings.LayerNorm",
                        *(f"**attention.{part}_lin" for part in ("q", "k", "v", "out")),
                        "**.sa_layer_norm",
                        "**ffn.lin1",
                        "**ffn.lin2",
                        "**.output_layer_norm",
                    ),
                ),
                "*ForMaskedLM": (
                    *common.weights_and_biases("vocab_transform", "vocab_layer_norm"),
                    "vocab_projector.bias",
                ),
                "*ForSequenceClassification": common.weights_and_biases(
                    "pre_classifier", "classifier"
                ),
            },
            stacks={"**transformer.layer": "n_layers"},
            sizes={"hidden": ("dim",), "heads": ("n_heads",), "mlp": ("hidden_dim",)},
            head=("vocab_projector.weight",),
            readout=("vocab_layer_norm.*",),
            layers="n_layers",
        ),
    )
)
