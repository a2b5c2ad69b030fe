"""Fused folders load as their stock classes in transformers, and compute the mean of the sources'.

Every family, at a tiny size with random weights. Needs torch and transformers.
"""

import json

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion import interop
from keras_fusion.interop import verifying
from tests.interop import models

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")


# Rounding in single precision, through a few layers.
TOLERANCE = 1e-5
# Classes whose heads cannot grow alone: the size of a head is the hidden size over their number.
JOINT_HEADS = ("bert", "roberta", "distilbert", "gpt2", "opt", "bart", "vit", "whisper")


@pytest.fixture(scope="module", params=models.CASES)
def case(request, tmp_path_factory):
    """Name of the case, and folders of two models with different weights."""
    folder = tmp_path_factory.mktemp(request.param)
    sources = [models.save(request.param, folder / name, seed) for seed, name in enumerate("ab")]
    return request.param, sources, outputs(sources[0]), folder


def outputs(folder):
    """Logits or hidden units of the folder's stock class; every weight comes from its files."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert type(model).__name__ == name
    assert not any(info.values()), info
    generator, config = torch.Generator().manual_seed(5), model.config
    tokens = torch.randint(3, 23, (2, 7), generator=generator)
    inputs = {"input_ids": tokens}
    if model.main_input_name == "pixel_values":
        inputs = {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    elif model.main_input_name == "input_features":
        inputs = {"input_features": torch.randn(2, 9, 8, generator=generator)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens[:, :5]
    with torch.no_grad():
        result = model.eval()(**inputs)
    return (result.logits if "logits" in result else result.last_hidden_state).numpy()


def distance(result, expected):
    return np.max(np.abs(result - expected)) / np.max(np.abs(expected))


def copies_of(array, expected):
    """The first copy of hidden units that stand side by side, in the scale of `expected`."""
    if array.shape == expected.shape:
        return array
    first, *others = np.split(array, array.shape[-1] // expected.shape[-1], axis=-1)
    assert all(distance(other, first) < TOLERANCE for other in others)
    return first


@pytest.mark.parametrize("copies", [2, 3])
def test_self_fusion(case, copies):
    name, (source, _), expected, folder = case
    output = folder / f"self_{copies}"
    check = verifying.verify if copies == 2 else None
    interop.plan_fusion([source] * copies).write(output, check=check)
    factor = 1 if name != "gpt2_bare" else 1 / copies
    result = copies_of(outputs(output), expected)
    assert distance(result, factor * expected) < TOLERANCE
    assert (copies == 2) == ("Loaded by transformers" in (output / "README.md").read_text())


def test_the_mlps_grow(case):
    _, (source, _), expected, folder = case
    interop.plan_fusion([source], grow={"mlp": 2}).write(folder / "mlp")
    assert distance(outputs(folder / "mlp"), expected) < TOLERANCE


def test_the_heads_grow(case):
    name, (source, _), expected, folder = case
    if name.startswith(JOINT_HEADS):
        with pytest.raises(kf.FusionError, match="grow together"):
            interop.plan_fusion([source], grow={"heads": 2})
        return
    interop.plan_fusion([source], grow={"heads": 2}).write(folder / "heads")
    assert distance(outputs(folder / "heads"), expected) < TOLERANCE


@pytest.mark.filterwarnings("ignore:.*norms that all heads share")
def test_the_rule_gives_a_stock_model(case):
    """Its function is near the sources' at best; that it is as wide, and loads, is what counts."""
    _, sources, expected, folder = case
    plan = interop.plan_fusion(sources, norm="rule")
    assert not plan.is_exact
    plan.write(folder / "rule", check=verifying.verify)
    result = outputs(folder / "rule")
    assert np.all(np.isfinite(result)) and distance(copies_or_same(result, expected), expected) > 0
    text = (folder / "rule" / "README.md").read_text()
    assert "It is not exact" in text and "within" in text


def copies_or_same(result, expected):
    return result if result.shape == expected.shape else result[..., : expected.shape[-1]]


@pytest.mark.filterwarnings("ignore:.*norms that all heads share")
def test_the_rule_of_equal_models_is_exact(case, tmp_path):
    """The same weights in two folders: what `rule` adds to self-fusion are the mean's weights."""
    name, (source, _), expected, _ = case
    twin = models.save(name, tmp_path / "twin", seed=0)
    interop.plan_fusion([source, twin], norm="rule", weights=(0.25, 0.75)).write(tmp_path / "c")
    result = outputs(tmp_path / "c")
    if result.shape == expected.shape:
        assert distance(result, expected) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "gemma2", "t5", "gpt2"])
def test_bfloat16(tmp_path, name):
    source = models.save(name, tmp_path / "a", dtype="bfloat16")
    interop.plan_fusion([source] * 2).write(tmp_path / "b", check=verifying.verify)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    # In single precision all that is off are the factors' roundings.
    most = 1e-5 if name in ("llama", "gpt2") else 1e-2
    assert distance(outputs(tmp_path / "b"), outputs(source)) < most


def test_the_same_tokens_are_generated(tmp_path):
    source = models.save("llama", tmp_path / "a")
    interop.plan_fusion([source] * 2).write(tmp_path / "b")
    tokens = [
        transformers.LlamaForCausalLM.from_pretrained(folder)
        .generate(torch.tensor([[1, 5, 7]]), max_new_tokens=8, do_sample=False)
        .tolist()
        for folder in (source, tmp_path / "b")
    ]
    assert tokens[0] == tokens[1]


def test_a_wrong_result_is_found_and_not_left(tmp_path):
    source = models.save("gpt2", tmp_path / "a")
    plan = interop.plan_fusion([source] * 2)
    name = "transformer.ln_f.weight"
    plan.arrays[name] = np.asarray(plan.arrays[name]) * 2
    with pytest.raises(kf.FusionError, match="beyond the .* that rounding explains"):
        plan.write(tmp_path / "b", check=verifying.verify)
    assert not (tmp_path / "b").exists()
    plan.arrays[name] = np.ones(24, "float32")
    del plan.arrays["transformer.h.0.ln_1.weight"]
    with pytest.raises(kf.FusionError, match="finds no `transformer.h.0.ln_1.weight`"):
        plan.write(tmp_path / "b", check=verifying.verify)
