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
    """`(wall seconds, processor seconds)` of a copy of the sources' weights, and of a fusion."""
    sources = [
        keras.applications.ResNet50(weights=None, input_shape=(size, size, 3), classes=10)
        for _ in range(2)
    ]
    copied = _seconds(lambda: [np.array(weight) for m in sources for weight in m.get_weights()])
    return copied, _seconds(lambda: kf.fuse(sources, check=False))


def _seconds(function):
    wall, processor = time.perf_counter(), time.process_time()
    made = function()
    seconds = time.perf_counter() - wall, time.process_time() - processor
    del made
    return seconds


def main(argv):
    del argv
    warnings.simplefilter("ignore")
    rows = [measure(flags.FLAGS.size) for _ in range(flags.FLAGS.rounds)]
    print("                  copy    fusion     ratio    min – max")
    for name, kind in (("wall time", 0), ("processor time", 1)):
        copies, fusions = ([row[part][kind] for row in rows] for part in range(2))
        ratios = [fusion / copy for copy, fusion in zip(copies, fusions, strict=True)]
        copy, fusion, ratio = map(statistics.median, (copies, fusions, ratios))
        print(
            f"{name:14s} {copy:5.2f} s   {fusion:5.2f} s     {ratio:5.2f}    "
            f"{min(ratios):.2f} – {max(ratios):.2f}"
        )


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 3, "Measurements.", lower_bound=1)
    flags.DEFINE_integer("size", 64, "Height and width of the images.", lower_bound=32)
    app.run(main)
