"""Fused folders load as their stock classes in transformers, and compute the mean of the sources'.

Every family, at a tiny size with random weights. Needs torch and transformers.
"""

import functools
import json
import re

import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion import interop
from keras_fusion.interop import verifying
from tests import models_table
from tests.interop import models

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")


# Rounding in single precision, through a few layers.
TOLERANCE = models_table.EXACT
SEEDS = {"a": 0, "b": 1}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Function of a case that returns folders of two models of it, and the outputs of both."""

    @functools.cache
    def sources(name):
        folder = tmp_path_factory.mktemp(name)
        folders = [models.save(name, folder / letter, seed) for letter, seed in SEEDS.items()]
        return folders, [outputs(folder) for folder in folders]

    return sources


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


def first_copy(array, expected):
    """The first copy of hidden units that stand side by side; logits as they are."""
    if array.shape == expected.shape:
        return array
    first, *others = np.split(array, array.shape[-1] // expected.shape[-1], axis=-1)
    assert all(distance(other, first) < TOLERANCE for other in others)
    return first


def self_fusion(name, sources, output):
    (source, _), (expected, _) = sources(name)
    interop.plan_fusion([source] * 2).write(output, check=verifying.verify)
    assert "Loaded by transformers" in (output / "README.md").read_text()
    # Without a head of its own, a tied one reads the hidden units, with the factor of the mean.
    factor = 0.5 if name == "gpt2_bare" else 1
    return distance(first_copy(outputs(output), expected), factor * expected)


def rule(name, sources, output):
    folders, expected = sources(name)
    plan = interop.plan_fusion(folders, norm="rule")
    assert not plan.is_exact
    plan.write(output)
    assert "It is not exact" in (output / "README.md").read_text()
    result = outputs(output)
    assert np.all(np.isfinite(result))
    mean = sum(expected) / 2
    return distance(result, mean) if result.shape == mean.shape else 0.0


def property_(name, sources, output):
    folders, _ = sources(name)
    interop.plan_fusion(folders).write(output)


def grown(axis):
    def grown(name, sources, output):
        (source, _), (expected, _) = sources(name)
        interop.plan_fusion([source], grow={axis: 2}).write(output)
        return distance(outputs(output), expected)

    return grown


OPERATIONS = {
    "self_fusion": self_fusion,
    "rule": rule,
    "property": property_,
    "mlp": grown("mlp"),
    "heads": grown("heads"),
}


@pytest.mark.filterwarnings("ignore:.*norms that all heads share")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_cell(family, operation, sources, note_model, tmp_path):
    """A cell of the table in docs/models.md: a gap, or the reason of a refusal."""
    measured = []
    for name in models.FAMILIES[family]:
        try:
            measured.append(OPERATIONS[operation](name, sources, tmp_path / name))
        except kf.FusionError as error:
            measured.append(reason(error))
    if isinstance(measured[0], str):
        assert len(set(measured)) == 1 and operation in ("property", "heads")
    elif operation != "rule":
        assert max(measured) < TOLERANCE
    note_model(family, "transformers", operation, max(measured))


def reason(error):
    """A refusal's text, without what is of one class alone."""
    text = str(error).removeprefix("cannot fuse: ").partition(" Received")[0].rstrip(".")
    return re.sub(r"\b[A-Z]\w+(Model|LM|Generation|Classification)\b", "these classes", text)


CLASSES = [
    name
    for family in kf.families.families().values()
    if family.transformers
    for name in family.transformers.class_names
]


@pytest.mark.parametrize("class_name", CLASSES)
def test_what_transformers_saves_is_complete(tmp_path, class_name):
    """Of every class in the tables: nothing that a folder must hold is asked for in vain."""
    model = getattr(transformers, class_name)
    config_name = model.config_class.__name__
    fields = next(own for _, name, own in models.CASES.values() if name == config_name)
    model(model.config_class(**fields)).save_pretrained(tmp_path / "a")
    plan = interop.plan_fusion([tmp_path / "a"] * 2)
    assert plan.sources[0].class_name == class_name and plan.parameters > 0


@pytest.mark.parametrize("name", models.CASES)
def test_three_copies(name, sources, tmp_path):
    (source, _), (expected, _) = sources(name)
    interop.plan_fusion([source] * 3).write(tmp_path / "c")
    factor = 1 / 3 if name == "gpt2_bare" else 1
    assert distance(first_copy(outputs(tmp_path / "c"), expected), factor * expected) < TOLERANCE


@pytest.mark.filterwarnings("ignore:.*norms that all heads share")
@pytest.mark.parametrize("name", models.CASES)
def test_the_rule_of_equal_models_is_exact(name, sources, tmp_path):
    """The same weights in two folders: what `rule` adds to self-fusion are the mean's weights."""
    (source, _), (expected, _) = sources(name)
    twin = models.save(name, tmp_path / "twin", SEEDS["a"])
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
