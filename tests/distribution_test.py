"""The package: pins and ranges agree, the wheel holds the library alone and works by itself."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet

import keras_fusion
from tests.requirements import needed_by, pins, required, settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["keras_fusion", "trainers", "glue"]
# What tensorflow-tpu needs in other versions than constraints.txt has.
TPU_PINS = {
    "libtpu": "0.0.14",
    "tensorboard": "2.20.0",
    "tensorflow": "2.20.0",
    "tensorflow-text": "2.20.1",
    "tensorflow-tpu": "2.20.0",
}
# Runs where the wheel alone is installed, with JAX.
USE = """
import importlib.util
import sys

import keras
import numpy as np

import keras_fusion as kf
from keras_fusion.interop import tensors

assert kf.__version__ == sys.argv[1] and sys.prefix in kf.__file__, kf.__file__
absent = ("trainers", "glue", "tensorflow", "torch", "keras_hub", "safetensors", "transformers")
present = [name for name in absent if importlib.util.find_spec(name)]
assert not present, present


def network(units, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(2)]
    )


a, b = network(4, 0), network(6, 1)
big = kf.fuse([a, b])
assert big.layers[0].units == 10
x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
mean = (np.asarray(a(x)) + np.asarray(b(x))) / 2
np.testing.assert_allclose(big(x), mean, atol=1e-6)
big.save("big.keras")
np.testing.assert_array_equal(keras.models.load_model("big.keras")(x), big(x))

with open("a.safetensors", "wb") as file:
    file.write(bytes(8))
try:
    with open("a.safetensors", "rb") as file:
        tensors.views(file)
except kf.FusionError as error:
    assert "pip install 'keras-fusion[interop]'" in str(error), error
else:
    raise AssertionError("no safetensors, and no error")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, made from the sdist, as `make wheel` makes it; nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, copy)
    run(copy, "-c", "from setuptools import build_meta; build_meta.build_sdist('dist')")
    (sdist,) = (copy / "dist").iterdir()
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir")
    run(copy, "-m", "pip", "wheel", *options, "--wheel-dir=wheels", str(sdist))
    (path,) = (copy / "wheels").iterdir()
    return path


def run(folder: Path, *arguments: str, python: str = sys.executable, **environment: str) -> str:
    """Output of Python in a folder."""
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_direct_dependency_is_pinned_within_its_range_and_explained():
    pinned = pins()
    for name, requirement in required("test").items():
        assert name in pinned, f"constraints.txt lacks {name}."
        version, reason = pinned[name]
        assert requirement.specifier.contains(version), f"{name}=={version}, not {requirement}."
        assert reason, f"constraints.txt does not say why {name} is there."


def test_every_pin_is_required_and_every_requirement_is_pinned():
    lines = [*map(str, required("test").values()), "setuptools", "wheel"]
    assert needed_by(lines) == set(pins())


def test_pins_of_torch_stand_apart_within_their_ranges_and_explained():
    pinned, apart = pins(), pins("constraints-interop.txt")
    assert not apart.keys() & pinned.keys()
    for name, requirement in required("interop", "torch").items():
        version, reason = (pinned | apart)[name]
        assert reason and requirement.specifier.contains(version)


def test_pins_of_what_makes_the_wheel_stand_apart():
    apart = pins("constraints-wheel.txt")
    assert not apart.keys() & pins().keys()
    assert {name for name, (_, reason) in apart.items() if reason} == {"build", "twine"}


def test_tpu_pins_differ_for_tensorflow_and_what_follows_it():
    versions = {name: version for name, (version, _) in pins().items()}
    tpu = {name: version for name, (version, _) in pins("constraints-tpu.txt").items()}
    assert tpu == versions | TPU_PINS


def test_python_versions_agree():
    project = settings()["project"]
    supported = SpecifierSet(project["requires-python"])
    label = "Programming Language :: Python :: 3."
    versions = [f"3.{c.removeprefix(label)}" for c in project["classifiers"] if label in c]
    assert versions == [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in supported]
    assert settings()["tool"]["ruff"]["target-version"] == "py" + versions[0].replace(".", "")
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    first, last = (f"({version.replace('.', ', ')})" for version in (versions[0], versions[-1]))
    assert f"{first} <= sys.version_info[:2] <= {last}" in make
    bazel = (ROOT / "MODULE.bazel").read_text(encoding="utf-8")
    assert set(re.findall(r'python_version = "(.*)"', bazel)) == {versions[0]}


def test_the_version_is_that_of_the_citation_and_of_the_newest_changes():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.M) == [keras_fusion.__version__]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d.*?)\]", changes, re.M)[0] == keras_fusion.__version__


def test_the_wheel_holds_the_library_and_the_licence_alone(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "keras_fusion").rglob("*.py")}
    folder = f"keras_fusion-{keras_fusion.__version__}.dist-info"
    about = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE", "top_level.txt"}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names == modules | {f"{folder}/{name}" for name in about}


def test_the_wheel_needs_keras_and_numpy_and_no_backend(wheel):
    folder = f"keras_fusion-{keras_fusion.__version__}.dist-info"
    text = zipfile.ZipFile(wheel).read(f"{folder}/METADATA")
    metadata = Metadata.from_email(text)
    assert (metadata.name, str(metadata.version)) == ("keras-fusion", keras_fusion.__version__)
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description.startswith("# keras_fusion")

    def names(extra):
        requirements = metadata.requires_dist
        return {
            requirement.name
            for requirement in requirements
            if not requirement.marker or requirement.marker.evaluate({"extra": extra})
        }

    library = {"keras", "ml_dtypes", "numpy"}
    assert names("") == library
    extras = {"jax", "tensorflow", "torch", "interop", "trainers", "gcs", "s3", "test", "tpu"}
    assert set(metadata.provides_extra) == extras
    for backend in ("jax", "tensorflow", "torch"):
        assert names(backend) == library | {backend}
    assert names("interop") == library | {
        "keras-hub",
        "safetensors",
        "sentencepiece",
        "transformers",
    }


@pytest.mark.slow
@pytest.mark.one_backend
def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    """Takes JAX, the smallest backend, from the package index."""
    run(tmp_path, "-m", "venv", "empty")
    python = str(tmp_path / "empty" / "bin" / "python")
    options = ("--disable-pip-version-check", "--no-input", "--quiet")
    constraints = ("-c", str(ROOT / "constraints.txt"))
    run(tmp_path, "-m", "pip", "install", *options, f"{wheel}[jax]", *constraints, python=python)
    program = tmp_path / "use.py"
    program.write_text(USE, encoding="utf-8")
    on_jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    # Isolated: neither the folder nor PYTHONPATH has anything to import.
    run(tmp_path, "-I", "use.py", keras_fusion.__version__, python=python, **on_jax)
    lines = run(tmp_path, "-I", "-m", "keras_fusion.versions", python=python, **on_jax)
    assert f"keras-fusion: {keras_fusion.__version__}" in lines.splitlines()
