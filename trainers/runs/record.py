"""Record of a finished stage: W/STAGE/record.json, which reports read."""

import dataclasses

from trainers.engines.base import Engine
from trainers.engines.flops import StepFlops
from trainers.plans.graph import Stage
from trainers.plans.settings import StageSettings
from trainers.training.config import TrainResult


def describe(stage: Stage, settings: StageSettings, model, flops: StepFlops) -> dict:
    """The part of a record that is known before the first step."""
    return {
        "name": stage.name,
        "size": stage.size,
        "init": stage.init,
        "sources": list(stage.sources),
        "repeat": stage.repeat,
        "repeat_of": stage.base,
        "steps": settings.steps,
        "parameters": int(model.count_params()),
        "flops_method": flops.method,
        "learning_rate": {
            "warmup_steps": settings.warmup_steps,
            "offset": settings.learning_rate_offset,
            "scale": settings.learning_rate_scale,
            "rewarmup_steps": settings.rewarmup_steps or 0,
            "decay_steps": settings.decay_steps or 0,
        },
        "seed": settings.seed,
        "settings": dataclasses.asdict(settings),
    }


def reached(result: TrainResult, engine: Engine) -> dict:
    """The part of a record that training gives: the last point of the curve is the result."""
    last = result.curve[-1]
    totals = ("tokens", "flops", "device_seconds", "loss", "loss_per_token", "accuracy")
    return {
        **{name: last[name] for name in totals},
        "steps": result.steps,
        "devices": engine.num_devices,
        "skipped_batches": list(result.skipped_batches),
        "checkpoint": result.checkpoint.name,
        "curve": result.curve,
    }
