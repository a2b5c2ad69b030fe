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
    "no layers": ({"num_hidden_layers": None}, "lacks num_hidden_layers"),
    "rows": ({"vocab_size": 8}, "shape \\(7, 6\\), which config.json does not say"),
    "no rows": ({"vocab_size": None}, "lacks vocab_size"),
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


def plan_without(tmp_path, config, arrays, name):
    """Plans a fusion of a folder without the weights whose names end so."""
    left = {key: array for key, array in arrays.items() if not key.endswith(name)}
    assert len(left) < len(arrays)
    folder = tiny.write(tmp_path / "a", config, left)
    return interop.plan_fusion([folder, folder])


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("LLAMA", "model.norm.weight"),
        ("LLAMA", "embed_tokens.weight"),
        ("LLAMA", "mlp.up_proj.weight"),
        ("GPT2", "ln_f.bias"),
        ("T5", "encoder.final_layer_norm.weight"),
        ("T5", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        ("T5", "EncDecAttention.k.weight"),
    ],
)
def test_weights_that_transformers_would_draw_at_random(tmp_path, model, name):
    with pytest.raises(kf.FusionError, match="without `.*Restore its weights"):
        plan_without(tmp_path, getattr(tiny, model), getattr(tiny, model.lower())(), name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h.1.mlp.c_fc.bias", "without `mlp.c_fc.bias` of layer 1"),
        ("h.0.attn.c_attn.weight", "without `attn.c_attn.weight` of layer 0"),
    ],
)
def test_layers_are_alike(tmp_path, name, message):
    with pytest.raises(kf.FusionError, match=message):
        plan_without(tmp_path, tiny.GPT2, tiny.gpt2(), name)


def test_a_layer_in_the_middle_is_missed(tmp_path):
    arrays = {name.replace("h.0.", "h.2."): array for name, array in tiny.gpt2().items()}
    folder = tiny.write(tmp_path / "a", tiny.GPT2, arrays)
    with pytest.raises(kf.FusionError, match="weights of 2 layers, and n_layer=2. Restore .* 0"):
        interop.plan_fusion([folder, folder])


def test_an_axis_without_entries_is_refused(tmp_path):
    config = tiny.LLAMA | {"architectures": ["LlamaForSequenceClassification"]}
    arrays = tiny.llama() | {"score.weight": np.ones((0, tiny.HIDDEN), "float32")}
    del arrays["lm_head.weight"]
    folder = tiny.write(tmp_path / "a", config, arrays)
    with pytest.raises(kf.FusionError, match=r"`score.weight` of shape \(0, 6\)"):
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
    config = dict.fromkeys(("d_model", *sizes, "decoder_ffn_dim", "vocab_size"), 2) | {
        "architectures": ["WhisperForConditionalGeneration"],
        "num_mel_bins": 1,
        "scale_embedding": True,
    }
    table = np.array([[1, 2], [3, 5]], "float32")
    arrays = {
        "model.decoder.embed_tokens.weight": table,
        "model.decoder.layer_norm.weight": np.array([4, 8], "float32"),
    }
    source = tiny.write(tmp_path / "a", config, tiny.completed(config, arrays))
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
            "vocab_size": 3,
        }
        return tiny.write(tmp_path / name, config, tiny.completed(config, {}))

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


def decoders(tmp_path, *contents):
    """Folders of one vocab.json with such added_tokens_decoder; None for none."""
    for number, content in enumerate(contents):
        settings = {} if content is None else {"added_tokens_decoder": content}
        files = {"vocab.json": '{"x": 0}', "tokenizer_config.json": json.dumps(settings)}
        yield tiny.write(tmp_path / f"d{number}", tiny.LLAMA, tiny.llama(), files=files)


def test_pieces_that_the_settings_add_are_compared(tmp_path):
    pieces = [{"0": {"content": "x"}, "1": {"content": added}} for added in ("<y>", "<z>", "<y>")]
    a, b, same, old = decoders(tmp_path, *pieces, None)
    with pytest.raises(kf.FusionError, match="piece 1 is '<y>' in .*, '<z>' in"):
        interop.plan_fusion([a, b], norm="rule")
    # A folder of an old version, in which no settings name them.
    for other in (same, old):
        assert "not compared" not in interop.plan_fusion([a, other], norm="rule").describe()


def test_settings_that_add_no_pieces(tmp_path):
    folders = list(decoders(tmp_path, {"0": {"content": "x"}}, {"one": "x"}))
    with pytest.raises(kf.FusionError, match="Expected a vocabulary.*tokenizer_config.json"):
        interop.plan_fusion(folders, norm="rule")


def test_names_that_would_end_a_cell_of_the_card(tmp_path):
    folder = tiny.write(tmp_path / "a|b\nc", tiny.GPT2, tiny.gpt2())
    interop.plan_fusion([folder, folder]).write(tmp_path / "fused")
    card = (tmp_path / "fused" / "README.md").read_text("utf-8")
    assert "| a\\|b c | 1 | model.safetensors |" in card


@pytest.mark.parametrize("grow", ["mlp", ["mlp"], {}, {"mlp": "2"}])
def test_growths_that_are_none(gpt2, grow):
    with pytest.raises(kf.FusionError, match="axes grow by integers.*give a dictionary"):
        interop.plan_fusion([gpt2], grow=grow)


@pytest.mark.parametrize("size", ["5GB", 0, 1.5])
def test_sizes_of_shards_that_are_none(tmp_path, gpt2, size):
    plan = interop.plan_fusion([gpt2, gpt2])
    with pytest.raises(kf.FusionError, match=f"number of bytes. Received: .*{size}"):
        plan.write(tmp_path / "fused", max_shard_size=size)
    assert not (tmp_path / "fused").exists()


def test_an_output_that_is_no_path(gpt2):
    with pytest.raises(kf.FusionError, match="Leave out the NUL"):
        interop.plan_fusion([gpt2, gpt2]).write("a\0b")


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
