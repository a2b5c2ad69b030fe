"""Packaging of keras-fusion: `pip install -e .[test] -c constraints.txt` sets up a machine.

The ranges here say what the code works with; constraints.txt pins what is known to work together,
constraints-interop.txt what the extras `torch` and `interop` add.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PYTHONS = ("3.11", "3.12", "3.13")

INSTALL_REQUIRES = [
    "absl-py>=2.1",
    "filelock>=4.2",
    "grain>=0.2.12",
    "jinja2>=3.1.6",
    # Below the next minor release: keras_fusion reaches into private names of this one.
    "keras>=3.15.1,<3.16",
    "markupsafe>=2.1",
    "matplotlib>=3.9",
    "ml_dtypes>=0.5.1",
    "numpy>=2.0",
    "safetensors>=0.5",
    "scipy>=1.15",
    "sentencepiece>=0.2.2",
    "tensorboard>=2.20,<2.22",
    "tensorflow>=2.20,<2.22",
    "tensorflow-datasets>=4.9.9",
    "tensorflow-text>=2.20,<2.22",
    "tqdm>=4.66.3",
]

JAX_REQUIRES = ["jax>=0.7"]

TORCH_REQUIRES = ["torch>=2.6"]

# Folders of Hugging Face, presets of KerasHub.
INTEROP_REQUIRES = [*TORCH_REQUIRES, "keras-hub>=0.26", "safetensors>=0.5", "transformers>=5"]

# In place of tensorflow, after it: constraints-tpu.txt says how.
TPU_REQUIRES = ["tensorflow-tpu>=2.20,<2.22"]

TEST_REQUIRES = [
    *JAX_REQUIRES,
    "grimp>=3.9",
    "hypothesis>=6.100",
    "import-linter>=2.5",
    "keras-hub>=0.26",
    "optax>=0.2.4",
    "packaging>=24.0",
    "pytest>=8.4",
    "pytest-xdist>=3.6",
    "ruff>=0.12",
    "scikit-learn>=1.6",
]


def long_description() -> str:
    """The README, which package indexes show."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


setup(
    name="keras-fusion",
    version="0.1.0",
    description="Deep fusion for Keras 3: combine trained networks into a wider one and train on",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=f">={PYTHONS[0]},<3.{int(PYTHONS[-1][2:]) + 1}",
    packages=find_packages(
        include=["keras_fusion", "keras_fusion.*", "trainers", "trainers.*", "glue", "glue.*"]
    ),
    package_data={"trainers.reports": ["templates/*"]},
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "interop": INTEROP_REQUIRES,
        "jax": JAX_REQUIRES,
        "test": TEST_REQUIRES,
        "torch": TORCH_REQUIRES,
        "tpu": TPU_REQUIRES,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: {version}" for version in PYTHONS),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
