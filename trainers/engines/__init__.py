"""Engines: how a training step runs on the devices at hand. The loop sees only `Engine`."""

from trainers.engines.base import Engine, StepOptions, StepSums

__all__ = ["Engine", "StepOptions", "StepSums"]
