"""Sizes of the measurements: for an accelerator, and for trying the program on a CPU."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Arms of the plan `gains` at one size of `trainers.plans.sizes`."""

    size: str
    flags: tuple[str, ...]  # of `trainers.pretrain`
    # Each a name, the factor of its learning rate, and the seed of its run.
    arms: tuple[tuple[str, float, int], ...]
    packages: tuple[str, ...] = ()  # whose docstrings are the text; none: the project's `docs`

    def commands(self):
        """Returns {name: flags} of `trainers.pretrain`, one command for each arm.

        Example: "tiny_baseline_x0.5_seed100".
        """
        return {
            f"{self.size}_{arm}_x{scale:g}_seed{seed}": (
                "--plan=gains",
                f"--size={self.size}",
                f"--gains_arms={arm}",
                f"--gains_scales={scale}",
                "--gains_seeds=1",
                f"--seed={seed}",
                *self.flags,
            )
            for arm, scale, seed in self.arms
        }


# 25 MB of docstrings: `docs` is read seven times at nine times the smallest budget.
_LONG_TEXT = (
    *("tensorflow", "scipy", "scikit-learn", "jax", "python", "numpy", "keras"),
    *("matplotlib", "keras-hub"),
)


def _sweep(arm, *scales, seed=0):
    return tuple((arm, scale, seed) for scale in scales)


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of all parts."""

    # Model to batch sizes; the peer takes the first.
    batches: Mapping[str, tuple[int, ...]]
    input_length: int  # tokens that the encoder sees
    steps: int  # per call
    rounds: int
    fused: str  # model of the sources of the fusion
    matmul: int  # rows and columns of the product that is timed
    experiments: tuple[Experiment, ...]


SIZES = {
    "full": Size(
        MappingProxyType({"t5_m": (64,), "t5_l": (32, 64)}),
        input_length=512,
        steps=10,
        rounds=5,
        fused="t5_m",
        matmul=8192,
        experiments=(
            # Nine times the smallest budget: there the small model is no longer the better one.
            Experiment(
                "tiny",
                ("--steps=baseline:7200",),
                _sweep("baseline", 1, 2)
                + _sweep("baseline", 1, seed=100)
                + _sweep("baseline", 1, seed=200)
                + _sweep("self_fusion_25", 0.5, 1)
                + _sweep("self_fusion_25", 1, seed=100)
                + _sweep("self_fusion_25", 1, seed=200)
                + _sweep("self_fusion_12", 1)
                + _sweep("fusion_property_25", 1)
                + _sweep("stacked_half", 1)
                + _sweep("stacked_half", 1, seed=100)
                + _sweep("stacked_half", 1, seed=200),
                packages=_LONG_TEXT,
            ),
            Experiment(
                "mini",
                # Short runs leave no plateau of span corruption.
                ("--objective=prefix_lm", "--input_length=64", "--warmup_steps=600")
                + ("--steps=baseline:2000", "--dtype=mixed_bfloat16"),
                # At rates of 1 and 2 the bigger model did not learn.
                _sweep("baseline", 0.125, 0.25, 0.5)
                + _sweep("self_fusion_25", 0.125, 0.25)
                + _sweep("stacked_half", 0.25)
                + _sweep("small_alone", 0.25),
                packages=_LONG_TEXT,
            ),
        ),
    ),
    "small": Size(
        MappingProxyType({"tiny_s": (4, 8)}),
        input_length=32,
        steps=2,
        rounds=3,
        fused="tiny_s",
        matmul=256,
        experiments=(
            Experiment(
                "tiny",
                ("--batch_size=8", "--input_length=16", "--eval_batches=2", "--steps=baseline:16"),
                _sweep("baseline", 1) + _sweep("self_fusion_50", 0.5),
            ),
        ),
    ),
}
