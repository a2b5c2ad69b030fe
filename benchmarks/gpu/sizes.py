"""Sizes of the measurements: for an accelerator, and for trying the program on a CPU."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


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
    pretrain: tuple[str, ...]  # flags of trainers.pretrain
    plans: tuple[str, ...]  # its plans, in this order, one command for each
    most_steps: int  # of a stage of the experiment, however much time there is


SIZES = {
    "full": Size(
        MappingProxyType({"t5_m": (64, 128), "t5_l": (32, 64)}),
        input_length=512,
        steps=10,
        rounds=5,
        fused="t5_m",
        matmul=8192,
        # The second half of a text after the first: short runs leave no plateau of span corruption.
        pretrain=(
            *("--size=mini", "--dtype=mixed_bfloat16"),
            *("--objective=prefix_lm", "--input_length=64"),
        ),
        plans=("baseline,self_fusion", "table1"),
        most_steps=10_000,
    ),
    "small": Size(
        MappingProxyType({"tiny_s": (4, 8)}),
        input_length=32,
        steps=2,
        rounds=3,
        fused="tiny_s",
        matmul=256,
        pretrain=("--size=tiny", "--batch_size=4", "--input_length=16", "--eval_batches=2"),
        plans=("baseline,self_fusion", "fusion_property"),
        most_steps=20,
    ),
}
