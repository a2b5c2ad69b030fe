"""A T5 of transformers with its vocabulary: converted, fused, trained, sampled from, fine-tuned."""

import keras
import numpy as np
import pytest

import keras_fusion as kf
from glue import finetune, results
from glue.finetuning import run
from tests.trainers import nano
from trainers import convert, fuse
from trainers.checkpoints import models
from trainers.data import manifest
from trainers.data.config import DataConfig
from trainers.data.preparation import prepare
from trainers.errors import UserError


@pytest.mark.slow
def test_from_a_folder_of_transformers_to_a_score_of_glue(shared_dir, tmp_path):
    """On real text, a vocabulary trained on it, and real RTE."""
    text = tmp_path / "text.txt"
    real = sorted((shared_dir / "data" / "text").glob("*.txt"))[0].read_text("utf-8")
    # Labels have a letter that prose lacks.
    text.write_text(real[:300_000] + "\n\nnot_entailment" * 1_000, encoding="utf-8")
    tokens = prepare(
        DataConfig(
            corpus="text",
            corpus_path=str(text),
            vocabulary_pieces=200,
            num_sentinels=28,
            root=str(tmp_path / "data"),
        )
    )
    size = manifest.read(tokens)["vocabulary"]["padded_size"]
    public = _public_t5(tmp_path, tokens, size)

    _run(convert, f"--source={public}", f"--output={tmp_path / 'ours'}", "--format=keras_fusion")
    source = tmp_path / "ours"
    fuse.fuse(fuse.FuseConfig((str(source),) * 2, str(tmp_path / "fused"), noise=0.1))
    model, _ = models.load_model(tmp_path / "fused")
    assert model.config.hidden_dim == 16
    batch = {
        "encoder_token_ids": np.arange(3, 27, dtype="int32").reshape(2, 12),
        "decoder_token_ids": np.arange(3, 15, dtype="int32").reshape(2, 6),
    }
    before = keras.ops.convert_to_numpy(model(batch))
    model.compile(kf.optimizers.Adafactor(0.01), kf.losses.mean_cross_entropy)
    model.fit(batch, batch["decoder_token_ids"], batch_size=2, verbose=0)
    assert np.max(np.abs(keras.ops.convert_to_numpy(model(batch)) - before)) > 0
    assert model.generate(batch["encoder_token_ids"], max_length=4).shape == (2, 4)

    flags = (
        f"--checkpoint={tmp_path / 'fused'}",
        f"--vocabulary={source / 'vocabulary.model'}",
        f"--data_dir={shared_dir / 'data' / 'glue'}",
        f"--workdir={tmp_path / 'glue'}",
        *("--tasks=rte", "--steps=2", "--checkpoint_every=2", "--eval_batches=1"),
        *("--batch_size=2", "--input_length=64", "--target_length=16", "--noprogress"),
        "--strategy=one_device",
    )
    with pytest.raises(UserError, match="vocabulary that the model was pretrained with"):
        run.finetune(nano.config_of(finetune, *flags, f"--vocabulary={_other(tmp_path)}"))
    run.finetune(nano.config_of(finetune, *flags))
    (tuned,) = results.read_runs(tmp_path / "glue")
    targets, predicted = tuned.results["rte"].predictions("validation")
    assert len(targets) == len(predicted) > 0


def _public_t5(tmp_path, tokens, size):
    """A folder of transformers with the weights of a random T5 and the vocabulary of tokens."""
    config = kf.models.T5Config(size, 1, 2, 8, 16, 4)
    models.save_model(kf.models.T5(config, seed=0), tmp_path / "random", {})
    (tmp_path / "random" / "vocabulary.model").write_bytes(
        (tokens / "vocabulary.model").read_bytes()
    )
    public = tmp_path / "public"
    _run(convert, f"--source={tmp_path / 'random'}", f"--output={public}", "--format=huggingface")
    assert (public / "spiece.model").exists()
    return public


def _other(tmp_path):
    return nano.write_tokens(tmp_path / "other") / "vocabulary.model"


def _run(program, *flags):
    program.convert(nano.config_of(program, *flags))
