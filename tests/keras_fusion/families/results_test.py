"""A fused model is one like any other: it saves, loads, generates, trains, adapts."""

import functools
import os
import pathlib
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.families.grouped import GroupedModel
from keras_fusion.interop import presets
from tests.keras_fusion.families import stock

pytestmark = pytest.mark.one_backend

GPT2 = stock.BY_NAME["GPT2CausalLM"]
LLAMA = stock.BY_NAME["LlamaCausalLM"]
TASKS = [case for case in stock.FAMILIES if case.task]
# KerasHub's Gemma 3 generates with a preprocessor alone.
GENERATING = [
    case
    for case in TASKS
    if case.task.endswith("LM") and "Masked" not in case.task and case.family != "Gemma 3"
]
SLOW = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[3]


def widened(model):
    """A model fused with itself, whose copies part."""
    return kf.self_fuse(model, 2, fill="copies", asymmetry=0.1)


def same(model, other, feeds, tolerance=1e-6):
    assert stock.gap(other, stock.logits(model, feeds), feeds) <= tolerance


def targets(model, feeds):
    """Targets of a batch, for the task's default loss."""
    shape = model.compute_output_shape(keras.tree.map_structure(np.shape, feeds))[:-1]
    return np.random.default_rng(0).integers(0, 5, shape)


def test_gpt2_comes_back_as_it_went_in(tmp_path):
    """A preprocessor, frozen layers, a sampler, a preset."""
    model = stock.make(GPT2, preprocessor=stock.preprocessor(), num_layers=1)
    model.backbone.token_embedding.trainable = False
    model.compile(sampler="greedy", run_eagerly=True)
    wide = widened(model)
    assert wide.preprocessor is model.preprocessor and wide.sampler is model.sampler
    assert not wide.backbone.token_embedding.trainable
    names = [[v.path for v in m.trainable_variables] for m in (model, wide)]
    assert names[0] == names[1]
    text = model.generate("abc", stop_token_ids=None)
    assert wide.generate("abc", stop_token_ids=None) == text != "abc"
    wide.save_to_preset(tmp_path / "preset")
    loaded = keras_hub.models.CausalLM.from_preset(str(tmp_path / "preset"))
    assert type(loaded) is keras_hub.models.GPT2CausalLM
    feeds = stock.inputs(model)
    same(model, loaded, feeds, 1e-5)
    same(model, presets.load_preset(tmp_path / "preset"), feeds, 1e-5)
    loaded.compile(sampler="greedy", run_eagerly=True)
    assert loaded.generate("abc", stop_token_ids=None) == text


def test_the_measures_know_it():
    model = stock.source(GPT2)
    wide = kf.self_fuse(model, 2, noise=0.1)
    assert kf.symmetry(wide) == 0
    assert kf.eta_share(wide) == pytest.approx(0.1, rel=0.1)
    report = kf.report(wide)
    assert len(report.weights) == len([w for w in wide.weights])
    query = next(row for row in report.weights if row.path.endswith("query/kernel"))
    assert query.sources == ((12, 3, 4), (12, 3, 4)) and query.shape == (24, 6, 4)
    assert query.operation == "blocks" and query.eta == 0.5


