"""Folders of transformers fused from file to file: values and files."""

import hashlib
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion import interop
from tests.keras_fusion.interop import tiny_folders as tiny

TOKENS = [3, 0, 6, 2]
ATTENTION = "model.layers.0.self_attn"


def block_diagonal(*arrays):
    rows = [np.zeros((len(a), sum(b.shape[1] for b in arrays)), a.dtype) for a in arrays]
    start = 0
    for row, array in zip(rows, arrays, strict=True):
        row[:, start : start + array.shape[1]] = array
        start += array.shape[1]
    return np.concatenate(rows)


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("copies", [2, 3])
def test_a_gpt2_fused_with_itself_computes_what_it_did(tmp_path, prefix, copies):
    source = tiny.gpt2(prefix=prefix)
    folder = tiny.write(tmp_path / "a", tiny.GPT2, source)
    config, arrays = tiny.fused(tmp_path, [folder] * copies)
    assert config["n_embd"] == copies * tiny.HIDDEN and config["n_head"] == copies * tiny.HEADS
    assert config["n_inner"] == copies * 4 * tiny.HIDDEN
    expected = tiny.gpt2_logits(source, tiny.HEADS, TOKENS)
    logits = tiny.gpt2_logits(arrays, copies * tiny.HEADS, TOKENS)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_only_the_mlps_grow(tmp_path, gpt2):
    config, arrays = tiny.fused(tmp_path, [gpt2], grow={"mlp": 3})
    assert config["n_inner"] == 12 * tiny.HIDDEN and config["n_embd"] == tiny.HIDDEN
    expected = tiny.gpt2_logits(tiny.gpt2(), tiny.HEADS, TOKENS)
    logits = tiny.gpt2_logits(arrays, tiny.HEADS, TOKENS)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_by_the_rule_the_weights_are_those_of_the_paper(tmp_path, llamas):
    config, arrays = tiny.fused(tmp_path, llamas, norm="rule")
    sizes = {"hidden_size": 12, "num_attention_heads": 8, "num_key_value_heads": 4}
    assert config == tiny.LLAMA | sizes | {"intermediate_size": 20}
    a, b = tiny.llama(0), tiny.llama(1)
    for name in a:
        if name == "lm_head.weight":
            expected = np.concatenate([a[name], b[name]], -1) / 2
        elif name == "model.embed_tokens.weight" or a[name].ndim == 1:
            expected = np.concatenate([a[name], b[name]], -1)
        else:
            expected = block_diagonal(a[name], b[name])
        np.testing.assert_array_equal(arrays[name], expected, err_msg=name)


def test_sources_may_have_other_widths_and_weights(tmp_path, llamas):
    wide = tiny.LLAMA | {"hidden_size": 9, "num_attention_heads": 6, "num_key_value_heads": 3}
    wider = tiny.write(tmp_path / "c", wide, tiny.llama(2, wide))
    config, arrays = tiny.fused(tmp_path, [llamas[0], wider], norm="rule", weights=(0.25, 0.75))
    assert config["hidden_size"] == 15 and config["num_attention_heads"] == 10
    heads = tiny.llama(0)["lm_head.weight"] / 4, tiny.llama(2, wide)["lm_head.weight"] * 0.75
    np.testing.assert_allclose(arrays["lm_head.weight"], np.concatenate(heads, -1), rtol=1e-6)


def test_the_head_that_is_the_embedding_keeps_its_scale_in_the_last_norm(tmp_path, gpt2):
    _, arrays = tiny.fused(tmp_path, [gpt2, gpt2])
    source = tiny.gpt2()
    for kind in ("weight", "bias"):
        name = f"transformer.ln_f.{kind}"
        np.testing.assert_array_equal(arrays[name], np.tile(source[name], 2) / 2)


def test_t5_of_both_versions(tmp_path):
    first = tiny.write(tmp_path / "v1_0", tiny.T5, tiny.t5())
    config, arrays = tiny.fused(tmp_path, [first, first], "wide_v1_0")
    norm = "decoder.final_layer_norm.weight"
    # Logits are multiplied with 1/√hidden, and the hidden size doubles.
    expected = np.tile(tiny.t5()[norm], 2) * 2**0.5 / 2
    np.testing.assert_allclose(arrays[norm], expected, rtol=1e-6)
    assert config["scale_decoder_outputs"] is True and "lm_head.weight" not in arrays

    untied = tiny.T5 | {"tie_word_embeddings": False}
    second = tiny.write(tmp_path / "v1_1", untied, tiny.t5(has_head=True))
    config, arrays = tiny.fused(tmp_path, [second, second], "wide_v1_1")
    source = tiny.t5(has_head=True)
    np.testing.assert_array_equal(arrays[norm], np.tile(source[norm], 2))
    np.testing.assert_array_equal(
        arrays["lm_head.weight"], np.tile(source["lm_head.weight"], 2) / 2
    )
    assert config["tie_word_embeddings"] is False and config["scale_decoder_outputs"] is False


