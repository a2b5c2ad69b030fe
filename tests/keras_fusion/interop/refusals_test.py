"""Folders of transformers that are not fused, each with its message."""

import json

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion import interop
from tests.keras_fusion.interop import tiny_folders as tiny


def test_vocabularies_are_compared_piece_by_piece(tmp_path):
    def folder(name, **files):
        return tiny.write(tmp_path / name, tiny.LLAMA, tiny.llama(), files=files)

    def tokenizer(pieces, **more):
        return json.dumps({"model": {"vocab": pieces}, **more})

    a = folder("a", **{"tokenizer.json": tokenizer({"x": 0, "y": 1})})
    same = folder("b", **{"tokenizer.json": tokenizer({"y": 1, "x": 0}, version="2")})
    other = folder("c", **{"tokenizer.json": tokenizer({"x": 0, "z": 1})})
    pairs = folder("d", **{"tokenizer.json": tokenizer([["x", -1.0], ["z", -2.0]])})
    assert "not compared" not in interop.plan_fusion([a, same], norm="rule").describe()
    for wrong in (other, pairs):
        with pytest.raises(kf.FusionError, match="piece 1 is 'y' in .*, 'z' in"):
            interop.plan_fusion([a, wrong], norm="rule")
    lines = folder("e", **{"vocab.txt": "x\ny\n"}), folder("f", **{"vocab.txt": "x\nq\n"})
    with pytest.raises(kf.FusionError, match="piece 1 is 'y' in .*, 'q' in"):
        interop.plan_fusion(lines, norm="rule")
    assert "not compared" in interop.plan_fusion([a, lines[0]], norm="rule").describe()


def test_different_models_need_the_rule(llamas):
    with pytest.raises(kf.FusionError, match="norm='property'; give norm='rule'"):
        interop.plan_fusion(llamas)


def test_float16_does_not_overflow_in_silence(tmp_path):
    sources = []
    for name, value in (("a", 60000), ("b", 1)):
        arrays = {key: array.astype("float16") for key, array in tiny.t5().items()}
        arrays["decoder.final_layer_norm.weight"][:] = value
        sources.append(tiny.write(tmp_path / name, tiny.T5, arrays))
    # The last norm is multiplied with √2 and the source's weight.
    small, large = ((0.4, 0.6), (0.9, 0.1))
    _, arrays = tiny.fused(tmp_path, sources, norm="rule", weights=small)
    norm = arrays["decoder.final_layer_norm.weight"]
    np.testing.assert_allclose(norm[[0, -1]], [60000 * 0.4 * 2**0.5, 0.6 * 2**0.5], rtol=1e-3)
    with pytest.raises(
        kf.FusionError, match="`decoder.final_layer_norm.weight` .* too large for float16"
    ):
        tiny.fused(tmp_path, sources, "large", norm="rule", weights=large)
    assert not (tmp_path / "large").exists()


REFUSED = {
    "quantised": ({"quantization_config": {"quant_method": "awq"}}, {}, "quantised by awq"),
    "no class": ({"architectures": None}, {}, "architectures=None"),
    "unknown class": ({"architectures": ["XForY"]}, {}, "class XForY.*Give one of .*BartModel"),
    "another size": ({"hidden_size": 8}, {}, "which config.json does not say"),
    "no size": ({"hidden_size": None}, {}, "lacks hidden_size"),
    "adapter": ({}, {"adapter_config.json": "{}"}, "with an adapter.*merge_and_unload"),
    "no JSON": ({}, {"config.json": "{"}, "config.json"),
    "damaged": ({}, {"model.safetensors": "x" * 20}, "Expected a safetensors file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_folders(tmp_path, case):
    fields, files, message = REFUSED[case]
    folder = tiny.write(tmp_path / "a", tiny.LLAMA | fields, tiny.llama())
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(kf.FusionError, match=message):
        interop.plan_fusion([folder, folder])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"model.layers.0.self_attn.q_proj.lora_A.weight": (2, 6)}, "Merge the adapter"),
        ({"model.layers.0.self_attn.gate.weight": (2, 6)}, "gate.weight` of .* not in the table"),
    ],
)
def test_weights_that_no_table_names_are_refused(tmp_path, names, message):
    more = {name: np.zeros(shape, "float32") for name, shape in names.items()}
    folder = tiny.write(tmp_path / "a", tiny.LLAMA, tiny.llama() | more)
    with pytest.raises(kf.FusionError, match=message):
        interop.plan_fusion([folder, folder])


def test_pickled_weights_are_not_opened(tmp_path):
    folder = tiny.write(tmp_path / "a", tiny.LLAMA, tiny.llama())
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(kf.FusionError, match="pytorch_model.bin.*save_pretrained"):
        interop.plan_fusion([folder, folder])


MISMATCHES = {
    "vocabulary": ({"vocab_size": 8}, "vocab_size: 7 vs 8"),
    "size of a head": ({"head_dim": 6, "num_key_value_heads": 1, "num_attention_heads": 2}, "3 vs"),
    "key heads": ({"num_key_value_heads": 4}, "query heads of each key head: 2 vs 1"),
    "epsilon": ({"rms_norm_eps": 1e-5}, "rms_norm_eps: 1e-06 vs 1e-05"),
    "rotary": ({"rope_theta": 1e6}, "rope_theta: None vs 1000000.0"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_sources_that_differ_are_refused_with_both_values(tmp_path, llamas, case):
    fields, message = MISMATCHES[case]
    config = tiny.LLAMA | fields
    arrays = tiny.llama(1, config)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        arrays[name] = np.zeros((config["vocab_size"], tiny.HIDDEN), "float32")
    other = tiny.write(tmp_path / "c", config, arrays)
    with pytest.raises(kf.FusionError, match=message):
        interop.plan_fusion([llamas[0], other], norm="rule")


def test_sources_of_other_classes_weights_and_types_are_refused(tmp_path, llamas):
    mistral = tiny.LLAMA | {"architectures": ["MistralForCausalLM"]}
    others = {
        "of one class": (mistral, tiny.llama()),
        "has `.*q_proj.bias`, .* lacks it": (
            tiny.LLAMA,
            tiny.llama() | {"model.layers.0.self_attn.q_proj.bias": np.zeros(12, "float32")},
        ),
        "of one dtype": (tiny.LLAMA, tiny.llama(dtype="float16")),
    }
    for number, (message, (config, arrays)) in enumerate(others.items()):
        other = tiny.write(tmp_path / str(number), config, arrays)
        with pytest.raises(kf.FusionError, match=message):
            interop.plan_fusion([llamas[0], other], norm="rule")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grow": {"heads": 2}}, "heads and hidden of .* grow together"),
        ({"grow": {"width": 2}}, "axis `width` is none of"),
        ({"grow": {"mlp": 1}}, "integers from 2 to 1,000"),
        ({"grow": {"mlp": 2}, "noise": 0.1}, "no noise"),
        ({}, "at least two sources"),
    ],
)
def test_growths_that_are_refused(gpt2, options, message):
    with pytest.raises(kf.FusionError, match=message):
        interop.plan_fusion([gpt2], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [0.7, 0.7]}, "weights must add up to 1"),
        ({"weights": [1.0]}, "weights must be 2 numbers"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"noise": -1}, "noise must be a finite number"),
    ],
)
def test_options_are_those_of_every_fusion(gpt2, options, message):
    with pytest.raises(kf.FusionError, match=message):
        interop.plan_fusion([gpt2, gpt2], **options)
