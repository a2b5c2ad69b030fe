"""Checkpoints made to harm: no code runs, nothing is written elsewhere, nothing is waited for.

A hostile checkpoint is consistent: whoever made it also made its hashes.
"""

import hashlib
import json
import os
import resource
import sys
import tracemalloc

import keras
import numpy as np
import pytest

import keras_fusion as kf
from tests import forks
from tests.trainers.training.loop_support import python
from trainers import checkpoints
from trainers.checkpoints import format, models
from trainers.engines.state import state_variables
from trainers.errors import UserError

CONFIG = kf.models.T5Config(
    vocabulary_size=32,
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    key_value_dim=4,
    intermediate_dim=16,
)
STATE = {
    "model/encoder/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "optimizer/iterations": np.array(7),
}
NESTED = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def path(tmp_path):
    """A good checkpoint, to be made a hostile one."""
    return checkpoints.save(tmp_path / "checkpoints", 5, STATE, {"settings": {}})


def commit(path, content):
    """Sets a manifest (text, or changes of fields), with the marker that belongs to it."""
    file = path / "manifest.json"
    if isinstance(content, dict):
        content = json.dumps(json.loads(file.read_text()) | content)
    content = content.encode() if isinstance(content, str) else content
    file.write_bytes(content)
    (path / "COMMITTED").write_text(hashlib.sha256(content).hexdigest())


