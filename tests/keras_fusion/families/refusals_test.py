"""Stock models that cannot be fused: one error that names the reason and both values."""

import functools

import keras
import keras_hub
import numpy as np
import pytest

import keras_fusion as kf
from tests.keras_fusion.families import stock

pytestmark = pytest.mark.one_backend

GPT2 = stock.BY_NAME["GPT2CausalLM"]
MISTRAL = stock.BY_NAME["MistralCausalLM"]
GEMMA = stock.BY_NAME["GemmaCausalLM"]
LLAMA_3 = stock.BY_NAME["Llama3CausalLM"]


def backbone(case, seed=0, **changes):
    return stock.make(case, seed, **{"num_layers": 1} | changes).backbone


@functools.cache
def unchanged(name):
    """A backbone that no test changes."""
    return backbone(stock.BY_NAME[name])


@pytest.fixture(scope="module")
def gpt2():
    return stock.make(GPT2, num_layers=1)


@pytest.mark.parametrize(
    "case, changes, message",
    [
        (GPT2, {"vocabulary_size": 29}, "vocabulary_size: 23 vs 29"),
        (GPT2, {"num_layers": 3}, "num_layers: 1 vs 3"),
        (GPT2, {"max_sequence_length": 10}, "max_sequence_length: 9 vs 10"),
        (GPT2, {"num_heads": 2}, "size of an attention head: 4 vs 6"),
        (MISTRAL, {"head_dim": 6}, r"head.*: 4 vs 6"),
        (
            MISTRAL,
            {"num_key_value_heads": 3},
            "query heads of each key head: 3 vs 2; .*kf.families.repeat_key_heads",
        ),
        (MISTRAL, {"rope_max_wavelength": 20000}, "rope_max_wavelength: 10000 vs 20000"),
        (MISTRAL, {"sliding_window": 4}, "sliding_window: 512 vs 4"),
        (MISTRAL, {"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon: 1e-06 vs 1e-05"),
        (LLAMA_3, {"rope_position_scaling_factor": 8.0}, "rope_position_scaling_factor: 1.0 vs 8"),
        (LLAMA_3, {"tie_word_embeddings": True}, "tie_word_embeddings: False vs True"),
        (GEMMA, {"attention_logit_soft_cap": 5.0}, "attention_logit_soft_cap: None vs 5.0"),
        (GEMMA, {"final_logit_soft_cap": 5.0}, "final_logit_soft_cap: None vs 5.0"),
        (GEMMA, {"use_sliding_window_attention": True}, "use_sliding_window_attention: False vs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_differ(case, changes, message):
    with pytest.raises(kf.FusionError, match=message):
        kf.fuse([unchanged(str(case)), backbone(case, **changes)], norm="rule")


def test_dropout_may_differ():
    fused = kf.fuse([backbone(GPT2, dropout=0.1), backbone(GPT2, 1, dropout=0.0)], norm="rule")
    assert fused.dropout == 0.1


def test_repeated_key_heads_compute_the_same_and_can_be_fused():
    a = stock.make(MISTRAL, num_layers=1)
    b = stock.make(MISTRAL, 1, num_layers=1, num_key_value_heads=3)
    feeds = stock.inputs(a)
    repeated = [kf.families.repeat_key_heads(a, 3), kf.families.repeat_key_heads(b, 2)]
    for model, source in zip(repeated, (a, b), strict=True):
        assert type(model) is type(source) and model.backbone.num_key_value_heads == 6
        assert stock.gap(model, stock.logits(source, feeds), feeds) <= 1e-6
    fused = kf.fuse(repeated)
    assert stock.gap(fused, stock.mean_logits([a, b], feeds), feeds) <= 1e-5
    with pytest.raises(kf.FusionError, match="times must divide the 6 query heads.*times=4"):
        kf.families.repeat_key_heads(a, 4)


def test_classes_and_dtypes_that_differ(gpt2):
    opt = backbone(stock.BY_NAME["OPTCausalLM"])
    with pytest.raises(kf.FusionError, match="source 1 is a OPTBackbone, the first a GPT2Backbone"):
        kf.fuse([gpt2.backbone, opt])
    with pytest.raises(kf.FusionError, match="source 1 is a GPT2Backbone, the first a GPT2Causal"):
        kf.fuse([gpt2, gpt2.backbone])
    perceptron = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(kf.FusionError, match="source 1 is a Sequential, the first a GPT2CausalLM"):
        kf.fuse([gpt2, perceptron])
    half = stock.make(GPT2, dtype="bfloat16", num_layers=1)
    with pytest.raises(kf.FusionError, match="dtype of source 1: bfloat16 vs float32"):
        kf.fuse([gpt2, half])


def test_options_that_do_not_apply(gpt2):
    for option in ({"inputs": "concat"}, {"outputs": "concat"}, {"average": "outputs"}):
        (name,) = option
        with pytest.raises(kf.FusionError, match=f"{name}: a GPT2CausalLM is fused without this"):
            kf.self_fuse(gpt2, 2, **option)
    with pytest.raises(kf.FusionError, match="norm must be one of"):
        kf.self_fuse(gpt2, 2, norm="batch")
    with pytest.raises(kf.FusionError, match="weights must add up to 1"):
        kf.self_fuse(gpt2, 2, weights=[0.7, 0.7])
    with pytest.raises(kf.FusionError, match="fill='copies' puts a network's weights"):
        kf.fuse([gpt2, stock.source(GPT2)], fill="copies")
    with pytest.raises(kf.FusionError, match="heads and hidden of GPT2Backbone grow together"):
        kf.grow(gpt2, heads=2)
    with pytest.raises(kf.FusionError, match="axis `width` is none of .*'mlp'"):
        kf.grow(gpt2, width=2)
    with pytest.raises(kf.FusionError, match="optimizers of one class that have trained"):
        kf.self_fuse(stock.source(GPT2), 2, optimizer="grow")


def test_weights_that_are_not_plain(gpt2):
    adapted = backbone(GPT2)
    adapted.enable_lora(2)
    with pytest.raises(kf.FusionError, match="`.*query` has LoRA weights; merge them"):
        kf.fuse([gpt2.backbone, adapted])
    quantised = backbone(GPT2)
    quantised.quantize("int8")
    with pytest.raises(kf.FusionError, match="has quantised weights; merge them"):
        kf.self_fuse(quantised, 2)
    broken = backbone(GPT2)
    broken.variables[0].assign(np.full(broken.variables[0].shape, np.nan))
    with pytest.raises(kf.FusionError, match="token_embedding/embeddings` of source 1 holds .*NaN"):
        kf.fuse([gpt2.backbone, broken], norm="rule")


def test_factors_that_float16_cannot_hold():
    # The larger weight has the narrower source: its last norm takes 0.9 · √(28 / 7) = 1.8.
    wide = backbone(GEMMA, hidden_dim=21, dtype="float16")
    narrow = backbone(GEMMA, hidden_dim=7, dtype="float16")
    scale = next(v for v in narrow.variables if v.path == "final_normalization/scale")
    scale.assign(np.full(scale.shape, 60000.0))
    with pytest.raises(kf.FusionError, match="final_norm.* times 1.8 is too large for float16"):
        kf.fuse([wide, narrow], norm="rule", weights=[0.1, 0.9])


def test_a_network_that_is_fused_already():
    a, b = backbone(GPT2), backbone(GPT2, 1)
    grouped = kf.fuse([a, b])
    with pytest.raises(kf.FusionError, match="grouped norms already; fuse all networks in one"):
        kf.self_fuse(grouped, 2)


def test_a_class_without_a_table():
    f_net = keras_hub.models.FNetBackbone(
        vocabulary_size=23, num_layers=1, hidden_dim=12, intermediate_dim=10, max_sequence_length=9
    )
    message = "no family has a table of FNetBackbone's .* LlamaBackbone.*kf.families.register"
    with pytest.raises(kf.FusionError, match=message):
        kf.self_fuse(f_net, 2)
    with pytest.raises(kf.FusionError, match=message):
        kf.grow(f_net, mlp=2)


class Louder(keras_hub.models.GPT2Backbone):
    """Computes something else than its parts say."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask) ** 2


class Squared(keras_hub.models.GPT2CausalLM):
    """A task whose logits are squared."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask) ** 2


def test_a_users_subclass_is_refused_or_caught(gpt2):
    config = GPT2.config | {"num_layers": 1}
    with pytest.raises(kf.FusionError, match="table of Louder's weights"):
        kf.self_fuse(Louder(**config), 2)
    task = keras_hub.models.GPT2CausalLM(backbone=Louder(**config), preprocessor=None)
    with pytest.raises(kf.FusionError, match="table of Louder's weights"):
        kf.self_fuse(task, 2)
    squared = Squared(backbone=gpt2.backbone, preprocessor=None)
    other = Squared(backbone=stock.make(GPT2, 1, num_layers=1).backbone, preprocessor=None)
    with pytest.raises(kf.FusionError, match="away from the mean .* such as a `call` of its own"):
        kf.fuse([squared, other])


def test_vocabularies_are_compared_token_by_token():
    a = stock.make(GPT2, preprocessor=stock.preprocessor(), num_layers=1)
    b = stock.make(GPT2, 1, preprocessor=stock.preprocessor("bacdefghijklmnopqrst"), num_layers=1)
    message = "source 1: 2 tokens differ from those of source 0, first token 1: 'b' vs 'a'"
    with pytest.raises(kf.FusionError, match=message):
        kf.fuse([a, b], norm="rule")
    b.preprocessor = stock.preprocessor("abcd")
    with pytest.raises(kf.FusionError, match="vocabulary of source 1: 7 tokens vs 23 of source 0"):
        kf.fuse([a, b], norm="rule")
    b.preprocessor = stock.preprocessor()
    assert kf.fuse([a, b], norm="rule").preprocessor is a.preprocessor


@pytest.mark.parametrize("times", [0, -1, 1, 2.0, "2", True])
def test_key_heads_are_repeated_a_whole_number_of_times(times):
    with pytest.raises(kf.FusionError, match="times must be an integer of at least 2"):
        kf.families.repeat_key_heads(unchanged(str(MISTRAL)), times)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fill": "blocks"}, "fill must be one of"), ({"asymmetry": 0.1}, "use fill='copies'")],
)
def test_growth_knows_its_options(options, message):
    with pytest.raises(kf.FusionError, match=message):
        kf.grow(unchanged(str(MISTRAL)), mlp=2, **options)
