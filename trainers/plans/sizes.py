"""Sizes: what S, M and L are for `--size`, and how each is trained by default.

`table8` and `table9` are the models of the paper's appendices B and C with T5's own settings
(batches of 256 sequences of 512 tokens, 10,000 steps of constant learning rate, one million
steps); `tiny` is the same experiment at a size that two processor cores train in minutes, `mini`
one that an accelerator does: table8's widths halved, on a short text.

Example:
    >>> get_size("table8").models["M"]
    't5_medium'
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from trainers.data.objectives import PREFIX_LM, SPAN_CORRUPTION
from trainers.errors import check_choice

SIZE_LETTERS = ("S", "M", "L")


@dataclasses.dataclass(frozen=True)
class Size:
    """Models and default settings of one `--size`."""

    name: str  # what `--size` calls it
    models: Mapping[str, str]  # size letter to the name that `kf.models.T5Config.from_size` knows
    batch_size: int  # sequences per batch
    input_length: int  # tokens that the encoder sees in a sequence
    eval_batches: int  # batches of the fixed validation set
    vocabulary_pieces: int  # pieces of a vocabulary trained for it
    num_sentinels: int  # sentinels that follow them
    objective: str  # task, as `--objective` names it
    # Settings of stages, written as the flags are (see trainers/plans/settings.py).
    defaults: Mapping[str, str]


# Prefix LM, since at this size span corruption stays on a plateau first, and what leaves it soonest
# decides every comparison. The small model and self-fusion together have the FLOPs of the baseline,
# half of them each. docs/gains.md has the sweep of the rates, docs/demo.md what else was tried.
# Noise: from 0.02 to 0.5 no σ changes the end by more than a seed does, and each ends below none;
# of those tried 0.1 is the largest gaussian one that costs little at once: docs/experiments.md.
_TINY = {
    "steps": "S:1364,M:400,L:400,baseline:800,baseline_longer:800",
    "warmup_steps": "600",
    "learning_rate_offset": "0",
    "optimizer": "adafactor",
    "dropout": "0",
    "noise": "0.1",
    "noise_kind": "gaussian",
    "seed": "0",
    "dtype": "float32",
    "eval_every": "S:124,M:16,L:16,baseline:32",
    "checkpoint_every": "500",
    "steps_per_call": "20",
}

_MINI = _TINY | {
    "steps": "S:2500,M:2000,L:2000,baseline:3000,baseline_longer:3000",
    "warmup_steps": "1000",
    "eval_every": "200",
    "steps_per_call": "50",
}

_PAPER = _TINY | {
    "steps": "1000000",
    "warmup_steps": "10000",
    "eval_every": "10000",
    "checkpoint_every": "10000",
    "steps_per_call": "100",
}

_PAPER_RUN = {
    "batch_size": 256,
    "input_length": 512,
    "eval_batches": 32,
    "vocabulary_pieces": 32_000,
    "num_sentinels": 100,
    "objective": SPAN_CORRUPTION,
    "defaults": MappingProxyType(_PAPER),
}

SIZES: dict[str, Size] = {
    size.name: size
    for size in (
        Size(
            "tiny",
            MappingProxyType({"S": "tiny_s", "M": "tiny_m", "L": "tiny_l"}),
            batch_size=32,
            input_length=64,
            eval_batches=16,
            vocabulary_pieces=480,
            num_sentinels=32,
            objective=PREFIX_LM,
            defaults=MappingProxyType(_TINY),
        ),
        Size(
            "mini",
            MappingProxyType({"S": "t5_mini", "M": "t5_small", "L": "t5_medium"}),
            batch_size=64,
            input_length=128,
            eval_batches=16,
            vocabulary_pieces=3_968,
            num_sentinels=128,
            objective=SPAN_CORRUPTION,
            defaults=MappingProxyType(_MINI),
        ),
        Size("table8", MappingProxyType({"S": "t5_small", "M": "t5_medium"}), **_PAPER_RUN),
        Size("table9", MappingProxyType({"S": "t5_s", "M": "t5_m", "L": "t5_l"}), **_PAPER_RUN),
    )
}


def get_size(name: str) -> Size:
    """Returns the size of a name; a `UserError` lists those that there are."""
    check_choice(SIZES, size=name)
    return SIZES[name]