def replace(path, name, header, data=b""):
    """Sets a file of tensors, with the manifest that belongs to it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    (path / name).write_bytes(content)
    files = json.loads((path / "manifest.json").read_text())["files"]
    files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    commit(path, {"files": files})


def assert_refused(path, match="Received: "):
    """One printable line that names the checkpoint, and no checkpoint."""
    with pytest.raises(UserError, match=match) as caught:
        checkpoints.load(path)
    message = str(caught.value)
    assert path.name in message and message.isprintable() and len(message) < 1000


def fields(**changed):
    """Fields of the entries of both files in a manifest."""
    entry = {"sha256": "0" * 64, "bytes": 8} | changed
    return {"files": {name: entry for name in ("model.safetensors", "training.safetensors")}}


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "null",
        "[]",
        "5",
        '"step"',
        "{}",
        b"\xff\xfe",
        NESTED,
        '{"config": ' + NESTED + "}",
        '{"step": 5, "step": 6}',
        {"format": 2},
        {"format": None},
        {"step": "5"},
        {"step": 5.0},
        {"step": True},
        {"step": -5},
        {"step": 10**300},
        {"step": float("nan")},
        {"step": None},
        {"config": None},
        {"config": [1]},
        {"score": "0.1"},
        {"score": [1]},
        {"score": 10**400},
        {"files": None},
        {"files": []},
        {"files": {}},
        {"files": {"model.safetensors": {}}},
        {"files": {"../outside": {"sha256": "0", "bytes": 3}}},
        fields(bytes="8"),
        fields(bytes=1e300),
        fields(bytes=float("inf")),
        fields(more=1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_manifest_of_another_form(path, manifest):
    commit(path, manifest)
    assert_refused(path, "with a manifest.json of another format")


@pytest.mark.parametrize(
    "changed",
    [fields(bytes=-1), fields(bytes=10**30), fields(sha256=None), fields(sha256=["0"])],
    ids=str,
)
def test_a_manifest_that_lies_about_its_files(path, changed):
    commit(path, changed)
    assert_refused(path)


def test_the_manifest_of_another_step(path):
    commit(path, {"step": 6})
    assert_refused(path, "with the manifest.json of step 6")


def test_a_path_in_the_manifest_is_not_opened(path):
    secret = path.parent / "secret"
    os.mkfifo(secret)
    files = json.loads((path / "manifest.json").read_text())["files"]
    commit(path, {"files": files | {"../secret": {"sha256": "0", "bytes": 3}, "/dev/zero": {}}})
    assert_refused(path, "a manifest.json of another format")


def test_a_manifest_of_hundreds_of_megabytes_is_not_read(path):
    with open(path / "manifest.json", "r+b") as file:
        file.truncate(300 << 20)
    tracemalloc.start()
    assert_refused(path, "no readable manifest.json .more than")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_manifest_too_large_to_be_read_back_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(format, "MAX_MANIFEST", 2000)
    checkpoints.save(tmp_path, 1, STATE, {})
    with pytest.raises(UserError, match="manifest of at most 2,000 bytes"):
        checkpoints.save(tmp_path, 2, STATE, {"curve": list(range(1000))})
    assert os.listdir(tmp_path) == ["step_00000001"]


def test_a_long_marker_is_not_read(path):
    (path / "COMMITTED").write_bytes(b" " * 1_000_000)
    assert_refused(path, "no readable COMMITTED")


FILES = ("model.safetensors", "training.safetensors", "manifest.json", "COMMITTED")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["fifo", "link", "device", "folder"])
def test_what_is_no_regular_file_is_neither_followed_nor_waited_for(path, name, kind):
    file = path / name
    outside = path.parent.parent / "outside"
    file.rename(outside)
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "link":
        # With the right content, even.
        file.symlink_to(outside)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    assert_refused(path)
    with pytest.warns(checkpoints.CheckpointWarning), pytest.raises(UserError, match="1 damaged"):
        checkpoints.latest(path.parent)


@pytest.mark.parametrize("kind", ["fifo", "file", "dangling link", "link to itself"])
def test_what_is_called_like_a_checkpoint_and_is_no_folder(path, kind):
    newer = path.parent / "step_00000009"
    if kind == "fifo":
        os.mkfifo(newer)
    elif kind == "file":
        newer.write_bytes(b"{}")
    else:
        newer.symlink_to(newer if kind == "link to itself" else "nowhere")
    with pytest.warns(checkpoints.CheckpointWarning, match="step_00000009"):
        assert checkpoints.latest(path.parent).step == 5


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": ENTRY | {"shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"a": ENTRY | {"shape": [2**32, 2**32, 2]}},
        {"a": ENTRY, "b": ENTRY},
        b"[" * 100_000,
        {"a\n\x1b[31mb": ENTRY},
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("name", FILES[:2])
def test_a_header_that_lies_with_the_right_hash(path, name, header):
    replace(path, name, header, b"\0" * 8)
    assert_refused(path, f"Expected a safetensors file. Received: .*{name} with ")


def test_weights_that_hide_behind_other_weights(path):
    replace(path, "training.safetensors", {"model/encoder/kernel": ENTRY}, b"\0" * 8)
    assert_refused(path, "with weights in training.safetensors")


def test_names_lead_nowhere(tmp_path):
    state = {f"model/{tmp_path}/written": np.ones(2), "model/../../up": np.ones(3)}
    path = checkpoints.save(tmp_path / "inside" / "checkpoints", 1, state, {})
    checkpoint = checkpoints.load(path)
    np.testing.assert_array_equal(checkpoint.state()["model/../../up"], np.ones(3))
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(FILES)


@pytest.mark.parametrize(
    "model",
    [
        {"class_name": "Lambda", "module": "keras.layers", "config": {"function": "…"}},
        {"module": "hostile_module", "class_name": "Run", "registered_name": "hostile_module>Run"},
        CONFIG.to_dict() | {"activation": "hostile_module.run"},
        CONFIG.to_dict() | {"activation": {"module": "hostile_module", "class_name": "run"}},
        CONFIG.to_dict() | {"dropout": {"class_name": "__tensor__"}},
        CONFIG.to_dict() | {"blocks": [8]},
        CONFIG.to_dict() | {"blocks": {"hidden": 8}},
        CONFIG.to_dict() | {"norm_groups": "8"},
        CONFIG.to_dict() | {"norm_groups": {"8": 8}},
        CONFIG.to_dict() | {"norm_groups": [-8, 16]},
        CONFIG.to_dict() | {"norm_groups": [8.0]},
        CONFIG.to_dict() | {"blocks": {"hidden": [-8, 16]}},
        "hostile_module",
        ["hostile_module"],
        None,
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_configuration_imports_nothing(tmp_path, monkeypatch, model):
    ran = tmp_path / "ran"
    (tmp_path / "hostile_module.py").write_text(f"open({str(ran)!r}, 'w')\nrun = Run = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    save(tmp_path, model)
    with pytest.raises(UserError, match="configuration of a T5"):
        models.load_model(tmp_path)
    assert not ran.exists() and "hostile_module" not in sys.modules


def save(folder, model, weights=None):
    """Writes a checkpoint of a small T5 that says it is another one."""
    weights = weights or {
        name: keras.ops.convert_to_numpy(variable.value)
        for name, variable in state_variables(kf.models.T5(CONFIG, seed=0)).items()
    }
    config = {"settings": {"model": model}}
    return checkpoints.save(folder / "checkpoints", 0, weights, config)


@pytest.mark.parametrize(
    "field",
    [
        "vocabulary_size",
        "num_layers",
        "num_heads",
        "hidden_dim",
        "intermediate_dim",
        "key_value_dim",
        "relative_attention_num_buckets",
    ],
)
def test_terabytes_in_a_configuration_are_refused_before_anything_is_built(tmp_path, field):
    save(tmp_path, CONFIG.to_dict() | {field: 10**12})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = r"weights as its configuration says|attention_num_buckets=1000000000000"
    with pytest.raises(UserError, match=refused):
        models.load_model(tmp_path)
    # KiB; a terabyte would be a thousand million of them.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


LIMITED = """
import resource, sys
import numpy as np
from trainers import checkpoints
from trainers.errors import UserError
size = int(next(line.split()[1] for line in open("/proc/self/status") if "VmSize" in line))
limit = (size + 200_000) * 1024
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        checkpoints.load(path)
    except UserError:
        print("refused")
"""


def test_no_header_makes_the_loader_allocate_more_than_the_files_hold(tmp_path):
    """Under a limit of 200 MB on all that the process maps, whatever the headers promise."""
    paths = []
    for number, header in enumerate(
        [
            {"a": ENTRY | {"shape": [10**10], "data_offsets": [0, 4 * 10**10]}},
            {"a": ENTRY | {"shape": [2**62 + 2]}},
            {"__metadata__": {}, "a": ENTRY | {"shape": [0, 2**62], "data_offsets": [0, 0]}},
            b"9" * 4_000_001,
            b"[" * 3_999_999,
        ]
    ):
        path = checkpoints.save(tmp_path / str(number), 1, STATE, {})
        replace(path, "model.safetensors", header, b"\0" * 8)
        paths.append(path)
    ran = forks.run(**python(LIMITED, *paths))
    assert ran.stdout.split() == ["refused"] * len(paths), ran.stderr[-4000:]
