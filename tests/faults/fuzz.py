"""Feeds every reader of files with damaged ones: each is read, or refused in one line.

python -m tests.faults.fuzz --minutes=10 --seed=0

A good file is damaged at random: a value of its JSON becomes another one, or a name goes; bytes are
changed, cut, repeated. A fault is an exception that is no user's error, a reader that does not come
back, or memory beyond a multiple of the file's size. One line per fault, then a table. Exit code 1
if there was a fault.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import pathlib
import signal
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable

import hypothesis
import numpy as np
from hypothesis import strategies as st

from glue import tasks
from glue.data import tsv
from keras_fusion.errors import FusionError
from tests.trainers import nano
from trainers import checkpoints, files, programs
from trainers.checkpoints import tensors
from trainers.data.batches import PretrainingBatches
from trainers.data.vocabulary import Vocabulary
from trainers.errors import UserError
from trainers.plans import read_plan
from trainers.programs import check_options, option
from trainers.runs import history
from trainers.training.logs import read_metrics
from trainers.training.progress import Progress

# A reader may hold a file in several forms: parsed JSON takes twenty times the memory of its text.
MEMORY_FACTOR, MEMORY_BASE = 60, 4_000_000
SECONDS = 10
READ, REFUSED = "read", "refused"
PLAN = {
    "name": "two_then_one",
    "description": "two small models fused",
    "stages": [
        {"name": "a", "size": "S", "seed": 0},
        {"name": "b", "size": "S", "seed": 1, "settings": {"noise": 0.05}},
        {"name": "m", "size": "M", "init": "fusion_property", "sources": ["a@500", "b"], "seed": 2},
        {"name": "l", "size": "L", "init": "self_fusion", "sources": ["m"], "copies": 2},
    ],
}
POINT = {
    **{"step": 2, "tokens": 4, "flops": 8.0, "device_seconds": 0.5},
    **{"loss": 1.5, "loss_per_token": 0.5, "accuracy": 40.0},
}
RECORD = {
    **{"name": "a", "size": "S", "init": "scratch", "sources": [], "parameters": 9},
    **{"seed": 0, "settings": {"steps": 2}, "source_steps": {}, "curve": [POINT]},
    **{"flops_method": "counted", "repeat": 1, "repeat_of": "a"},
    "text_passes": {"first": 0.5},
    "learning_rate": {"warmup_steps": 1, "offset": 0, "scale": 1.0},
    **POINT,
    "steps": 2,
}
PROGRESS = {
    **{"device_seconds": 0.5, "curve": [POINT], "skipped": [1], "measured": {"theory": 0.5}},
    "window": {"steps": 1, "loss_sum": 1.5, "tokens": 2.0, "correct": 1.0, "seconds": 0.5},
}
ROWS = "sentence\tlabel\nit 's a charming journey\t1\nunflinchingly bleak\t0\n"


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of files.

    Args:
        good: content that it reads.
        read: writes a content into a folder, and reads it.
        is_json: whether values are damaged too, and not bytes alone.
    """

    good: bytes
    read: Callable[[pathlib.Path, bytes], object]
    is_json: bool = True


class TooSlow(Exception):
    """A reader that does not come back."""


