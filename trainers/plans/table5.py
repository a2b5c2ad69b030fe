"""The plan `table5`: the models that section 5.3 fine-tunes, with the checkpoints that it takes.

Two small models are trained for K steps, the number that `--steps` gives size S. From them a
fusion that keeps the property and a self-fusion are trained for K steps; beside them a big model is
trained from random weights for 2K, and the small one is trained on to 2K. Fine-tuned is each of
them at the steps of its point: 0 is right after the fusion, or at random weights. (The paper's K is
500K; it counts the steps of the big model alone.)

`glue.finetune` takes the checkpoints; this plan only trains and keeps them.
"""

import dataclasses

from trainers.errors import UserError
from trainers.plans.basis import Basis
from trainers.plans.known import PLANS
from trainers.plans.plan import Plan

_PARTS = {"baseline": 2, "fusion_property": 1, "self_fusion": 1}


def table5(basis: Basis) -> Plan:
    """The models of Table 5; points have `model` and `steps`, what is fine-tuned of it."""
    of_table1 = {stage.name: stage for stage in PLANS["table1"].stages}
    small = of_table1["small_0"]
    whole = basis.settings_of(small).steps
    if whole % 2:
        expected = "an even number of steps of size S, as half of them count for plan table5"
        raise UserError(expected, f"steps={whole}", f"Give --steps=S:{whole + 1}")
    half = whole // 2
    longer = dataclasses.replace(
        PLANS["baseline_longer"].stages[-1],
        name="table5_small",
        size="S",
        sources=(small.name,),
        until=None,
        settings={"steps": whole},
    )
    stages = [small, of_table1["small_1"], longer]
    points = {longer.name: {"model": "small", "steps": [whole], "before": whole}}
    for name, times in _PARTS.items():
        fixed = {"steps": times * whole, "checkpoint_every": half}
        stage = dataclasses.replace(
            of_table1[name], name=f"table5_{name}", settings=fixed, like=of_table1[name].name
        )
        steps = [0, half, whole] + ([2 * whole] if times == 2 else [])
        stages.append(stage)
        points[stage.name] = {"model": name, "steps": steps}
    keep = {name: point["steps"] for name, point in points.items() if "before" not in point}
    return Plan(
        "table5",
        "Table 5, Figure 3: the models that are fine-tuned on GLUE",
        tuple(stages),
        points,
        {"steps": whole},
        keep,
    )
