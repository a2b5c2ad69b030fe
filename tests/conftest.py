"""Backend, threads and seeds of all tests; data beside the repository, a tiny prepared corpus."""

import functools
import gc
import os
import pathlib
import random
import sys

# Before anything imports keras. One thread per operation: the models of tests are too small for
# more, and with pytest-xdist a process runs on every core.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# TensorFlow reads it once, and programs that are forks of this process (`tests.forks`) show no more
# than they do as their users start them.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Compiling is most of what tests with XLA wait for; without optimizations it takes less.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
)
if os.environ["KERAS_BACKEND"] == "jax":
    # Eight virtual devices for meshes. The newer emitters, which TensorFlow may not know, take
    # as long again.
    os.environ["XLA_FLAGS"] += (
        " --xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
    )

import numpy as np
import pytest

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser):
    parser.addoption(
        "--write_models",
        action="store_true",
        help="write what the tests measure into docs/models.json",
    )


@pytest.fixture
def note_model(request):
    """Compares a measurement with docs/models.json, or writes it: `tests.models_table.note`."""
    from tests import models_table

    return functools.partial(models_table.note, write=request.config.getoption("--write_models"))


def pytest_collectstart():
    """Imports make many objects, and none that garbage collection would find."""
    gc.disable()


def pytest_collection_finish():
    """Leaves the modules that are loaded to no later garbage collection.

    A collection looks at all of their objects otherwise, and tests make many.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Lets `tests.forks` begin, if a module that was collected uses it."""
    forks = sys.modules.get("tests.forks")
    if forks and session.testscollected and not session.config.option.collectonly:
        forks.begin()


def pytest_sessionfinish():
    """Ends it."""
    if forks := sys.modules.get("tests.forks"):
        forks.end()


@pytest.fixture(autouse=True)
def _seeds():
    """Seeds every test alike, in whatever order they run."""
    random.seed(0)
    np.random.seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with the paper and real text beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"There is no {SHARED}.")
    return SHARED


@pytest.fixture(scope="session")
def words_file(tmp_path_factory) -> pathlib.Path:
    """A UTF-8 file of 400 paragraphs, about 60 kB, of made-up words."""
    rng = np.random.default_rng(0)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstv" for vowel in "aeiou"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(300)]
    paragraphs = [" ".join(rng.choice(words, rng.integers(10, 50))) + "." for _ in range(400)]
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def prepared_dir(words_file, tmp_path_factory) -> pathlib.Path:
    """`words_file` prepared with 96 pieces and 32 sentinels, so a vocabulary of 128."""
    from trainers.data.config import DataConfig
    from trainers.data.preparation import prepare

    root = tmp_path_factory.mktemp("prepared")
    config = DataConfig(
        corpus="text",
        corpus_path=str(words_file),
        vocabulary_pieces=96,
        num_sentinels=32,
        root=str(root),
        validation_fraction=0.1,
    )
    return prepare(config)