def readers(folder: pathlib.Path) -> dict[str, Reader]:
    """Returns all readers by name; `folder` is for what they need."""
    checkpoint = checkpoints.save(folder, 2, {"model/a": np.ones(3, np.float32)}, {"settings": {}})
    prepared = nano.write_tokens(folder / "tokens")
    parts = _parts((checkpoint / checkpoints.MODEL_FILE).read_bytes())
    return {
        "manifest of a checkpoint": Reader(
            (checkpoint / checkpoints.MANIFEST_FILE).read_bytes(),
            functools.partial(_read_checkpoint, checkpoint),
        ),
        "safetensors header": Reader(parts[0], functools.partial(_read_tensors, parts[1])),
        "safetensors": Reader(
            (checkpoint / checkpoints.MODEL_FILE).read_bytes(),
            lambda folder, content: tensors.read(_put(folder / "x", content)),
            is_json=False,
        ),
        "progress of a run": Reader(
            json.dumps(PROGRESS).encode(),
            lambda folder, content: Progress.from_dict(3, _json(folder, content)),
        ),
        "plan": Reader(
            json.dumps(PLAN).encode(),
            lambda folder, content: read_plan(_put(folder / "plan.json", content)),
        ),
        "record of a stage": Reader(json.dumps(RECORD).encode(), _read_record),
        "metrics": Reader(
            b"".join(
                json.dumps({"kind": "eval", **POINT, "step": i}).encode() + b"\n" for i in (1, 2)
            ),
            _read_metrics,
            is_json=False,
        ),
        "rows of a task": Reader(ROWS.encode(), _read_rows, is_json=False),
        "manifest of tokens": Reader(
            (prepared / "manifest.json").read_bytes(), functools.partial(_read_tokens, prepared)
        ),
        "tokens": Reader(
            (prepared / "train.tokens").read_bytes(),
            functools.partial(_read_ids, prepared),
            is_json=False,
        ),
        "vocabulary": Reader(
            (prepared / "vocabulary.model").read_bytes(),
            lambda folder, content: Vocabulary.from_file(_put(folder / "v.model", content)),
            is_json=False,
        ),
    }


