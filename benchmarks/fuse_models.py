"""Fuses two ResNet50, against copying their weights once and against what Keras needs by itself.

    python -m benchmarks.fuse_models [--rounds=3] [--size=64]

One bound is the time of reading the sources' weights and writing them once, as numpy arrays. The
other one is the time in which Keras makes a model of the fused one's architecture and gives it
arrays that are at hand: no fusion to a Keras model can do without most of that. The fusion compares
and plans, searches the weights for NaN, and builds the fused model from them; the check on random
inputs is left out. Takes ten seconds per round, and 2 GB.
"""

import statistics
import time
import warnings

import keras
import numpy as np
from absl import flags

import keras_fusion as kf
from benchmarks import _programs

BOUNDS = ("copying the weights", "Keras builds and assigns")


def networks(size):
    """Two ResNet50 of ten classes for images of this height and width."""
    return [
        keras.applications.ResNet50(weights=None, input_shape=(size, size, 3), classes=10)
        for _ in range(2)
    ]


def measure(sources):
    """Measures a fusion and its bounds.

    Args:
        sources: Built models.

    Returns:
        `(wall seconds, processor seconds)` of a copy of the sources' weights, of building the fused
        model with Keras alone from ready arrays, and of the fusion.
    """
    copied, _ = _timed(lambda: [np.array(w) for model in sources for w in model.get_weights()])
    fusion, fused = _timed(lambda: kf.fuse(sources, check=False))
    arrays = fused.get_weights()
    built, _ = _timed(lambda: keras.models.clone_model(fused).set_weights(arrays))
    return copied, built, fusion


def _timed(function):
    wall, processor = time.perf_counter(), time.process_time()
    made = function()
    return (time.perf_counter() - wall, time.process_time() - processor), made


def main():
    warnings.simplefilter("ignore")
    rounds = [measure(networks(flags.FLAGS.size)) for _ in range(flags.FLAGS.rounds)]
    print("fusion over                                bound    fusion     ratio    min – max")
    for number, bound in enumerate(BOUNDS):
        for kind, name in enumerate(("wall time", "processor time")):
            bounds, fusions = ([row[part][kind] for row in rounds] for part in (number, 2))
            ratios = [fusion / bound for bound, fusion in zip(bounds, fusions, strict=True)]
            seconds, fusion, ratio = map(statistics.median, (bounds, fusions, ratios))
            print(
                f"{bound:24s} {name:14s} {seconds:5.2f} s   {fusion:5.2f} s     {ratio:5.2f}    "
                f"{min(ratios):.2f} – {max(ratios):.2f}"
            )


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 3, "Measurements.", lower_bound=1)
    flags.DEFINE_integer("size", 64, "Height and width of the images.", lower_bound=32)
    _programs.run(main)
