"""A size for tests: widths 8 and 16, tokens of a made-up language, three steps per stage."""

import dataclasses
import hashlib
import json
import pathlib
import random
import typing

import keras

from keras_fusion.models import config as model_config
from tests.eager import eager as eager
from trainers import programs
from trainers.data.config import DataConfig
from trainers.data.objectives import SPAN_CORRUPTION
from trainers.data.preparation import prepare
from trainers.plans import sizes
from trainers.reports import pictures
from trainers.runs.workdir import RECORD_FILE, RUN_FILE

PIECES, SENTINELS = 64, 8
NANO = sizes.Size(
    "nano",
    {"S": "nano_s", "M": "nano_m"},
    batch_size=2,
    input_length=16,
    eval_batches=2,
    vocabulary_pieces=PIECES,
    num_sentinels=SENTINELS,
    objective=SPAN_CORRUPTION,
    defaults=sizes.SIZES["tiny"].defaults
    | {"steps": "3", "eval_every": "2", "checkpoint_every": "2", "steps_per_call": "2"}
    | {"warmup_steps": "S:600,M:2500,L:2500,baseline:1000"},
)


def define(monkeypatch):
    """Makes `--size=nano` known, as a monkeypatch, and leaves the pictures of reports empty."""
    # Drawing takes longer than training at this size; the tests of the reports draw.
    monkeypatch.setattr(pictures.Picture, "png", lambda picture, theme=None: b"")
    monkeypatch.setitem(sizes.SIZES, "nano", NANO)
    # (hidden_dim, num_heads, key_value_dim, intermediate_dim, num_layers)
    monkeypatch.setitem(model_config.SIZES, "nano_s", (8, 2, 4, 16, 1))
    monkeypatch.setitem(model_config.SIZES, "nano_m", (16, 4, 4, 32, 1))


def define_with_large(monkeypatch):
    """The same with a model of size L."""
    define(monkeypatch)
    monkeypatch.setitem(model_config.SIZES, "nano_l", (32, 8, 4, 64, 1))
    large = dataclasses.replace(NANO, models={**NANO.models, "L": "nano_l"})
    monkeypatch.setitem(sizes.SIZES, "nano", large)


def share_steps(monkeypatch):
    """Lets models that are alike train by the same traced steps, as a monkeypatch does."""
    if keras.backend.backend() == "tensorflow":
        from tests.trainers.shared_steps import SharedSteps
        from trainers.engines import strategies

        monkeypatch.setattr(strategies, "TensorFlowEngine", SharedSteps)


def write_text(path: pathlib.Path, seed: int = 0, paragraphs: int = 200) -> pathlib.Path:
    """Writes paragraphs of random words, and returns the file."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshr", k=rng.randint(2, 7))) for _ in range(60)]
    lines = [" ".join(rng.choices(words, k=30)) for _ in range(paragraphs)]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def write_tokens(folder: pathlib.Path, seed: int = 0, pieces: int = PIECES) -> pathlib.Path:
    """Prepares tokens under `folder`, and returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return prepare(
        DataConfig(
            corpus="text",
            corpus_path=str(write_text(folder / "text.txt", seed)),
            vocabulary_pieces=pieces,
            num_sentinels=SENTINELS,
            root=str(folder / "data"),
        )
    )


def config_of(program, *arguments: str):
    """The configuration that a program reads from its flags, parsed afresh."""
    return programs.parse(typing.get_type_hints(program.main)["config"], arguments)


def records(folder: pathlib.Path) -> dict[str, dict]:
    """Records of the finished stages of a run, by name, in the order in which they finished."""
    paths = sorted(folder.glob(f"*/{RECORD_FILE}"), key=lambda path: path.stat().st_mtime_ns)
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def plans(folder: pathlib.Path) -> list[str]:
    """Names of the plans that were ever asked for in the folder of a run."""
    return json.loads((folder / RUN_FILE).read_text())["plans"]


def content(folder: pathlib.Path) -> dict[str, str]:
    """Hashes of all files under a folder, locks excepted."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }
