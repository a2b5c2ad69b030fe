"""Folders of transformers that are damaged or unusual: refused, or read as it reads them."""

import json
import sys
import types

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion import interop
from keras_fusion.interop import verifying
from tests.keras_fusion.interop import tiny_folders as tiny

CONFIGURATIONS = {
    "quantised": ({"quantization_config": "gptq"}, "quantised by some method"),
    "a list": ({"hidden_size": [6]}, r"positive integer.*hidden_size=\[6\]"),
    "quotes": ({"head_dim": "3"}, "positive integer.*head_dim='3'"),
    "negative": ({"num_hidden_layers": -1}, "num_hidden_layers=-1"),
    "layers": ({"num_hidden_layers": 3}, "weights of 1 layers, and num_hidden_layers=3"),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_refused_configurations(tmp_path, case):
    fields, message = CONFIGURATIONS[case]
    folder = tiny.write(tmp_path / "a", tiny.LLAMA | fields, tiny.llama())
    with pytest.raises(kf.FusionError, match=message):
        interop.plan_fusion([folder, folder])


INDICES = {
    "no map": ("{}", "names of shards"),
    "outside": ('{"weight_map": {"x": "../a/part.safetensors"}}', "names of shards"),
    "above": ('{"weight_map": {"x": ".."}}', "names of shards"),
    "no shard": ('{"weight_map": {"x": "one.safetensors"}}', "without the shards one.safetensors"),
    "no tensor": ('{"weight_map": {"x": "part.safetensors"}}', "without the weight `x`"),
    "nothing": ('{"weight_map": {}}', "without any weight"),
}


@pytest.mark.parametrize("case", INDICES)
def test_refused_indices(tmp_path, case):
    text, message = INDICES[case]
    folder = tiny.write(tmp_path / "a", tiny.LLAMA, tiny.llama())
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(kf.FusionError, match=message):
        interop.plan_fusion([folder, folder])


def test_an_index_beside_the_weights_is_not_read(tmp_path):
    folder = tiny.write(tmp_path / "a", tiny.LLAMA, tiny.llama())
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "y"}}')
    assert interop.plan_fusion([folder, folder]).sources[0].files == (folder / "model.safetensors",)


def test_a_weight_by_both_of_its_names_is_refused(tmp_path):
    config = tiny.LLAMA | {"architectures": ["BertModel"], "model_type": "bert"}
    name = "embeddings.LayerNorm"
    arrays = {f"{name}.{part}": np.ones(tiny.HIDDEN, "float32") for part in ("gamma", "weight")}
    folder = tiny.write(tmp_path / "a", config, arrays)
    with pytest.raises(kf.FusionError, match="by both of its names in model.safetensors"):
        interop.plan_fusion([folder, folder])


def test_whisper_reads_its_embedding_unscaled(tmp_path):
    sizes = ("encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim")
    config = dict.fromkeys(("d_model", *sizes, "decoder_ffn_dim"), 2) | {
        "architectures": ["WhisperForConditionalGeneration"],
        "scale_embedding": True,
    }
    table = np.array([[1, 2], [3, 5]], "float32")
    arrays = {
        "model.decoder.embed_tokens.weight": table,
        "model.decoder.layer_norm.weight": np.array([4, 8], "float32"),
    }
    source = tiny.write(tmp_path / "a", config, arrays)
    interop.plan_fusion([source, source]).write(tmp_path / "fused")
    _, wide = tiny.read(tmp_path / "fused")
    assert wide["model.decoder.embed_tokens.weight"].tolist() == [[1, 2, 1, 2], [3, 5, 3, 5]]
    assert wide["model.decoder.layer_norm.weight"].tolist() == [2, 4, 2, 4]


def test_heads_of_decoders_are_of_one_size_too(tmp_path):
    def bart(name, width, decoder_heads):
        config = {
            "architectures": ["BartModel"],
            "d_model": width,
            "encoder_attention_heads": width // 2,
            "decoder_attention_heads": decoder_heads,
            "encoder_ffn_dim": 2,
            "decoder_ffn_dim": 2,
        }
        arrays = {"shared.weight": np.ones((3, width), "float32")}
        return tiny.write(tmp_path / name, config, arrays)

    sources = [bart("a", 4, decoder_heads=2), bart("b", 8, decoder_heads=2)]
    with pytest.raises(kf.FusionError, match="size of an attention head: 2, 2 vs 2, 4"):
        interop.plan_fusion(sources, norm="rule")


def test_a_default_that_would_grow_is_written_out(gpt2):
    config = interop.plan_fusion([gpt2], grow={"hidden": 2, "heads": 2}).config
    assert (config["n_embd"], config["n_inner"]) == (2 * tiny.HIDDEN, 4 * tiny.HIDDEN)