def test_the_fusion_gap_of_tasks():
    a = stock.make(GPT2, preprocessor=stock.preprocessor(), num_layers=1)
    b = stock.make(GPT2, 1, num_layers=1)
    batch = a.preprocessor(["abcdef", "fedcba"])
    twin = kf.fusion_gap(kf.self_fuse(a, 2, noise=0.5), [a, a], batch)
    assert twin.sources[0] == twin.sources[1] == twin.mean != twin.fused
    exact = kf.fusion_gap(kf.fuse([a, b], weights=[0.7, 0.3]), [a, b], batch, [0.7, 0.3])
    assert abs(exact.fused - exact.mean) < 1e-4 and exact.logits < 1e-5
    assert exact.sources[0] == twin.sources[0]
    # The loss by hand: targets that the preprocessor gives a weight count.
    inputs, labels, weights = batch
    logits = (0.7 * np.asarray(a(inputs)) + 0.3 * np.asarray(b(inputs))).astype("float64")
    log_z = np.log(np.exp(logits).sum(-1))
    losses = log_z - np.take_along_axis(logits, np.asarray(labels)[..., None], -1)[..., 0]
    weights = np.asarray(weights).astype("float64")
    assert exact.mean == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-5)
    named = {"targets": np.asarray(labels), **inputs}
    assert kf.fusion_gap(a, [a, a], named).logits == 0
    with pytest.raises(kf.FusionError, match="`targets`.* Received: .*padding_mask"):
        kf.fusion_gap(a, [a, a], inputs)
    with pytest.raises(kf.FusionError, match="pass tasks in place of their backbones"):
        kf.fusion_gap(a.backbone, [a.backbone] * 2, (inputs, np.zeros(3)))


def test_nothing_random_is_made_for_the_wide_model(monkeypatch):
    model, other, made = stock.source(GPT2), stock.source(GPT2, seed=1), []
    for name in ("RandomNormal", "RandomUniform", "GlorotUniform", "TruncatedNormal"):
        initializer = getattr(keras.initializers, name)

        def counted(self, shape, *args, original=initializer.__call__, **kwargs):
            made.append(shape)
            return original(self, shape, *args, **kwargs)

        monkeypatch.setattr(initializer, "__call__", counted)
    stock.make(GPT2, num_layers=1)
    assert made
    made.clear()
    widened(model)
    kf.fuse([model, other])
    assert made == []


@pytest.mark.parametrize(
    ("name", "widen"),
    [
        ("GPT2CausalLM", functools.partial(kf.self_fuse, n=2)),
        pytest.param("GPT2CausalLM", functools.partial(kf.grow, mlp=2), marks=SLOW),
        pytest.param("Qwen3CausalLM", functools.partial(kf.grow, heads=2), marks=SLOW),
        *(
            pytest.param(name, functools.partial(kf.self_fuse, n=2), marks=SLOW)
            for name in ("LlamaCausalLM", "GemmaCausalLM")
        ),
    ],
)
def test_the_optimizers_state_is_that_of_the_wide_model(name, widen):
    """Adam's first moment after one step without motion is (1 - β₁) times the gradient."""
    case = stock.BY_NAME[name]
    model = stock.make(case, num_layers=1)
    feeds = stock.inputs(model)
    labels = targets(model, feeds)

    def train(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.0), loss, run_eagerly=True)
        model.train_on_batch(feeds, labels)
        return model

    def moments(model):
        slots = {slot.path.rpartition("/")[-1]: slot for slot in model.optimizer.variables}
        return {
            variable.path: np.asarray(slots[f"{variable.path.replace('/', '_')}_momentum"])
            for variable in model.trainable_variables
        }

    grown = widen(train(model), optimizer="grow")
    assert int(grown.optimizer.iterations) == 1
    got, expected = moments(grown), moments(train(widen(model)))
    for path, value in expected.items():
        np.testing.assert_allclose(got[path], value, atol=1e-6, rtol=1e-4, err_msg=path)
    assert sum(np.abs(value).max() > 1e-5 for value in expected.values()) > 10
    before = np.asarray(grown.trainable_variables[0])
    grown.optimizer.learning_rate = 0.01
    for _ in range(2):
        assert np.all(np.isfinite(grown.train_on_batch(feeds, labels)))
    assert np.abs(np.asarray(grown.trainable_variables[0]) - before).max() > 1e-3


