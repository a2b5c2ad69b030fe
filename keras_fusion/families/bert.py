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
            | {
                "cls.predictions.transform.dense.weight": "hidden' +hidden",
                "cls.predictions.transform.dense.bias": "hidden'",
                "cls.predictions.bias": "vocabulary",
                "cls.predictions.decoder.weight": "vocabulary +hidden",
                "cls.predictions.decoder.bias": "vocabulary",
            },
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
            | {
                "lm_head.dense.weight": "hidden' +hidden",
                "lm_head.dense.bias": "hidden'",
                "lm_head.layer_norm.weight": "norm: hidden",
                "lm_head.layer_norm.bias": "norm: hidden",
                "lm_head.bias": "vocabulary",
                "lm_head.decoder.weight": "vocabulary +hidden",
                "lm_head.decoder.bias": "vocabulary",
                "classifier.dense.weight": "hidden' +hidden",
                "classifier.dense.bias": "hidden'",
                "classifier.out_proj.weight": "classes +hidden",
                "classifier.out_proj.bias": "classes",
            },
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
                **{
                    f"**attention.{name}_lin.{kind}": line
                    for name in "qkv"
                    for kind, line in (
                        ("weight", "heads*head_dim +hidden"),
                        ("bias", "heads*head_dim"),
                    )
                },
                "**attention.out_lin.weight": "hidden +heads*head_dim",
                "**attention.out_lin.bias": "hidden",
                "**ffn.lin1.weight": "mlp +hidden",
                "**ffn.lin1.bias": "mlp",
                "**ffn.lin2.weight": "hidden +mlp",
                "**ffn.lin2.bias": "hidden",
                "vocab_transform.weight": "hidden' +hidden",
                "vocab_transform.bias": "hidden'",
                "vocab_projector.weight": "vocabulary +hidden",
                "vocab_projector.bias": "vocabulary",
                "pre_classifier.weight": "hidden' +hidden",
                "pre_classifier.bias": "hidden'",
                "classifier.weight": "classes +hidden",
                "classifier.bias": "classes",
            },
            sizes={"hidden": ("dim",), "heads": ("n_heads",), "mlp": ("hidden_dim",)},
            head=("vocab_projector.weight",),
            readout=("vocab_layer_norm.*",),
            layers="n_layers",
        ),
    )
)
