"""Fuses two ResNet50, against copying their weights once.

    python -m benchmarks.fuse_models [--rounds=3] [--size=64]

The bound is the time of reading the sources' weights and writing them once, as numpy arrays. The
fusion compares and plans, searches the weights for NaN, and builds the fused model from them; the
check on random inputs is left out.
"""

import statistics
import time
import warnings

import keras
import numpy as np
from absl import app, flags

import keras_fusion as kf


def measure(size):
    """Seconds of one copy of the sources' weights, and of a fusion without its check."""
    sources = [
        keras.applications.ResNet50(weights=None, input_shape=(size, size, 3), classes=10)
        for _ in range(2)
    ]
    began = time.perf_counter()
    copies = [np.array(weight) for model in sources for weight in model.get_weights()]
    copied = time.perf_counter() - began
    del copies
    began = time.perf_counter()
    fused = kf.fuse(sources, check=False)
    seconds = time.perf_counter() - began
    return copied, seconds, fused.count_params()


def main(argv):
    del argv
    warnings.simplefilter("ignore")
    rows = [measure(flags.FLAGS.size) for _ in range(flags.FLAGS.rounds)]
    copied, fused = (statistics.median(column) for column in list(zip(*rows, strict=True))[:2])
    print(f"copy of the sources' weights  {copied:8.2f} s")
    print(f"fusion, without the check     {fused:8.2f} s")
    print(f"ratio                         {fused / copied:8.2f}    ({rows[0][2]:,} weights)")


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 3, "Measurements.", lower_bound=1)
    flags.DEFINE_integer("size", 64, "Height and width of the images.", lower_bound=32)
    app.run(main)