def test_gemmas_norms_scale_by_one_more_than_their_weight(tmp_path):
    config = tiny.LLAMA | {"architectures": ["GemmaForCausalLM"], "tie_word_embeddings": True}
    source = tiny.llama()
    del source["lm_head.weight"]
    folder = tiny.write(tmp_path / "a", config, source)
    _, arrays = tiny.fused(tmp_path, [folder, folder])
    name = "model.norm.weight"
    expected = (1 + np.tile(source[name], 2)) * 2**0.5 / 2 - 1
    np.testing.assert_allclose(arrays[name], expected, rtol=1e-6, atol=1e-6)
    name = "model.embed_tokens.weight"
    np.testing.assert_allclose(arrays[name], np.tile(source[name], 2) / 2**0.5, rtol=1e-6)


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_come_and_go(tmp_path, shards):
    source = tiny.llama()
    folder = tiny.write(tmp_path / "a", tiny.LLAMA, source, shards=shards)
    _, whole = tiny.fused(tmp_path, [folder, folder], "whole")
    _, arrays = tiny.fused(tmp_path, [folder, folder], "parts", max_shard_size=2000)
    assert (tmp_path / "whole" / "model.safetensors").exists()
    files = sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors"))
    assert len(files) > 1 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    assert whole.keys() == arrays.keys() == index["weight_map"].keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_names_of_old_files(tmp_path):
    config = {
        "architectures": ["BertModel"],
        "hidden_size": 6,
        "num_attention_heads": 3,
        "intermediate_size": 10,
        "num_hidden_layers": 1,
        "vocab_size": 7,
        "max_position_embeddings": 3,
        "type_vocab_size": 2,
    }
    arrays = {
        "embeddings.word_embeddings.weight": np.ones((7, 6), "float32"),
        "embeddings.LayerNorm.gamma": np.arange(6, dtype="float32"),
        "embeddings.LayerNorm.beta": np.arange(6, dtype="float32"),
    }
    present = {name.replace("gamma", "weight"): array for name, array in arrays.items()}
    more = tiny.completed(config, {n.replace("beta", "bias"): a for n, a in present.items()})
    arrays |= {name: array for name, array in more.items() if not name.startswith("emb")}
    folder = tiny.write(tmp_path / "a", config, arrays)
    _, wide = tiny.fused(tmp_path, [folder, folder])
    name = "embeddings.LayerNorm.weight"
    np.testing.assert_array_equal(wide[name], np.tile(np.arange(6), 2))
    assert "embeddings.LayerNorm.bias" in wide and not any("gamma" in key for key in wide)


def test_a_copy_of_the_embedding_is_no_head_of_its_own(tmp_path):
    source = tiny.gpt2()
    copy = source | {"lm_head.weight": source["transformer.wte.weight"].copy()}
    folder = tiny.write(tmp_path / "a", tiny.GPT2, copy)
    config, arrays = tiny.fused(tmp_path, [folder, folder])
    assert "lm_head.weight" not in arrays and "tie_word_embeddings" not in config
    norm = "transformer.ln_f.weight"
    np.testing.assert_array_equal(arrays[norm], np.tile(source[norm], 2) / 2)
    copy["lm_head.weight"][0, 0] += 1
    stale = tiny.write(tmp_path / "b", tiny.GPT2, copy)
    with pytest.raises(kf.FusionError, match="ties `lm_head.weight` to the embedding"):
        interop.plan_fusion([stale, stale])
    untied = tiny.write(tmp_path / "c", tiny.GPT2 | {"tie_word_embeddings": False}, copy)
    config, arrays = tiny.fused(tmp_path, [untied, untied], "own")
    assert config["tie_word_embeddings"] is False
    np.testing.assert_array_equal(arrays["lm_head.weight"], np.tile(copy["lm_head.weight"], 2) / 2)
    np.testing.assert_array_equal(arrays[norm], np.tile(source[norm], 2))


