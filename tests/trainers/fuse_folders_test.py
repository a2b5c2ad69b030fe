"""The fusing program with folders of transformers, presets, and vocabularies of checkpoints."""

import hashlib

import keras
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion import interop
from tests.keras_fusion.interop import tiny_folders as tiny
from tests.trainers import nano
from trainers import fuse
from trainers.checkpoints import models
from trainers.errors import UserError
from trainers.pretraining import fused_folders

SMALL = kf.models.T5Config(16, 1, 2, 8, 16, 4)


def run(tmp_path, sources, *arguments, output="fused", verify="--noverify"):
    sources = ",".join(str(tmp_path / name) for name in sources)
    flags = (f"--sources={sources}", f"--output={tmp_path / output}", verify, *arguments)
    return fuse.fuse(nano.config_of(fuse, *flags))


@pytest.fixture
def llamas(tmp_path):
    for seed, name in enumerate("ab"):
        tiny.write(tmp_path / name, tiny.LLAMA, tiny.llama(seed))
    return tmp_path


def test_folders_of_transformers_are_fused(llamas, capsys):
    assert run(llamas, "ab", "--norm=rule", "--max_shard_size=2KB") == llamas / "fused"
    config, arrays = tiny.read(llamas / "fused")
    assert config["hidden_size"] == 12
    name = "model.norm.weight"
    expected = np.concatenate([tiny.llama(0)[name], tiny.llama(1)[name]])
    np.testing.assert_array_equal(arrays[name], expected)
    assert len(list((llamas / "fused").glob("*.safetensors"))) > 1
    assert f"Wrote {llamas / 'fused'}" in capsys.readouterr().out


def test_some_axes_of_one_folder_grow(llamas):
    run(llamas, "a", "--grow=mlp:3,heads:2")
    config, _ = tiny.read(llamas / "fused")
    assert (config["intermediate_size"], config["num_attention_heads"]) == (30, 8)
    assert (config["hidden_size"], config["num_key_value_heads"], config["head_dim"]) == (6, 4, 3)


def test_a_dry_run_writes_nothing(llamas, capsys):
    assert run(llamas, "ab", "--norm=rule", "--dry_run") is None
    assert "hidden_size=12" in capsys.readouterr().out
    assert sorted(path.name for path in llamas.iterdir()) == ["a", "b"]


def test_what_cannot_be_verified_is_said(llamas, capsys, monkeypatch):
    monkeypatch.setattr(fused_folders.verifying, "obstacle", lambda plan: "torch is not installed")
    with pytest.raises(UserError, match="torch is not installed"):
        run(llamas, "aa", "--verify")
    sources = f"--sources={llamas / 'a'},{llamas / 'a'}"
    fuse.fuse(nano.config_of(fuse, sources, f"--output={llamas / 'fused'}"))
    assert "not verified: torch is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sources", "flag", "message"),
    [
        ("ab", "--grow=mlp:2", "Name one source"),
        ("a", "--grow=mlp", "Write it as mlp:2"),
        ("a", "--grow=mlp:1", "integers from 2 to 1,000"),
        ("a", "--grow=mlp:99999999", "integers from 2 to 1,000"),
        ("a", "--grow=norm:2", "of the axes mlp"),
        ("a", "--grow=mlp:2 --norm=rule", "the norms of one source are kept"),
        ("aa", "--max_shard_size=5XB", "max_shard_size='5XB'"),
        ("aa", "--max_shard_size=0GB", "Give a number with a unit"),
        ("a", "--norm=rule", "at least two folders"),
        ("ac", "--norm=rule", "sources of one library.*trainers.convert"),
        ("cc", "--grow=mlp:2", "two folders|one folder"),
        ("ab", "--check_data_dir=tokens", "check_data_dir='tokens' with sources of transformers"),
    ],
)
def test_flags_that_are_refused(llamas, sources, flag, message):
    (llamas / "c").mkdir()
    with pytest.raises(UserError, match=message):
        run(llamas, sources, *flag.split())


