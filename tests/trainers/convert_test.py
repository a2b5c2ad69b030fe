"""T5s between checkpoints, KerasHub and transformers: weights, configurations, vocabularies."""

import functools
import json
import shutil

import keras
import ml_dtypes
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.families.notation import parse
from keras_fusion.interop import presets, t5, tensors
from tests.keras_fusion.interop import tiny_folders as tiny
from tests.trainers import nano
from trainers import convert
from trainers.checkpoints import models
from trainers.errors import UserError

# No two axes have equal sizes.
V1_1 = kf.models.T5Config(13, 2, 3, 8, 10, 5)
V1_0 = kf.models.T5Config(
    13, 1, 3, 8, 10, 5, activation="relu", use_gated_activation=False, tie_embedding_weights=True
)
BATCH = {
    "encoder_token_ids": np.arange(12, dtype="int32").reshape(2, 6),
    "decoder_token_ids": np.arange(8, dtype="int32").reshape(2, 4),
}
OF_KERAS_HUB = pytest.mark.filterwarnings("ignore:Layer '.*_attention'.*does not support masking")


def run(source, output, format):
    flags = (f"--source={source}", f"--output={output}", f"--format={format}")
    return convert.convert(nano.config_of(convert, *flags))


def logits(folder):
    model, _ = models.load_model(folder)
    return keras.ops.convert_to_numpy(model(BATCH))


@pytest.fixture
def save(tmp_path):
    def save(config):
        model = kf.models.T5(config, seed=0)
        rng = np.random.default_rng(0)
        for weight in model.weights:
            weight.assign(rng.normal(scale=0.3, size=weight.shape) + ("scale" in weight.path))
        models.save_model(model, tmp_path / "ours", {})
        return tmp_path / "ours"

    return save


@pytest.mark.parametrize(
    "config",
    # Of 1.0, t5_keras_hub_test.py compares the network, and a folder of transformers is below.
    [V1_1, pytest.param(V1_0, marks=pytest.mark.slow)],
    ids=["v1.1", "v1.0"],
)
@OF_KERAS_HUB
@pytest.mark.slow  # tests/interop/t5_test.py goes round
def test_there_and_back(tmp_path, save, config, monkeypatch):
    # Making one of KerasHub's takes seconds: what the conversion loads is compared below.
    monkeypatch.setattr(presets, "load_preset", functools.cache(presets.load_preset))
    source = save(config)
    run(source, tmp_path / "hf", "huggingface")
    run(tmp_path / "hf", tmp_path / "hub", "keras_hub")
    run(tmp_path / "hub", tmp_path / "back", "keras_fusion")
    before, after = (models.find_checkpoint(folder) for folder in (source, tmp_path / "back"))
    assert before.weights.keys() == after.weights.keys()
    for name, array in before.weights.items():
        np.testing.assert_array_equal(after.weights[name], array, err_msg=name)
    expected = logits(source)
    np.testing.assert_array_equal(logits(tmp_path / "back"), expected)
    # KerasHub computes the same.
    backbone = presets.load_preset(str(tmp_path / "hub"))
    assert presets.load_preset.cache_info().misses == 1
    masks = {
        name.replace("token_ids", "padding_mask"): np.ones_like(ids) for name, ids in BATCH.items()
    }
    hidden = backbone(BATCH | masks)["decoder_sequence_output"]
    if config.tie_embedding_weights:
        hidden = hidden * config.hidden_dim**-0.5
    theirs = keras.ops.convert_to_numpy(backbone.token_embedding(hidden, reverse=True))
    np.testing.assert_allclose(theirs, expected, rtol=1e-4, atol=1e-5)


def test_a_folder_of_transformers(tmp_path):
    source = tiny.t5(has_head=True)
    config = tiny.T5 | {"tie_word_embeddings": False, "feed_forward_proj": "gelu_new"}
    folder = tiny.write(tmp_path / "a", config, source)
    run(folder, tmp_path / "b", "keras_fusion")
    checkpoint = models.find_checkpoint(tmp_path / "b")
    fields = models.read_config(checkpoint)
    assert (fields.activation, fields.use_gated_activation) == ("gelu", False)
    assert (fields.dropout, fields.tie_embedding_weights) == (0.1, False)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    kernel = checkpoint.weights["encoder/block_0/self_attention/query/kernel"]
    np.testing.assert_array_equal(kernel, source[name].T)
    run(tmp_path / "b", tmp_path / "c", "huggingface")
    config, arrays = tiny.read(tmp_path / "c")
    assert arrays.keys() == source.keys()
    for name, array in source.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert config["tie_word_embeddings"] is False and config["d_ff"] == tiny.MLP
    assert config["architectures"] == ["T5ForConditionalGeneration"]


@pytest.fixture(
    scope="module",
    params=[ml_dtypes.bfloat16, pytest.param(np.float16, marks=pytest.mark.slow)],
    ids=["bfloat16", "float16"],
)
def longest_way(request, tmp_path_factory):
    """An untied T5 1.0 of small floats from transformers to ours, KerasHub's, ours, and back.

    Returns the folder of all five, and the arrays of the first.
    """
    folder, dtype = tmp_path_factory.mktemp("longest_way"), request.param
    source = {name: array.astype(dtype) for name, array in tiny.t5(has_head=True).items()}
    limits = ml_dtypes.finfo(dtype)
    source["lm_head.weight"][0, :3] = limits.max, limits.smallest_subnormal, -limits.eps
    first = tiny.write(folder / "hf", tiny.T5 | {"tie_word_embeddings": False}, {})
    (first / "model.safetensors").unlink()
    tensors.write(first / "model.safetensors", source, {"format": "pt"})
    tokens = nano.write_tokens(folder / "tokens")
    shutil.copy(tokens / "vocabulary.model", first / "spiece.model")
    run(folder / "hf", folder / "ours", "keras_fusion")
    run(folder / "ours", folder / "hub", "keras_hub")
    run(folder / "hub", folder / "again", "keras_fusion")
    run(folder / "again", folder / "back", "huggingface")
    return folder, source


@OF_KERAS_HUB
def test_every_value_is_what_it_was_after_the_longest_way(longest_way):
    folder, source = longest_way
    dtype = source["lm_head.weight"].dtype
    kernel = models.find_checkpoint(folder / "ours").weights["head/kernel"]
    assert kernel.dtype == dtype
    config, arrays = tiny.read(folder / "back")
    assert config["tie_word_embeddings"] is False and config["feed_forward_proj"] == "relu"
    assert config["dtype"] == "float32" and arrays.keys() == source.keys()
    for name, array in source.items():
        np.testing.assert_array_equal(arrays[name].astype(dtype), array, err_msg=name)
        np.testing.assert_array_equal(arrays[name], array.astype("float32"), err_msg=name)


@OF_KERAS_HUB
def test_the_vocabulary_goes_along(longest_way):
    folder, _ = longest_way
    vocabulary = (folder / "hf" / "spiece.model").read_bytes()
    assert (folder / "ours" / "vocabulary.model").read_bytes() == vocabulary
    (manifest,) = folder.glob("tokens/data/*/manifest.json")
    digest = json.loads(manifest.read_text())["vocabulary"]["sha256"]
    settings = models.find_checkpoint(folder / "ours").config["settings"]
    assert settings["vocabulary"] == digest
    assert (folder / "back" / "spiece.model").read_bytes() == vocabulary


def test_the_widest_dtype_is_that_of_the_configuration(tmp_path):
    """transformers casts to it what it loads."""
    source = tiny.t5()
    norm = "encoder.final_layer_norm.weight"
    small = {
        name: array if name == norm else array.astype("float16") for name, array in source.items()
    }
    run(tiny.write(tmp_path / "a", tiny.T5, small), tmp_path / "b", "huggingface")
    config, arrays = tiny.read(tmp_path / "b")
    assert config["dtype"] == "float32" and arrays[norm].dtype == "float32"


def test_weights_that_keras_hub_would_round_are_refused(tmp_path):
    source = {name: array.astype("float64") for name, array in tiny.t5().items()}
    folder = tiny.write(tmp_path / "a", tiny.T5, source)
    with pytest.raises(kf.FusionError, match="of float64. Convert them to float32 first"):
        run(folder, tmp_path / "b", "keras_hub")


def test_a_tied_head_without_scaled_logits_becomes_one_of_its_own(tmp_path):
    config = tiny.T5 | {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    folder = tiny.write(tmp_path / "a", config, tiny.t5())
    run(folder, tmp_path / "b", "keras_fusion")
    weights = models.find_checkpoint(tmp_path / "b").weights
    np.testing.assert_array_equal(weights["head/kernel"], tiny.t5()["shared.weight"].T)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feed_forward_proj": "gated-gelu_fast"}, "feed_forward_proj='gated-gelu_fast'"),
        ({"num_decoder_layers": 2}, "num_decoder_layers=2"),
        ({"feed_forward_proj": ["relu"]}, "feed_forward_proj=.'relu'."),
        ({"dropout_rate": "much"}, "a configuration of T5"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon=0"),
        ({"architectures": ["T5EncoderModel"]}, "a T5EncoderModel"),
        ({"architectures": ["LlamaForCausalLM"]}, "without the head of a Llama"),
    ],
)
def test_other_networks_are_refused(tmp_path, fields, message):
    folder = tiny.write(tmp_path / "a", tiny.T5 | fields, tiny.t5())
    with pytest.raises(kf.FusionError, match=message):
        run(folder, tmp_path / "b", "keras_fusion")
    assert not (tmp_path / "b").exists()


def test_grouped_norms_are_ours_alone(tmp_path):
    model = kf.models.T5(V1_1, seed=0)
    grouped = model.fuse(kf.models.T5(V1_1, seed=1))
    models.save_model(grouped, tmp_path / "ours", {})
    for format in ("huggingface", "keras_hub"):
        with pytest.raises(kf.FusionError, match=r"norm_groups=\(8, 8\). Fuse with norm='rule'"):
            run(tmp_path / "ours", tmp_path / "b", format)


def test_nothing_is_overwritten(tmp_path):
    with pytest.raises(UserError, match="--output to be a new folder"):
        run(tmp_path, tmp_path, "huggingface")
    with pytest.raises(UserError, match="--source to be given"):
        run("", tmp_path / "b", "huggingface")


def test_joined_axes_that_stand_in_another_order():
    source = np.arange(24).reshape(4, 6)
    sizes = {"heads": 3, "head_dim": 2}
    made = t5.rearranged(
        source, parse("hidden heads*head_dim"), parse("heads hidden head_dim"), sizes
    )
    np.testing.assert_array_equal(made, source.reshape(4, 3, 2).swapaxes(0, 1))
