"""Tiny KerasHub models of every family with random weights, and logits that the tests average.

Sizes are such that no two axes of a model have equal ones where its class allows that.
"""

import dataclasses
import functools

import keras
import keras_hub
import numpy as np
from keras import ops

VOCABULARY = 23
BATCH, LENGTH = 2, 7
# Heads of one size follow from these: 12 / 3 = 8 / 2, 24 / 6 = 12 / 3.
_PLAIN = {"num_layers": 2, "num_heads": 3, "hidden_dim": 12, "intermediate_dim": 10}
_PLAIN_OTHER = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 14}
_POSITIONS = {"vocabulary_size": VOCABULARY, "max_sequence_length": 9}
_GROUPED = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 1,
    "num_query_heads": 6,
    "num_key_value_heads": 2,
    "hidden_dim": 24,
    "intermediate_dim": 14,
}
_GROUPED_OTHER = {
    "num_query_heads": 3,
    "num_key_value_heads": 1,
    "hidden_dim": 12,
    "intermediate_dim": 10,
}
# Where head_dim is an argument of its own, hidden is no multiple of it.
_FREE = _GROUPED | {"hidden_dim": 9, "head_dim": 4}
_FREE_OTHER = _GROUPED_OTHER | {"hidden_dim": 7}
_GEMMA = _FREE | {"intermediate_dim": 20}
_GEMMA_OTHER = _FREE_OTHER | {"intermediate_dim": 28}
_T5 = _PLAIN | {
    "num_layers": 1,
    "vocabulary_size": VOCABULARY,
    "hidden_dim": 11,
    "key_value_dim": 4,
}
_T5_OTHER = _PLAIN_OTHER | {"hidden_dim": 7}
_GEMMA_2 = {
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 5.0,
    "final_logit_soft_cap": 2.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
    "query_head_dim_normalize": False,
}
_GEMMA_3 = {
    "image_size": 16,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A class of models.

    Args:
        family: Its row in docs/models.md.
        backbone: Class of the backbone, without "Backbone".
        config: Its arguments.
        other: Those of a second source with other widths.
        task: Class of a task around it; without one the backbone's own outputs are compared.
        task_config: The task's arguments.
        task_other: Those of the second source.
        variant: Tells cases of one class apart.
        free_heads: Whether heads can grow alone.
        shares_norms: Whether all heads share a norm.
        cap: Soft cap of the logits.
    """

    family: str
    backbone: str
    config: dict
    other: dict
    task: str | None = None
    task_config: dict = dataclasses.field(default_factory=dict)
    task_other: dict = dataclasses.field(default_factory=dict)
    variant: str = ""
    free_heads: bool = False
    shares_norms: bool = False
    cap: float | None = None

    def __str__(self):
        return (self.task or self.backbone) + ("-" + self.variant if self.variant else "")


def _encoder(family, name, num_layers=1, **options):
    config, other = _PLAIN | _POSITIONS | {"num_layers": num_layers}, _PLAIN_OTHER
    classes = {"num_classes": 5, "hidden_dim": 16}
    return [
        Case(family, name, config, other, f"{name}MaskedLM", **options),
        Case(
            family,
            name,
            config,
            other,
            f"{name}TextClassifier",
            {"num_classes": 5} if name == "Bert" else classes,
            {} if name == "Bert" else {"hidden_dim": 6},
            **options,
        ),
    ]


def _decoder(family, name, config, other, tied=None, **options):
    cases = [Case(family, name, config, other, f"{name}CausalLM", **options)]
    if tied:
        config = config | {tied: True}
        cases.append(
            Case(family, name, config, other, f"{name}CausalLM", variant="tied", **options)
        )
    return cases


_T5_TIED = {"tie_embedding_weights": True, "use_gated_activation": False}
_T5_UNTIED = {"tie_embedding_weights": False, "activation": "gelu"}
_VIT = {
    "image_shape": (8, 8, 3),
    "patch_size": 4,
    "num_layers": 1,
    "num_heads": 3,
    "hidden_dim": 12,
    "mlp_dim": 10,
}
_VIT_OTHER = {"num_heads": 2, "hidden_dim": 8, "mlp_dim": 14}
_WHISPER = _PLAIN | {
    "num_layers": 1,
    "vocabulary_size": VOCABULARY,
    "num_mels": 5,
    "max_encoder_sequence_length": 14,
    "max_decoder_sequence_length": 9,
}
CASES = (
    Case("T5", "T5", _T5 | _T5_UNTIED, _T5_OTHER, "T5Seq2SeqLM", free_heads=True),
    Case("T5", "T5", _T5 | _T5_TIED, _T5_OTHER, "T5Seq2SeqLM", variant="tied", free_heads=True),
    *_encoder("BERT", "Bert", num_layers=2),
    *_encoder("RoBERTa", "Roberta"),
    *_encoder("DistilBERT", "DistilBert"),
    Case("GPT-2", "GPT2", _PLAIN | _POSITIONS, _PLAIN_OTHER, "GPT2CausalLM"),
    Case("OPT", "OPT", _PLAIN | _POSITIONS | {"num_layers": 1}, _PLAIN_OTHER, "OPTCausalLM"),
    Case("BART", "Bart", _PLAIN | _POSITIONS, _PLAIN_OTHER, "BartSeq2SeqLM"),
    *_decoder(
        "Llama",
        "Llama",
        _GROUPED | {"num_layers": 2},
        _GROUPED_OTHER,
        "tie_word_embeddings",
    ),
    *_decoder("Llama 3", "Llama3", _GROUPED, _GROUPED_OTHER, "tie_word_embeddings"),
    *_decoder("Mistral", "Mistral", _FREE, _FREE_OTHER, free_heads=True),
    *_decoder("Qwen 2", "Qwen", _GROUPED, _GROUPED_OTHER, "tie_word_embeddings"),
    *_decoder(
        "Qwen 3",
        "Qwen3",
        _FREE,
        _FREE_OTHER,
        "tie_word_embeddings",
        free_heads=True,
        shares_norms=True,
    ),
    *_decoder("Gemma", "Gemma", _GEMMA, _GEMMA_OTHER, free_heads=True),
    *_decoder(
        "Gemma 2",
        "Gemma",
        _GEMMA | _GEMMA_2 | {"hidden_dim": 12},
        _GEMMA_OTHER | {"hidden_dim": 6},
        variant="2",
        cap=2.0,
    ),
    *_decoder(
        "Gemma 3",
        "Gemma3",
        _GEMMA | _GEMMA_3,
        _GEMMA_OTHER,
        free_heads=True,
        shares_norms=True,
    ),
    Case("ViT", "ViT", _VIT, _VIT_OTHER, "ViTImageClassifier", {"num_classes": 5}),
    Case(
        "ViT",
        "ViT",
        _VIT,
        _VIT_OTHER,
        "ViTImageClassifier",
        {"num_classes": 5, "intermediate_dim": 7, "pooling": "gap"},
        {"intermediate_dim": 4},
        variant="hidden",
    ),
    Case("Whisper", "Whisper", _WHISPER, _PLAIN_OTHER),
)
# The first case of each family.
FAMILIES = tuple({case.family: case for case in reversed(CASES)}.values())[::-1]
BY_NAME = {str(case): case for case in CASES}


def make(case, seed=0, other=False, dtype="float32", preprocessor=None, **changes):
    """A new model of a case, with random weights.

    Args:
        case: A `Case`.
        seed: Seed of the weights.
        other: Whether it has the second source's widths.
        dtype: Its dtype or policy.
        preprocessor: Optional preprocessor of a task.
        **changes: Further arguments of the backbone.
    """
    config = case.config | (case.other if other else {}) | changes
    backbone = getattr(keras_hub.models, f"{case.backbone}Backbone")(
        **{"dropout": 0.0, **config}, dtype=dtype
    )
    model = backbone
    if case.task is not None:
        task_config = case.task_config | (case.task_other if other else {})
        task = getattr(keras_hub.models, case.task)
        model = task(backbone=backbone, preprocessor=preprocessor, **task_config)
    randomize(model, seed)
    if case.shares_norms:
        _share(model)
    return model


def preprocessor(letters="abcdefghijklmnopqrst"):
    """A preprocessor for GPT-2 whose tokens are letters, one pair of them, and a space."""
    tokens = {token: i for i, token in enumerate(["<|endoftext|>", *letters, "ab", "\u0120"])}
    tokenizer = keras_hub.models.GPT2Tokenizer(tokens, merges=["a b"])
    return keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)


@functools.cache
def _source(name, seed, other, dtype):
    return make(BY_NAME[name], seed, other, dtype)


def source(case, seed=0, other=False, dtype="float32"):
    """As `make`, one model for all tests, which must not change it."""
    return _source(str(case), seed, other, dtype)


def randomize(model, seed):
    """Gives every weight of a model random values, norms' scales and biases too."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        values = rng.normal(size=variable.shape)
        if variable.path.endswith(("gamma", "/weight", "norm/scale")):
            values = 1 + 0.3 * values
        elif len(variable.shape) < 2 or "norm" in variable.path:
            values = 0.3 * values
        else:
            values = 0.4 * values
        variable.assign(values)


def _share(model):
    """Gives the norms that all heads share one value for all sources."""
    for variable in model.variables:
        if any(name in variable.path for name in SHARED_NORMS):
            variable.assign(np.linspace(0.4, 1.5, variable.shape[0]))


SHARED_NORMS = ("query_dense_layernorm", "key_dense_layernorm", "query_norm", "key_norm")


def inputs(model, seed=7):
    """Random inputs of a model, with padding at the end of its second row."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in model.inputs:
        name = spec.name
        shape = [BATCH, *(size or LENGTH for size in spec.shape[1:])]
        if "int" not in spec.dtype:
            feeds[name] = rng.normal(size=shape).astype("float32")
        elif name.endswith("padding_mask"):
            feeds[name] = np.ones(shape, "int32")
            feeds[name][1, -2:] = 0
        else:
            limit = {"segment_ids": 2, "mask_positions": LENGTH - 2}.get(name, VOCABULARY)
            feeds[name] = rng.integers(0, limit, shape).astype("int32")
    return feeds if len(feeds) > 1 else next(iter(feeds.values()))


def outputs(model, feeds):
    """A model's outputs as double precision arrays."""
    flat = keras.tree.flatten(model(feeds, training=False))
    return [ops.convert_to_numpy(ops.cast(output, "float32")).astype("float64") for output in flat]


def logits(model, feeds):
    """Logits that a fusion promises the mean of: before a soft cap.

    A Whisper has no task; its logits are those of the decoder's embedding, read in reverse.
    """
    if hasattr(model, "preprocessor"):
        (values,) = outputs(model, feeds)
        cap = getattr(model.backbone, "final_logit_soft_cap", None)
        return cap * np.arctanh(values / cap) if cap else values
    hidden = model(feeds, training=False)["decoder_sequence_output"]
    (table,) = [v for v in model.variables if v.path.endswith("token_embedding/embeddings")]
    hidden, table = (
        ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")
        for tensor in (hidden, table)
    )
    return hidden @ table.T


def mean_logits(models, feeds, weights=None):
    """Weighted mean of the logits of several models: what a fusion promises."""
    weights = weights or [1 / len(models)] * len(models)
    return sum(weight * logits(model, feeds) for weight, model in zip(weights, models, strict=True))


def gap(model, expected, feeds):
    """Largest difference between a model's logits and what is expected, over the largest logit."""
    return float(np.abs(logits(model, feeds) - expected).max() / np.abs(expected).max())


def config(model):
    """Configuration of a model's backbone."""
    return getattr(model, "backbone", model).get_config()
