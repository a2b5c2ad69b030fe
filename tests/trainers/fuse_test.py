"""The fusing binary: what it writes, that it can be a source again, and what it prints."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.layers.tree import values_of
from tests.trainers import nano
from trainers import fuse
from trainers.checkpoints import models
from trainers.data.batches import PretrainingBatches
from trainers.engines.state import state_variables
from trainers.errors import UserError

SMALL = kf.models.T5Config(
    vocabulary_size=128,
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    key_value_dim=4,
    intermediate_dim=16,
)
BATCH = {
    "encoder_token_ids": np.arange(24, dtype="int32").reshape(2, 12),
    "decoder_token_ids": np.arange(10, dtype="int32").reshape(2, 5),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuse")
    for seed, name in enumerate("ab"):
        models.save_model(kf.models.T5(SMALL, seed=seed), folder / name, {})
    return folder


def run(folder, names, output, *arguments):
    paths = ",".join(str(folder / name) for name in names)
    return fuse.fuse(nano.config_of(fuse, f"--sources={paths}", f"--output={output}", *arguments))


def logits(path):
    model, _ = models.load_model(path)
    return keras.ops.convert_to_numpy(model(BATCH))


def test_written_model_is_the_mean_of_its_sources(sources, tmp_path, capsys):
    written = run(sources, "ab", tmp_path / "c")
    assert written == tmp_path / "c" / "checkpoints" / "step_00000000"
    mean = (logits(sources / "a") + logits(sources / "b")) / 2
    np.testing.assert_allclose(logits(tmp_path / "c"), mean, atol=1e-5 * np.abs(mean).max())
    small, big = (
        kf.models.parameter_count(config) for config in (SMALL, SMALL.fused([SMALL], "rule"))
    )
    output = capsys.readouterr().out
    assert output.count(f"step 0: {small:,} parameters") == 2
    assert f"fused, norm=property, noise=0.0: {big:,} parameters" in output
    assert f"Wrote {written}" in output


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        ((), {}),
        (("--norm=rule", "--noise=0.3", "--seed=4"), {"norm": "rule", "noise": 0.3, "seed": 4}),
        (
            ("--noise=0.3", "--noise_kind=balanced"),
            {"noise": 0.3, "noise_kind": "balanced"},
        ),
    ],
)
def test_written_bits_are_those_of_fusing_models(sources, tmp_path, arguments, how):
    run(sources, "ab", tmp_path / "c", *arguments)
    a, b = (models.load_model(sources / name)[0] for name in "ab")
    checkpoint = models.find_checkpoint(tmp_path / "c")
    expected = state_variables(a.fuse(b, **how))
    written = checkpoint.state()
    assert written.keys() == expected.keys()
    for name, variable in expected.items():
        np.testing.assert_array_equal(written[name], variable, err_msg=name)


def test_no_model_is_built_to_write_one(sources, tmp_path, monkeypatch):
    """Its memory is that of one weight: nothing holds values but the arrays of the files."""
    initialized = []
    for method in ("_initialize", "_initialize_with_initializer"):
        monkeypatch.setattr(keras.Variable, method, lambda self, _: initialized.append(self.path))
    run(sources, "ab", tmp_path / "c", "--noise=0.1")
    assert not initialized


def test_a_fused_model_is_a_source_again(sources, tmp_path):
    first = run(sources, "ab", tmp_path / "c")
    paths = f"{first},{sources / 'a'}"
    fuse.fuse(nano.config_of(fuse, f"--sources={paths}", f"--output={tmp_path / 'd'}"))
    model, _ = models.load_model(tmp_path / "d")
    assert model.config.norm_groups == (8, 8, 8)
    expected = (logits(first) + logits(sources / "a")) / 2
    np.testing.assert_allclose(logits(tmp_path / "d"), expected, atol=1e-4)


def test_named_twice_is_fused_with_itself(sources, tmp_path):
    run(sources, "aa", tmp_path / "c", "--norm=rule", "--noise=0.1", "--noise_kind=balanced")
    np.testing.assert_allclose(logits(tmp_path / "c"), logits(sources / "a"), atol=1e-4)


@pytest.mark.parametrize(
    "growth", [{"mlp": 3}, {"hidden": 2, "heads": 3}], ids=lambda growth: "_".join(growth)
)
def test_some_axes_of_a_checkpoint_grow(sources, tmp_path, growth):
    flag = ",".join(f"{axis}:{factor}" for axis, factor in growth.items())
    written = run(sources, "a", tmp_path / "c", f"--grow={flag}", "--noise=0.2", "--seed=7")
    np.testing.assert_allclose(logits(tmp_path / "c"), logits(sources / "a"), atol=1e-4)
    small = models.load_model(sources / "a")[0]
    grown = kf.grow(small, growth, noise=0.2, seed=7)
    checkpoint = models.find_checkpoint(tmp_path / "c")
    assert models.read_config(checkpoint) == grown.config
    for name, array in values_of([grown])[0].items():
        np.testing.assert_array_equal(checkpoint.weights[name], array, err_msg=name)
    settings = json.loads((written / "manifest.json").read_text())["config"]["settings"]
    assert settings["fusion"]["grow"] == growth


def test_a_checkpoint_with_grouped_norms_grows(sources, tmp_path):
    run(sources, "ab", tmp_path / "c")
    run(tmp_path, "c", tmp_path / "d", "--grow=hidden:2", "--noise=0.1")
    assert models.load_model(tmp_path / "d")[0].config.norm_groups == (8, 8) * 2
    np.testing.assert_allclose(logits(tmp_path / "d"), logits(tmp_path / "c"), atol=1e-4)


def test_a_growth_that_is_checked(sources, tmp_path, capsys):
    data_dir = nano.write_tokens(tmp_path / "tokens")
    check = (f"--check_data_dir={data_dir}", "--batch_size=2", "--input_length=16")
    run(sources, "a", tmp_path / "c", "--grow=mlp:2", "--noise=0.1", *check)
    output = capsys.readouterr().out
    size = kf.models.parameter_count(dataclasses.replace(SMALL, intermediate_dim=32))
    assert f"growth of mlp by 2, noise=0.1: {size:,} parameters" in output
    assert "of the source, " in output and "0.0000" in output.split("validation batch")[1]


@pytest.mark.parametrize("flag", ["--verify", "--max_shard_size=1GB"])
def test_what_checkpoints_leave_unread_is_refused(sources, tmp_path, flag):
    with pytest.raises(UserError, match="with sources of keras_fusion"):
        run(sources, "ab", tmp_path / "c", flag)
    assert not (tmp_path / "c").exists()


def test_says_where_it_comes_from(sources, tmp_path):
    written = run(sources, "ab", tmp_path / "c", "--norm=rule", "--noise=0.5", "--seed=3")
    settings = json.loads((written / "manifest.json").read_text())["config"]["settings"]
    assert settings["fusion"]["norm"] == "rule"
    assert (settings["fusion"]["noise"], settings["fusion"]["seed"]) == (0.5, 3)
    assert [source["step"] for source in settings["fusion"]["sources"]] == [0, 0]
    assert settings["model"]["hidden_dim"] == 16


def test_check_says_by_how_much_the_loss_moves(sources, tmp_path, capsys):
    data_dir = nano.write_tokens(tmp_path / "tokens")
    assert PretrainingBatches(data_dir, "train", 2, 16).vocabulary_size == SMALL.vocabulary_size
    check = (f"--check_data_dir={data_dir}", "--batch_size=2", "--input_length=16")
    run(sources, "ab", tmp_path / "c", *check)
    exact = capsys.readouterr().out
    run(sources, "ab", tmp_path / "d", "--norm=rule", *check)
    moved = capsys.readouterr().out
    assert exact.count("loss per token of ") == 2
    assert "(+0.0000" in exact or "(-0.0000" in exact
    assert "fused, on one validation batch: loss" in moved
    assert "0.0000" not in moved.split("validation batch")[1]
    run(sources, "ab", tmp_path / "e", "--norm=rule", "--objective=prefix_lm", *check)
    assert (
        capsys.readouterr().out.split("validation batch")[1] != moved.split("validation batch")[1]
    )


def test_sources_stay_as_they_are(sources, tmp_path):
    before = nano.content(sources)
    run(sources, "ab", tmp_path / "c")
    assert nano.content(sources) == before


def test_what_a_killed_fusion_left_is_no_output(tmp_path):
    def config(output):
        return fuse.FuseConfig(sources=("a", "b"), output=str(output))

    left = tmp_path / "left" / "checkpoints" / ".partial_step_00000000_0123"
    left.mkdir(parents=True)
    assert config(tmp_path / "left").output
    (left.parent / "step_00000000").mkdir()
    with pytest.raises(UserError, match="which holds something"):
        config(tmp_path / "left")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(UserError, match="which holds something"):
        config(tmp_path / "other")