def test_bfloat16_is_kept(tmp_path):
    source = tiny.llama(dtype=ml_dtypes.bfloat16)
    bits = {name: array.view("uint16") for name, array in source.items()}
    folder = tiny.write(tmp_path / "a", tiny.LLAMA, bits)
    file = folder / "model.safetensors"
    # The package writes no bfloat16 of numpy: its header is told what the bits are.
    file.write_bytes(file.read_bytes().replace(b'"dtype":"U16"', b'"dtype":"BF16"'))
    header = file.read_bytes()
    length = int.from_bytes(header[:8], "little") + len(source)
    file.write_bytes(length.to_bytes(8, "little") + header[8:])
    plan = interop.plan_fusion([folder, folder])
    array = plan.arrays["lm_head.weight"]
    assert array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.asarray(array), np.tile(source["lm_head.weight"], 2) / 2)
    plan.write(tmp_path / "fused")
    assert b'"BF16"' in (tmp_path / "fused" / "model.safetensors").read_bytes()[:3000]


def test_the_rest_of_the_folder_and_the_card(tmp_path):
    files = {"tokenizer.json": "{}", "generation_config.json": "{}", "training.log": "secret"}
    folder = tiny.write(tmp_path / "a", tiny.GPT2, tiny.gpt2(), files=files)
    plan = interop.plan_fusion([folder, folder])
    plan.write(tmp_path / "b", command="the command", check=lambda *_: "It was compared.")
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    card = (tmp_path / "b" / "README.md").read_text()
    for path in (folder, tmp_path / "b"):
        content = (path / "model.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() in card
    assert "the command" in card and "It was compared." in card
    assert "computes what the source computes" in card


def test_balanced_noise_of_copies_is_exact_and_the_card_says_so(tmp_path, gpt2):
    plan = interop.plan_fusion([gpt2, gpt2], noise=0.1, noise_kind="balanced")
    assert plan.is_exact
    assert not interop.plan_fusion([gpt2, gpt2], noise=0.1).is_exact
    plan.write(tmp_path / "fused")
    card = (tmp_path / "fused" / "README.md").read_text("utf-8")
    assert "It computes what the source computes" in card and "noise=0.1" in card


def test_the_card_says_what_is_not_exact(tmp_path, llamas):
    tiny.fused(tmp_path, llamas, norm="rule")
    card = (tmp_path / "fused" / "README.md").read_text()
    assert "It is not exact" in card and "vocabularies were not compared" in card


def test_a_plan_reads_no_weights(tmp_path):
    source = tiny.llama()
    source["lm_head.weight"][:] = np.nan
    folder = tiny.write(tmp_path / "a", tiny.LLAMA, source)
    plan = interop.plan_fusion([folder, folder])
    values = sum(array.size for array in source.values())
    text = plan.describe()
    assert f"{values:,} parameters" in text and f"{plan.parameters:,} parameters" in text
    assert f"{4 * plan.parameters:,} bytes in 1 file" in text and "hidden_size=12" in text
    with pytest.raises(kf.FusionError, match="`lm_head.weight` of source 0 holds 42 NaN"):
        plan.write(tmp_path / "fused")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, kf.FusionError])
def test_what_fails_leaves_nothing(tmp_path, gpt2, error):
    output = tmp_path / "fused"

    def check(plan, folder):
        assert (folder / "model.safetensors").exists() and not output.exists()
        raise error

    with pytest.raises(error):
        interop.plan_fusion([gpt2, gpt2]).write(output, check=check)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt2"]


def test_what_a_killed_fusion_left_is_replaced(tmp_path, gpt2):
    left = tmp_path / ".fused.partial"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    tiny.fused(tmp_path, [gpt2, gpt2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused", "gpt2"]
    with pytest.raises(kf.FusionError, match="new or empty folder"):
        tiny.fused(tmp_path, [gpt2, gpt2])


_KILLED = """
import sys
from keras_fusion import interop

def stop(plan, folder):
    print("written", flush=True)
    sys.stdin.read()

interop.plan_fusion([sys.argv[1]] * 2).write(sys.argv[2], check=stop)
"""


@pytest.mark.slow
def test_a_killed_fusion_leaves_nothing_that_looks_finished(tmp_path, gpt2):
    """A process that is killed when all is written, and only the name is missing."""
    command = [sys.executable, "-c", _KILLED, gpt2, tmp_path / "fused"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "written\n"
        process.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fused.partial", "gpt2"]
    assert not interop.is_folder(tmp_path / "fused")
    tiny.fused(tmp_path, [gpt2, gpt2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused", "gpt2"]