def _put(path: pathlib.Path, content: bytes) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """Header and data of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end].rstrip(), content[end:]


def _read_checkpoint(good: pathlib.Path, folder: pathlib.Path, content: bytes):
    """With the marker that belongs to it: a hash does not make it true."""
    path = folder / "checkpoint"
    for name in (checkpoints.MODEL_FILE, checkpoints.TRAINING_FILE):
        _put(path / name, (good / name).read_bytes())
    _put(path / checkpoints.MANIFEST_FILE, content)
    _put(path / checkpoints.MARKER_FILE, hashlib.sha256(content).hexdigest().encode())
    return checkpoints.load(path).shapes()


def _read_tensors(data: bytes, folder: pathlib.Path, header: bytes):
    content = len(header).to_bytes(8, "little") + header + data
    arrays = tensors.read(_put(folder / "model.safetensors", content))
    return [float(np.sum(array.astype(np.float64))) for array in arrays.values()]


def _json(folder: pathlib.Path, content: bytes) -> dict:
    return files.read_json(_put(folder / "x.json", content))


def _read_record(folder: pathlib.Path, content: bytes):
    _put(folder / "run/a/record.json", content)
    return history.read_run(folder / "run")


def _read_metrics(folder: pathlib.Path, content: bytes):
    running = {name: value for name, value in RECORD.items() if name not in (*POINT, "curve")}
    running["steps"] = 9
    _put(folder / "going/a/stage.json", json.dumps(running).encode())
    read_metrics(_put(folder / "going/a/metrics.jsonl", content))
    return history.read_run(folder / "going")


def _read_rows(folder: pathlib.Path, content: bytes):
    task = tasks.find("sst2")
    split = task.splits["train"]
    _put(folder / "glue" / (split.folder or task.title) / split.file, content)
    return tsv.read(task, split, folder / "glue")


def _read_tokens(good: pathlib.Path, folder: pathlib.Path, content: bytes):
    for path in good.iterdir():
        _put(folder / "tokens" / path.name, path.read_bytes())
    _put(folder / "tokens/manifest.json", content)
    batches = PretrainingBatches(folder / "tokens", "train", 2, 16)
    assert batches.vocabulary_size < 2000
    return batches.batch(0), batches.fingerprint


def _read_ids(good: pathlib.Path, folder: pathlib.Path, content: bytes):
    """With the manifest that belongs to it."""
    manifest = json.loads((good / "manifest.json").read_text())
    digest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["train.tokens"] = digest
    manifest["splits"]["train"]["tokens"] = len(content) // 2
    for path in good.iterdir():
        _put(folder / "ids" / path.name, path.read_bytes())
    _put(folder / "ids/train.tokens", content)
    _put(folder / "ids/manifest.json", json.dumps(manifest).encode())
    batch = PretrainingBatches(folder / "ids", "train", 2, 16).batch(0)
    assert max(array.max() for array in batch.values()) < manifest["vocabulary"]["size"]


# ---- damage ----

_NUMBERS = st.sampled_from([-1, 0, 2**31, 2**63, 10**18, 10**30, 1e300, float("nan"), float("inf")])
_LEAVES = st.none() | st.booleans() | st.integers() | _NUMBERS | st.text(max_size=6)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
# What no generator comes to by itself.
_TEXTS = st.sampled_from(
    [
        b"",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 5_000,
        b"1e999",
        b"\xff\xfe",
        b'"\\ud800"',
        b"\x00",
    ]
)


@st.composite
def damaged(draw, reader: Reader) -> bytes:
    """Draws a content that is the good one but for one to three faults."""
    if reader.is_json and draw(st.booleans()):
        document = json.loads(reader.good)
        for _ in range(draw(st.integers(1, 2))):
            document = _with_another_value(draw, document)
        return json.dumps(document).encode()
    content = bytearray(reader.good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.integers(0, 8))
        new = draw(st.binary(max_size=8) | _TEXTS | st.just(bytes(content[:at])))
        content[at : at + size] = new
    return bytes(content)


def _with_another_value(draw, document):
    document = copy.deepcopy(document)
    holder, key = {"": document}, ""
    root = holder
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
        holder = holder[key]
        key = draw(st.sampled_from([*holder] if isinstance(holder, dict) else range(len(holder))))
    if holder is not root and draw(st.integers(0, 3)) == 0:
        del holder[key]
    else:
        holder[key] = draw(_VALUES)
    return root[""]


# ---- runs ----


def outcome(reader: Reader, folder: pathlib.Path, content: bytes) -> str:
    """Reads a content; an exception is a fault.

    Raises:
        TooSlow: it took too long.
        AssertionError: it took too much memory, or was refused in more than a line.
    """

    def end(number, frame):
        raise TooSlow(f"{SECONDS} seconds for {len(content)} bytes")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        reader.read(folder, content)
        return READ
    except (UserError, FusionError) as error:
        assert len(" ".join(str(error).split())) < 3000, "an error without end"
        return REFUSED
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        size = len(content) + len(reader.good)
        assert peak < MEMORY_BASE + MEMORY_FACTOR * size, f"{peak:,} bytes for {size:,}"


def feed(reader: Reader, folder: pathlib.Path, examples: int, seed: int) -> Counter:
    """Feeds a reader with damaged contents; hypothesis shrinks what it finds, and raises it."""
    outcomes = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(damaged(reader))
    def run(content):
        outcomes[outcome(reader, folder, content)] += 1

    run()
    return outcomes


@dataclasses.dataclass(frozen=True)
class FuzzConfig:
    """Time and seed; checks itself."""

    minutes: float = option(10.0, "Time for all readers together.", above=0, group="Fuzzing")
    seed: int = option(0, "Seed of the damage.", at_least=0)

    def __post_init__(self):
        check_options(self)


def main(config: FuzzConfig) -> int:
    """Feeds the readers in turn until the time is over."""
    end = time.monotonic() + 60 * config.minutes
    totals, faults, seed = {}, Counter(), config.seed
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        table = readers(folder)
        while time.monotonic() < end:
            for name, reader in table.items():
                try:
                    totals.setdefault(name, Counter()).update(feed(reader, folder / "f", 50, seed))
                except Exception as error:
                    faults[name] += 1
                    # Hypothesis notes the content that it came to.
                    notes = " ".join(getattr(error, "__notes__", ()))
                    print(f"{name}, seed {seed}: {error!r:.300} {notes:.600}", flush=True)
                if time.monotonic() > end:
                    break
            seed += 1
    print(f"{'reader':26}{READ:>9}{REFUSED:>9}{'faults':>9}")
    for name, counts in totals.items():
        print(f"{name:26}{counts[READ]:9,}{counts[REFUSED]:9,}{faults[name]:9,}")
    return 1 if faults else 0


if __name__ == "__main__":
    programs.run(main, FuzzConfig)
