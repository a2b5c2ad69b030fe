"""The JAX path needs no TensorFlow: imported and trained in processes where importing it fails."""

import json
import subprocess

import pytest

from tests.project_test import PACKAGES, modules
from tests.trainers import nano
from tests.trainers.training import loop_support
from tests.trainers.training.logs_test import read_events

# Everything that is TensorFlow's own, or that would pull it in.
WITHOUT = """
import sys

ABSENT = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "tf_keras"}
ABSENT |= {"keras_hub", "safetensors", "transformers"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Refuse())
"""

IMPORTS = (
    WITHOUT
    + """
import importlib, json, pytest

folder, data, *modules = sys.argv[1:]
for name in modules:
    importlib.import_module(name)
ABSENT.remove("safetensors")  # Training writes it.
from trainers import pretrain
"""
)

PRETRAIN = (
    IMPORTS
    + """
from tests.trainers import nano

with pytest.MonkeyPatch.context() as patch:
    nano.define(patch)
    config = nano.config_of(
        pretrain, "--size=nano", "--plan=self_fusion", f"--workdir={folder}", f"--data_dir={data}",
        "--mesh_shape=batch:2,model:2", "--noprogress", "--dropout=0.1", "--eval_batches=1",
    )
    report = pretrain.pretrain(config)
print(json.dumps({
    "records": list(nano.records(report.parents[1]).values()),
    "report": report.stat().st_size,
    "loaded": [name for name in sys.modules if name.startswith("tensorflow")],
}))
"""
)


def run(program, *arguments):
    """Standard output of a program that imports library and data, in a process of its own."""
    needed = [n for n in modules(*PACKAGES) if n.startswith(("keras_fusion", "trainers.data"))]
    child = loop_support.python(program, *arguments, *needed)
    child["env"] |= {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 "
        "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    }
    ran = subprocess.run(**child, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return ran.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of a process that fused and trained on a mesh, and imported library and data."""
    folder = tmp_path_factory.mktemp("no_tensorflow")
    data = nano.write_tokens(folder)
    output = run(PRETRAIN, folder / "w", data)
    events = read_events(folder / "w" / "small_0" / "tensorboard")
    return json.loads(output.splitlines()[-1]) | {"events": events}


def test_everything_is_imported():
    assert run(IMPORTS + "print(sorted({n for n in sys.modules} & ABSENT))", "", "") == "[]\n"


@pytest.mark.slow
def test_stages_train_and_fuse_on_a_mesh(results):
    small, fused = results["records"]
    assert (small["name"], small["steps"], fused["steps"]) == ("small_0", 3, 3)
    assert (small["devices"], fused["devices"]) == (4, 4)
    assert fused["loss_per_token"] > 0 and results["report"] > 1000


@pytest.mark.slow
def test_nothing_of_tensorflow_was_loaded(results):
    assert results["loaded"] == []


@pytest.mark.slow
def test_tensorboard_reads_the_logs(results):
    assert [step for step, _ in results["events"]["eval/loss"]] == [0, 2, 3]


def test_the_refusal_works():
    child = loop_support.python(WITHOUT + "import tensorflow")
    ran = subprocess.run(**child, capture_output=True, text=True, timeout=60)
    assert ran.returncode != 0 and "tensorflow is not installed here" in ran.stderr
