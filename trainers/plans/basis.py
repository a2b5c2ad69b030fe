"""The facts that plans which depend on the run at hand are made from."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from trainers.plans import settings
from trainers.plans.graph import Stage
from trainers.plans.options import PlanOptions
from trainers.plans.settings import StageSettings
from trainers.plans.sizes import Size


@dataclasses.dataclass(frozen=True)
class Basis:
    """Facts that plans are made from."""

    size: Size  # what `--size` says
    # Size letter to the cost of a training step: FLOPs, or device-seconds where the options have
    # `step_seconds`. Of both functions `times` has what fields of the model's config are multiplied
    # by; of this one `training_length` has the tokens that the encoder sees, where not the run's.
    step_cost: Callable[..., float]
    # Setting to what `settings.parse` found in its flag.
    flags: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    options: PlanOptions = PlanOptions()  # lists that the user gave
    # What a sweep found, as for `settings.resolve`.
    tuned: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    parameters: Callable[..., int] = None  # size letter to the number of its model's weights
    input_length: int | None = None  # tokens that the encoder sees; None: those of the size
    finalists: tuple[str, ...] = ()  # arms of the plan `gains` that did best in its screening

    def settings_of(self, stage: Stage) -> StageSettings:
        """Returns the settings that a stage will be trained with."""
        return settings.resolve(stage, self.size, self.flags, self.tuned)

    def cost_of(
        self,
        stage: Stage,
        size: str | None = None,
        times: Mapping[str, float] = MappingProxyType({}),
    ) -> float:
        """Returns the cost of a step of a stage, as its settings have its model and sequences.

        Args:
            stage: of a plan.
            size: letter of the size that its model is made from; None for its own.
            times: what fields of the config of that size are multiplied by, besides.
        """
        resolved = self.settings_of(stage)
        own = {"times": {**resolved.times, **times}, "training_length": resolved.training_length}
        return self.step_cost(
            size or stage.size, **{name: value for name, value in own.items() if value}
        )

    def unless_same(self, stage: Stage, built_in: Stage) -> Stage:
        """The built-in stage where it is trained alike, else the stage."""
        fields = ("init", "parents", "source_steps", "norm")
        same = all(getattr(stage, field) == getattr(built_in, field) for field in fields)
        return built_in if same and self.settings_of(stage) == self.settings_of(built_in) else stage
