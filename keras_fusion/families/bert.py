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
            sizes={"hidden": ("dim",), "heads": ("n_heads",), "mlp": ("hidden_dim",)},
            head=("vocab_projector.weight",),
            readout=("vocab_layer_norm.*",),
            layers="n_layers",
        ),
    )
)