def test_the_card_knows_a_folder_by_another_path(tmp_path, gpt2):
    (tmp_path / "link").symlink_to(gpt2)
    interop.plan_fusion([gpt2, tmp_path / "link"]).write(tmp_path / "fused")
    card = (tmp_path / "fused" / "README.md").read_text()
    assert "It computes what the source computes" in card
    assert card.count("| gpt2 | 1 | model.safetensors |") == 1


def test_what_fails_leaves_no_parents(tmp_path):
    arrays = tiny.gpt2()
    arrays["transformer.ln_f.bias"][0] = np.nan
    source = tiny.write(tmp_path / "nan", tiny.GPT2, arrays)
    with pytest.raises(kf.FusionError, match="NaN"):
        interop.plan_fusion([source, source]).write(tmp_path / "new" / "deep" / "fused")
    assert not (tmp_path / "new").exists()


def test_a_link_to_an_empty_folder_is_written_through(tmp_path, gpt2):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    interop.plan_fusion([gpt2, gpt2]).write(tmp_path / "link")
    assert (tmp_path / "empty" / "config.json").exists()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("tokenizer.json", b"[1]"),
        ("tokenizer.json", b'{"model": "x"}'),
        ("tokenizer.json", b'{"model": {"vocab": {"x": "1", "y": 2}}}'),
        ("tokenizer.json", b'{"added_tokens": [{"content": "x"}]}'),
        ("vocab.json", b"[" * 100_000),
        ("vocab.txt", b"\xe4"),
    ],
)
def test_vocabularies_that_are_none(tmp_path, kind, content):
    folders = [tiny.write(tmp_path / name, tiny.LLAMA, tiny.llama()) for name in "ab"]
    (folders[0] / kind).write_text("{}")
    (folders[1] / kind).write_bytes(content)
    with pytest.raises(kf.FusionError, match=f"Expected a vocabulary.*b/{kind}"):
        interop.plan_fusion(folders, norm="rule")


def test_pieces_that_were_added_are_compared(tmp_path):
    folders = []
    for name, added in (("a", "<y>"), ("b", "<z>")):
        files = {"vocab.json": '{"x": 0}', "added_tokens.json": json.dumps({added: 1})}
        folders.append(tiny.write(tmp_path / name, tiny.LLAMA, tiny.llama(), files=files))
    with pytest.raises(kf.FusionError, match="piece 1 is '<y>' in .*, '<z>' in"):
        interop.plan_fusion(folders, norm="rule")


def test_what_transformers_cannot_load_is_said(tmp_path, monkeypatch, gpt2):
    triton = []

    class GPT2LMHeadModel:
        @staticmethod
        def from_pretrained(*args, **kwargs):
            triton.append(sys.modules.get("triton", "may be loaded"))
            raise KeyError("foo")

    modules = {
        "torch": types.SimpleNamespace(float32=None),
        "transformers": types.SimpleNamespace(GPT2LMHeadModel=GPT2LMHeadModel),
        "tensorflow": types.SimpleNamespace(),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    with pytest.raises(kf.FusionError, match="loads no GPT2LMHeadModel from .*KeyError: 'foo'"):
        interop.plan_fusion([gpt2, gpt2]).write(tmp_path / "fused", check=verifying.verify)
    assert triton == [None]  # Loaded after TensorFlow, it would end the process.
    assert "triton" not in sys.modules
    assert not (tmp_path / "fused").exists()


def test_a_head_that_is_missing_is_not_taken_for_a_tied_one(tmp_path):
    """Without the field transformers ties no Llama, and would draw the head at random."""
    arrays = {name: array for name, array in tiny.llama().items() if name != "lm_head.weight"}
    config = {key: value for key, value in tiny.LLAMA.items() if key != "tie_word_embeddings"}
    folder = tiny.write(tmp_path / "a", config, arrays)
    with pytest.raises(kf.FusionError, match="without the head of a LlamaForCausalLM"):
        interop.plan_fusion([folder, folder])
    tied = tiny.write(tmp_path / "b", config | {"tie_word_embeddings": True}, arrays)
    assert interop.plan_fusion([tied, tied]).is_exact


def test_heads_that_do_not_divide_the_width_of_a_llama(tmp_path):
    config = tiny.LLAMA | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6}
    folder = tiny.write(tmp_path / "a", config, tiny.llama())
    with pytest.raises(kf.FusionError, match="6 with 4 heads; grow them by another factor"):
        interop.plan_fusion([folder], grow={"heads": 2})
