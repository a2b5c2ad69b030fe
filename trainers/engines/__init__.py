"""Engines: how a training step runs on the devices at hand. The loop sees only `Engine`."""

from trainers.engines.base import Engine, StepSums

__all__ = ["Engine", "StepSums"]