DAMAGED = {
    "missing": (None, r"config.json' \(No such file"),
    "empty": (b"", "config.json' .*Restore the file"),
    "broken": (b"{", "config.json' .*Restore the file"),
    "latin-1": ('{"a": "ä"}'.encode("latin-1"), "config.json' .*Restore the file"),
    "with a BOM": (b"\xef\xbb\xbf{}", "BOM"),
    "of no class": (b"{}", "architectures=None"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_configuration_is_said_to_be_that(llamas, case):
    content, message = DAMAGED[case]
    (llamas / "a" / "config.json").unlink()
    if content is not None:
        (llamas / "a" / "config.json").write_bytes(content)
    with pytest.raises(kf.FusionError, match=message):
        run(llamas, "aa")


OUTPUTS = {
    "under a file": ("a/config.json/fused", "Choose a path whose parents are folders"),
    "long": ("x" * 300, "Choose a shorter name"),
    "with a NUL": ("x\0y", "Correct --output"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_that_cannot_be_written(llamas, case):
    output, message = OUTPUTS[case]
    with pytest.raises(UserError, match=message):
        run(llamas, "aa", output=output)
    assert sorted(path.name for path in llamas.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(("text", "size"), [("7", 7), ("2kb", 2000), ("1.5GB", 15 * 10**8)])
def test_sizes(text, size):
    assert fused_folders.read_size("max_shard_size", text) == size


def test_checkpoints_of_two_vocabularies_are_refused(tmp_path):
    for seed, name in enumerate("abc"):
        words = "1234" * 16 if name == "c" else "abcd" * 16
        models.save_model(kf.models.T5(SMALL, seed=seed), tmp_path / name, {"vocabulary": words})
    run(tmp_path, "ab")
    assert models.find_checkpoint(tmp_path / "fused").config["settings"]["vocabulary"][:4] == "abcd"
    with pytest.raises(UserError, match="one vocabulary.*abcdabcdabcd….*123412341234…"):
        run(tmp_path, "ac", output="other")


def test_a_dry_run_of_checkpoints(tmp_path, capsys):
    models.save_model(kf.models.T5(SMALL, seed=0), tmp_path / "a", {})
    assert run(tmp_path, "aa", "--dry_run", "--noise=0.1") is None
    assert not (tmp_path / "fused").exists()
    assert f"{kf.models.parameter_count(SMALL.fused([SMALL], 'rule')):,} parameters" in (
        capsys.readouterr().out
    )


def test_presets_of_keras_hub(tmp_path, capsys):
    keras_hub = pytest.importorskip("keras_hub")
    sizes = {"num_layers": 1, "num_heads": 3, "hidden_dim": 6, "intermediate_dim": 10}
    for seed, name in enumerate("ab"):
        keras.utils.set_random_seed(seed)
        backbone = keras_hub.models.GPT2Backbone(vocabulary_size=11, max_sequence_length=7, **sizes)
        backbone.save_to_preset(str(tmp_path / name))
    tokens = {"token_ids": np.array([[1, 2, 3]]), "padding_mask": np.ones((1, 3), "int32")}

    def hidden(name):
        model = keras_hub.models.Backbone.from_preset(str(tmp_path / name))
        return keras.ops.convert_to_numpy(model(tokens))

    run(tmp_path, "a", "--grow=mlp:2", output="grown", verify="--verify")
    np.testing.assert_allclose(hidden("grown"), hidden("a"), rtol=1e-4, atol=1e-5)
    run(tmp_path, "aa", "--norm=rule", output="twice")
    # The last norm, which a tied head reads, has the mean's factor.
    expected = np.tile(hidden("a"), 2) / 2
    np.testing.assert_allclose(hidden("twice"), expected, rtol=1e-4, atol=1e-5)
    run(tmp_path, "ab", "--norm=rule", output="both")
    assert hidden("both").shape == (1, 3, 12)
    assert f"Wrote {tmp_path / 'both'}" in capsys.readouterr().out
    run(tmp_path, "ab", output="grouped")
    with pytest.raises(kf.FusionError, match="grouped norms"):
        run(tmp_path, ("grouped", "grouped"), output="again")
    card = (tmp_path / "both" / "README.md").read_text("utf-8")
    digest = hashlib.sha256((tmp_path / "a" / "model.weights.h5").read_bytes()).hexdigest()
    assert f"| a | 0.5 | model.weights.h5 | {digest} |" in card
    assert "It is not exact" in card
    capsys.readouterr()
    assert run(tmp_path, "ab", "--dry_run", output="dry") is None
    planned = capsys.readouterr().out
    assert "result: GPT2Backbone with grouped norms" in planned and "hidden_dim=12" in planned
    parameters = keras_hub.models.Backbone.from_preset(str(tmp_path / "both")).count_params()
    assert f"{parameters:,} parameters" in planned
    assert not (tmp_path / "dry").exists()


def test_the_card_of_a_preset_says_what_is_exact(tmp_path, capsys):
    keras_hub = pytest.importorskip("keras_hub")
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 2, "intermediate_dim": 2}
    for name in "ab":
        backbone = keras_hub.models.GPT2Backbone(vocabulary_size=5, max_sequence_length=3, **sizes)
        backbone.save_to_preset(str(tmp_path / name))
    a, b = tmp_path / "a", tmp_path / "b"
    balanced = {"noise": 0.1, "noise_kind": "balanced"}

    def statement(*sources, **options):
        return interop.plan_presets(sources, **options).facts().promise.statement

    assert statement(a, a, **balanced).startswith("It computes what the source computes")
    # A growth's noise is balanced.
    assert statement(a, growth={"mlp": 2}, noise=0.1) == statement(a, a)
    assert statement(a, a, noise=0.1).startswith("Noise stands")
    assert statement(a, b).startswith("It computes the weighted mean")
    assert statement(a, b).endswith("keras_fusion.families.load_preset.")
    for options in ({"noise": 0.1}, balanced):
        assert statement(a, b, **options).startswith("Noise stands")
        assert statement(a, b, norm="rule", **options).startswith("It is not exact")
    run(tmp_path, "ab", "--dry_run")
    assert "vocabularies were not compared" in capsys.readouterr().out


def test_backbones_keep_their_tokenizer_and_have_the_same(tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    pytest.importorskip("tensorflow_text")
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 2, "intermediate_dim": 2}
    for name, token in zip("abc", "xyx", strict=True):
        backbone = keras_hub.models.GPT2Backbone(vocabulary_size=5, max_sequence_length=3, **sizes)
        backbone.save_to_preset(str(tmp_path / name))
        tokens = {"<|endoftext|>": 0, token: 1, "a": 2, "b": 3, "ab": 4}
        tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=tokens, merges=["a b"])
        tokenizer.save_to_preset(str(tmp_path / name))
    with pytest.raises(kf.FusionError, match="first token 1: 'y' vs 'x'"):
        run(tmp_path, "ab", "--norm=rule")
    run(tmp_path, "ac", "--norm=rule")
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(str(tmp_path / "fused"))
    assert tokenizer.vocabulary_size() == 5
    (tmp_path / "link").symlink_to("a")
    plan = interop.plan_presets([tmp_path / "a", tmp_path / "link"])
    assert "2 copies of one model" in plan.summary