@SLOW
@pytest.mark.parametrize("case", TASKS, ids=str)
def test_a_wide_task_saves_loads_trains_and_adapts(case, tmp_path):
    model = stock.source(case)
    feeds = stock.inputs(model)
    wide = widened(model)
    wide.save(tmp_path / "task.keras")
    loaded = keras.models.load_model(tmp_path / "task.keras")
    assert type(loaded) is type(model)
    same(wide, loaded, feeds)
    wide.save_to_preset(str(tmp_path / "preset"))
    same(wide, type(model).from_preset(str(tmp_path / "preset")), feeds)
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    assert type(backbone) is type(model.backbone)
    wide.compile("adam", wide.loss, run_eagerly=True)
    history = wide.fit(feeds, targets(wide, feeds), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert stock.gap(wide, stock.logits(model, feeds), feeds) > 1e-5
    names = loaded.backbone.default_lora_layer_names()
    loaded.backbone.enable_lora(2, [*names, "query_projector", "value_projector"])
    same(model, loaded, feeds, 1e-5)
    assert any("lora" in v.path for v in loaded.backbone.trainable_variables)


@SLOW
@pytest.mark.parametrize("case", GENERATING, ids=str)
def test_a_wide_task_generates_the_same_tokens(case):
    model = stock.make(case)
    feeds = stock.inputs(model)
    for name, mask in feeds.items():
        if name.endswith("padding_mask"):
            mask[:, 3:] = 0
    texts = []
    for task in (model, widened(model)):
        task.compile(sampler="greedy", run_eagerly=True)
        copied = {name: value.copy() for name, value in feeds.items()}
        texts.append(task.generate(copied, stop_token_ids=None))
    assert texts[0].keys() == texts[1].keys()
    for name in texts[0]:
        np.testing.assert_array_equal(texts[0][name], texts[1][name])


@SLOW
@pytest.mark.parametrize("case", [GPT2, stock.BY_NAME["BertMaskedLM"], LLAMA], ids=str)
def test_a_task_with_grouped_norms_saves_loads_trains_and_generates(case, tmp_path):
    a, b = stock.source(case), stock.source(case, seed=1, other=True)
    feeds = stock.inputs(a)
    expected = stock.mean_logits([a, b], feeds)
    fused = kf.fuse([a, b])
    assert isinstance(fused.backbone, type(a.backbone))
    fused.save(tmp_path / "task.keras")
    fused.save_to_preset(str(tmp_path / "preset"))
    for loaded in (
        keras.models.load_model(tmp_path / "task.keras"),
        kf.families.load_preset(tmp_path / "preset"),
    ):
        assert loaded.backbone.group_widths == (a.backbone.hidden_dim, b.backbone.hidden_dim)
        assert stock.gap(loaded, expected, feeds) <= 1e-5
    if case in GENERATING:
        fused.compile(sampler="greedy", run_eagerly=True)
        tokens = fused.generate(dict(feeds), stop_token_ids=None)["token_ids"]
        assert np.shape(tokens) == np.shape(feeds["token_ids"])
    fused.compile(keras.optimizers.Adam(0.01), fused.loss, run_eagerly=True)
    history = fused.fit(feeds, targets(fused, feeds), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert stock.gap(fused, expected, feeds) > 1e-5


@SLOW
@pytest.mark.parametrize("case", [GPT2, LLAMA, stock.BY_NAME["GemmaCausalLM"]], ids=str)
def test_a_wide_task_is_quantised(case):
    model = stock.source(case)
    feeds = stock.inputs(model)
    wide = widened(model)
    wide.quantize("int8")
    assert stock.gap(wide, stock.logits(model, feeds), feeds) <= 0.2
    with pytest.raises(kf.FusionError, match="quantised"):
        kf.self_fuse(wide, 2)


@SLOW
@pytest.mark.parametrize("case", [GPT2, LLAMA, stock.BY_NAME["BertTextClassifier"]], ids=str)
def test_mixed_precision_stays(case):
    model = stock.make(case, dtype="mixed_bfloat16")
    feeds = stock.inputs(model)
    wide = widened(model)
    assert wide.dtype_policy.name == "mixed_bfloat16" and wide.weights[0].dtype == "float32"
    assert stock.gap(wide, stock.logits(model, feeds), feeds) <= 0.1


def test_a_tied_llama_is_loaded_with_its_tie(tmp_path):
    """KerasHub's configuration of a Llama leaves it out, of a wide one as of any other."""
    model = stock.source(stock.BY_NAME["LlamaCausalLM-tied"])
    wide = widened(model)
    assert wide.backbone.tie_word_embeddings
    wide.backbone.save_to_preset(str(tmp_path))
    loaded = keras_hub.models.Backbone.from_preset(str(tmp_path), tie_word_embeddings=True)
    feeds = stock.inputs(model)
    np.testing.assert_allclose(loaded(feeds), wide.backbone(feeds), atol=1e-6)


LOADING = """
import sys
import keras
import numpy as np
import keras_fusion as kf
kind, folder = sys.argv[1:]
feeds = dict(np.load(f"{folder}/feeds.npz"))
if kind == "stock":
    import keras_hub
    model = keras_hub.models.CausalLM.from_preset(f"{folder}/preset")
elif kind == "grouped":
    model = kf.families.load_preset(f"{folder}/preset")
else:
    model = keras.models.load_model(f"{folder}/task.keras")
np.save(f"{folder}/{kind}.npy", keras.ops.convert_to_numpy(model(feeds)))
"""


@SLOW
def test_a_fresh_process_loads_them(tmp_path):
    a, b = stock.source(GPT2), stock.source(GPT2, seed=1, other=True)
    feeds = stock.inputs(a)
    expected = {"stock": stock.logits(a, feeds)}
    expected["grouped"] = expected["keras"] = stock.mean_logits([a, b], feeds)
    folders = {"stock": tmp_path / "a", "grouped": tmp_path / "b", "keras": tmp_path / "b"}
    widened(a).save_to_preset(str(folders["stock"] / "preset"))
    fused = kf.fuse([a, b])
    fused.save_to_preset(str(folders["grouped"] / "preset"))
    fused.save(folders["keras"] / "task.keras")
    for kind, folder in folders.items():
        np.savez(folder / "feeds.npz", **feeds)
        subprocess.run(
            [sys.executable, "-c", LOADING, kind, str(folder)],
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        np.testing.assert_allclose(np.load(folder / f"{kind}.npy"), expected[kind], atol=1e-4)


def test_balanced_noise_of_a_grown_mlp_keeps_the_function():
    model = stock.source(GPT2)
    wide = kf.grow(model, mlp=2, noise=0.5)
    feeds = stock.inputs(model)
    same(model, wide, feeds, 1e-5)
    assert kf.symmetry(wide) > 0.01 and kf.symmetry(kf.grow(model, mlp=2)) == 0


def test_a_float64_pair_passes_the_check():
    pair = [stock.make(GPT2, seed, dtype="float64", num_layers=1) for seed in (0, 1)]
    assert kf.fuse(pair).backbone.group_widths


def test_a_growth_keeps_the_record_of_the_fusion_before():
    fused = kf.self_fuse(stock.source(GPT2), 2, noise=0.1, noise_kind="balanced")
    grown = kf.grow(fused, mlp=2)
    assert 0 < kf.symmetry(grown) < 2 * kf.symmetry(fused)


@pytest.mark.parametrize("name", ["this>Nothing", "keras_hub>Nothing"])
def test_a_file_does_not_say_what_is_imported(name):
    sys.modules.pop("this", None)
    with pytest.raises(kf.FusionError, match=f"Received: '{name}'; import the module"):
        GroupedModel.from_config({"stock_class": name, "group_widths": [1, 1]})
    assert "this" not in sys.modules


def test_a_folder_that_is_no_preset(tmp_path):
    with pytest.raises(kf.FusionError, match="Expected a preset with config.json"):
        kf.families.load_preset(tmp_path)
