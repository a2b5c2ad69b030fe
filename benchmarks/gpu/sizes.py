"""Sizes of the measurements: for an accelerator, and for trying the program on a CPU."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Arms of the plan `gains` at one size of `trainers.plans.sizes`."""

    size: str
    flags: tuple[str, ...]  # of `trainers.pretrain`
    # Label to the arm, the factor of its learning rate, and the seed of its run.
    arms: Mapping[str, tuple[str, float, int]]

    def commands(self):
        """Returns {label: flags} of `trainers.pretrain`, one command for each arm."""
        return {
            f"{self.size}_{label}": (
                "--plan=gains",
                f"--size={self.size}",
                f"--gains_arms={arm}",
                f"--gains_scales={scale}",
                "--gains_seeds=1",
                f"--seed={seed}",
                *self.flags,
            )
            for label, (arm, scale, seed) in self.arms.items()
        }


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


# The second half of a text after the first: short runs leave no plateau of span corruption.
_OBJECTIVE = ("--objective=prefix_lm", "--input_length=64")


SIZES = {
    "full": Size(
        MappingProxyType({"t5_m": (64, 128), "t5_l": (32, 64)}),
        input_length=512,
        steps=10,
        rounds=5,
        fused="t5_m",
        matmul=8192,
        experiments=(
            # Nine times the compute of the demo: there the small model is no longer the better one.
            Experiment(
                "tiny",
                (*_OBJECTIVE, "--warmup_steps=600", "--steps=baseline:7200"),
                MappingProxyType(
                    {
                        "baseline_half": ("baseline", 0.5, 0),
                        "baseline": ("baseline", 1, 0),
                        "baseline_double": ("baseline", 2, 0),
                        "baseline_other_seed": ("baseline", 1, 100),
                        "fused_quarter": ("self_fusion_50", 0.25, 0),
                        "fused_half": ("self_fusion_50", 0.5, 0),
                        "fused": ("self_fusion_50", 1, 0),
                        "fused_half_other_seed": ("self_fusion_50", 0.5, 100),
                        "small": ("small_alone", 1, 0),
                        "small_half": ("small_alone", 0.5, 0),
                    }
                ),
            ),
            Experiment(
                "mini",
                (*_OBJECTIVE, "--warmup_steps=600", "--steps=baseline:1000")
                + ("--dtype=mixed_bfloat16",),
                MappingProxyType(
                    {
                        "baseline": ("baseline", 1, 0),
                        "baseline_double": ("baseline", 2, 0),
                        "fused_half": ("self_fusion_50", 0.5, 0),
                        "fused": ("self_fusion_50", 1, 0),
                        "small": ("small_alone", 1, 0),
                    }
                ),
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
                ("--batch_size=4", "--input_length=16", "--eval_batches=2", "--steps=baseline:16"),
                MappingProxyType(
                    {"baseline": ("baseline", 1, 0), "fused": ("self_fusion_50", 0.5, 0)}
                ),
            ),
        ),
    ),
}
