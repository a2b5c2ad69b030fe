"""Plans at equal compute, where flags make the steps of some stages cheaper than others'."""

import pytest

from tests.trainers import nano
from trainers import pretrain
from trainers.engines.flops import planned_step_flops
from trainers.pretraining.stage import Run

# A training length of one size or stage, a depth and a shape of the baseline, steps of one source.
CHEAPER = [
    "--training_length=32",
    "--training_length=M:32",
    "--training_length=small_0:32",
    "--depth=baseline:half",
    "--shape=baseline:mlp",
]
ARMS = (
    *("baseline", "small_alone", "half_alone", "self_fusion_50", "fusion_rule_50"),
    *("mlp", "two_steps", "stacked", "stacked_half", "restarted_25"),
)


class Costs:
    """FLOPs of the stages of a command, as its models, its sequences and its steps have them."""

    def __init__(self, plan, *flags):
        flags = (f"--plan={plan}", "--size=tiny", "--workdir=nowhere", *flags)
        self.config = nano.config_of(pretrain, *flags)
        self.run = Run(self.config, None, (), 512, None)
        self.stages = {stage.name: stage for stage in self.config.stages}

    def step(self, name):
        stage = self.stages[name]
        lengths = self.run.lengths(stage)
        return planned_step_flops(self.run.stage_config(stage), self.config.batch_size, *lengths)

    def spent(self, name, steps=None):
        """FLOPs of a stage up to a step and of all that it comes from."""
        stage = self.stages[name]
        before = [self.spent(source, stage.source_steps.get(source)) for source in stage.sources]
        return sum(before) + self.step(name) * (steps or self.config.settings[name].steps)

    @property
    def points(self):
        (plan,) = self.config.plans
        return plan.points.items()


@pytest.mark.parametrize("flag", [*CHEAPER, "--steps=small_1:900"])
@pytest.mark.parametrize("plan", ["shapes", "lengths"])
def test_sources_that_differ(plan, flag):
    costs = Costs(plan, flag)
    spent = [costs.spent(name) for name, point in costs.points if point["arm"]]
    assert len(spent) == 3
    assert spent == pytest.approx([spent[0]] * 3, rel=2e-3)


@pytest.mark.parametrize("flag", CHEAPER)
def test_ways_to_grow(flag):
    costs = Costs("gains", flag, f"--gains_arms={','.join(ARMS)}", "--gains_scales=1")
    spent = {point["arm"]: costs.spent(name) for name, point in costs.points if "arm" in point}
    assert [*spent.values()] == pytest.approx([spent["baseline"]] * len(spent), rel=2e-3)


@pytest.mark.parametrize("flag", CHEAPER)
def test_when_to_fuse(flag):
    costs = Costs("when_to_fuse", flag, "--budgets=6e12,9e12", "--fuse_at=500,1000")
    for name, point in costs.points:
        for budget, steps in zip((6e12, 9e12), point["steps"], strict=True):
            assert 0 <= budget - costs.spent(name, steps) < costs.step(name), name


@pytest.mark.parametrize("flag", CHEAPER)
def test_candidates_of_learning_rates(flag):
    costs = Costs("tune", flag)
    rungs = {
        point["arm"]: costs.step(name) * costs.config.settings[name].steps
        for name, point in costs.points
        if point["rung"] == 1
    }
    assert [*rungs.values()] == pytest.approx([rungs["baseline"]] * len(rungs), rel=2e-2)
