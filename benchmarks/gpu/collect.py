"""Gathers what a machine without a network needs for `python -m benchmarks.gpu`.

    python -m benchmarks.gpu.collect [--python=3.12]

That machine has JAX with CUDA and what `PRESENT` names; torch and transformers for the peer. What
is missing then is downloaded as wheels, at the versions of constraints.txt, into carried/wheels;
the tokens of the experiment are prepared in carried/tokens. The folder is ignored by git. There

    python -m pip install --no-index --no-deps --target=site carried/wheels/*.whl
    PYTHONPATH=site python -m benchmarks.gpu

find both. Takes a minute or two, most of it for the vocabulary.
"""

import pathlib
import re
import subprocess
import sys

from absl import flags

from benchmarks import _programs
from benchmarks.gpu.sizes import SIZES

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "carried"
TOKENS = FOLDER / "tokens"
# What the programs need and no wheel here brings; with it what it needs itself.
PRESENT = (
    *(
        "absl-py",
        "cloudpickle",
        "etils[epath,epy]",
        "filelock",
        "h5py",
        "jax",
        "jinja2",
        "matplotlib",
    ),
    *("psutil", "rich", "safetensors", "scipy", "sentencepiece", "tensorboard", "tqdm"),
)
WHEELS = ("array-record", "grain", "keras", "namex", "optree", "portpicker")
# Of glibc that wheels for Linux name; pip matches them exactly.
_PLATFORMS = ("2_28", "2_27", "2_24", "2_17")


def pins():
    """Returns `NAME==VERSION` of each wheel, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.partition("#")[0].strip() for line in lines]
    pinned = dict(text.replace("_", "-").split("==") for text in texts if text)
    return [f"{name}=={pinned[name]}" for name in WHEELS]


def download(folder, python):
    """Downloads the wheels for a version of Python on Linux, x86-64."""
    platforms = [f"--platform=manylinux_{version}_x86_64" for version in _PLATFORMS]
    platforms += [f"--platform=manylinux{year}_x86_64" for year in (2014, 2010, 1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    subprocess.run([*command, *platforms, *pins()], check=True)


def prepare_tokens():
    """Prepares the tokens of the experiments on an accelerator."""
    from benchmarks.gpu import pretraining

    for experiment in SIZES["full"].experiments:
        pretraining.prepare(experiment, TOKENS)


def main():
    if not re.fullmatch(r"3\.\d+", flags.FLAGS.python):
        _programs.fail(f"--python takes a version such as 3.12, not {flags.FLAGS.python!r}")
    download(FOLDER / "wheels", flags.FLAGS.python)
    prepare_tokens()
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{FOLDER.relative_to(ROOT)}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    flags.DEFINE_string("python", "3.12", "Version of Python on that machine.")
    _programs.run(main)
