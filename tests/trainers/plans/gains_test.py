"""The plan `gains`: equal compute, arms as in their papers, seeds of the best candidates."""

import itertools

import pytest

from tests.trainers import nano
from trainers import plans
from trainers.errors import UserError
from trainers.files import write_json
from trainers.plans import Basis, gains, settings
from trainers.plans.arms import ARMS, FUSED, PEER, REFERENCE
from trainers.plans.options import PlanOptions
from trainers.plans.widths import check_widths, model_fields
from trainers.pretraining.config import PretrainConfig
from trainers.runs import screening
from trainers.runs.planned import is_promoted
from trainers.runs.state import RunState
from trainers.runs.workdir import RUN_FILE

FLAGS = {"steps": {"baseline": 64}}
HALF = settings.DEPTHS["half"]
CONFIGS = {
    "S": {"num_layers": 2, "hidden_dim": 8, "num_heads": 2, "intermediate_dim": 16},
    "M": {"num_layers": 2, "hidden_dim": 16, "num_heads": 4, "intermediate_dim": 32},
}


def cost(letter, times=None):
    """A quarter of M's for S, in proportion to what is multiplied."""
    whole = {"S": 1.0, "M": 4.0}[letter]
    for factor in (times or {}).values():
        whole *= factor**0.5
    return whole


def parameters(letter, times=None):
    """20 weights beside 10 for each layer of S, 100 of M: eight layers of S have as many."""
    return 20 + 10 * (times or {}).get("num_layers", 1) if letter == "S" else 100


def plan_of(*arms, **options):
    basis = Basis(
        nano.NANO,
        cost,
        FLAGS,
        PlanOptions(gains_arms=arms or None, **options),
        parameters=parameters,
        finalists=("baseline", "mlp", "heads", "net2net"),
    )
    return plans.get_plan("gains", basis)


def spent(plan, name):
    """Compute of a stage and of all that it comes from, each step once."""
    stages = {stage.name: stage for stage in plan.stages}
    growths = {n: s.settings["grow"] for n, s in stages.items() if "grow" in s.settings}
    axes = {name: settings.GROWTHS[grow] for name, grow in growths.items()}
    halved = {n: HALF for n, s in stages.items() if s.settings.get("depth") == "half"}
    total, pending = 0.0, [(name, stages[name].settings["steps"])]
    while pending:
        name, steps = pending.pop()
        stage = stages[name]
        fields = model_fields(stage, stages, CONFIGS, axes, halved)
        base = "M" if fields["hidden_dim"] == 16 else "S"
        total += steps * cost(base, {key: fields[key] / CONFIGS[base][key] for key in fields})
        pending += [
            (source, stage.source_steps.get(source, stages[source].settings["steps"]))
            for source in stage.sources
        ]
    return total


@pytest.mark.parametrize("budget", [1, 3])
def test_every_arm_spends_the_budget(budget):
    plan = plan_of(gains_budgets=(1, 3), gains_seeds=1)
    whole = 64 * 4.0
    assert plan.facts["flops"] == whole
    seen = set()
    for name, point in plan.points.items():
        if point.get("budget") == budget:
            seen.add(point["arm"])
            assert spent(plan, name) == pytest.approx(budget * whole, abs=4.0), name
    assert seen == set(ARMS)


def test_arms_are_stages_that_can_be_trained():
    plan = plan_of()
    growths, halved = {}, {}
    for stage in plan.stages:
        resolved = settings.resolve(stage, nano.NANO, FLAGS)
        if (resolved.grow or "all") != "all":
            growths[stage.name] = resolved.growing
        if resolved.depth == "half":
            halved[stage.name] = resolved.times
    assert growths and halved
    check_widths(plan.stages, CONFIGS, growths, halved)


def last_stages(plan, arm):
    """The last stages of an arm, those of further seeds aside."""
    points = plan.points.items()
    names = {name for name, at in points if at.get("arm") == arm}
    return [stage for stage in plan.stages if stage.name in names]


def test_sources_are_checkpoints_of_one_run_that_larger_budgets_continue():
    plan = plan_of("self_fusion_25", "self_fusion_75", "fusion_rule_50", gains_budgets=(1, 3))
    # An eighth of the budget is 8 steps of M, hence 32 of S.
    fused = {
        (point["arm"], point["budget"]): stage
        for name, point in plan.points.items()
        for stage in plan.stages
        if stage.name == name and "arm" in point
    }
    places = {key: [stage.written(name) for name in stage.sources] for key, stage in fused.items()}
    assert places == {
        ("self_fusion_25", 1): ["gains_small_64"],
        ("self_fusion_75", 1): ["gains_small_192"],
        ("fusion_rule_50", 1): ["gains_small_64", "gains_small_other_64"],
        ("self_fusion_25", 3): ["gains_small_192"],
        ("self_fusion_75", 3): ["gains_small_576"],
        ("fusion_rule_50", 3): ["gains_small_192", "gains_small_other_192"],
    }
    steps = {s.name: (s.sources, s.settings["steps"]) for s in plan.stages if "small" in s.name}
    assert {name: steps[name] for name in steps if not name.endswith("_r2")} == {
        "gains_small_64": ((), 64),
        "gains_small_128": (("gains_small_64",), 64),
        "gains_small_192": (("gains_small_128",), 64),
        "gains_small_384": (("gains_small_192",), 192),
        "gains_small_576": (("gains_small_384",), 192),
        "gains_small_other_64": ((), 64),
        "gains_small_other_128": (("gains_small_other_64",), 64),
        "gains_small_other_192": (("gains_small_other_128",), 64),
    }


def test_two_sources_may_be_fused_on_the_way():
    plan = plan_of("fusion_property_25", gains_scales=(1.0,), gains_seeds=1)
    fused = plan.stages[-1]
    sources = ["gains_small_64@32", "gains_small_other_64@32"]
    assert [fused.written(name) for name in fused.sources] == sources
    assert plan.keep["gains_small_64"] == [32]


def test_one_source_may_be_fused_after_an_eighth():
    plan = plan_of("self_fusion_12", gains_scales=(1.0,), gains_seeds=1)
    fused = plan.stages[-1]
    assert [fused.written(name) for name in fused.sources] == ["gains_small_64@32"]
    assert ARMS["self_fusion_12"].about.endswith(" at 12.5% of the budget")
    # The rest of the budget is the fused model's.
    assert fused.settings["steps"] == 56


def test_the_peers_of_their_papers():
    plan = plan_of("hypercloning", "net2net", "stacked", "staged_training", gains_scales=(1.0,))
    (hyper,), (net2net,), (stacked,), (staged,) = (
        last_stages(plan, arm) for arm in ("hypercloning", "net2net", "stacked", "staged_training")
    )
    # A power a tenth of that of the blocks, which are half of the source.
    noise = hyper.settings["noise"]
    assert (noise / 0.5) ** 2 == pytest.approx(0.1)
    assert hyper.settings["noise_kind"] == "balanced"
    assert [stage.settings["fill"] for stage in (hyper, net2net)] == ["copies"] * 2
    assert net2net.settings["noise"] == 0
    assert (stacked.init, stacked.copies, stacked.size) == ("stacked", 8, "M")
    resolved = settings.resolve(staged, nano.NANO, FLAGS)
    assert (resolved.optimizer_state, resolved.schedule) == ("grown_diagonal", "continue")
    assert resolved.noise == 0.1


def test_growth_in_two_steps_shares_what_is_left():
    plan = plan_of("two_steps", gains_scales=(1.0,), gains_seeds=1)
    *_, small, first, last = plan.stages
    assert (first.size, first.settings["grow"], first.sources) == ("S", "mlp", (small.name,))
    assert (last.size, last.settings["grow"], last.sources) == ("M", "hidden+heads", (first.name,))
    costs = [first.settings["steps"] * 2**0.5, last.settings["steps"] * 4]
    assert costs == pytest.approx([64, 64], abs=2)
    on_the_way = [name for name, point in plan.points.items() if "arm" not in point]
    assert on_the_way == [first.name, *(stage.name for stage in plan.stages[:-2])]


def test_arms_of_another_optimizer_have_sources_of_it():
    plan = plan_of("self_fusion_muon", gains_seeds=1)
    # A stage that continues another one has its settings.
    stages = [stage for stage in plan.stages if not stage.is_continued]
    resolved = [settings.resolve(stage, nano.NANO, FLAGS) for stage in stages]
    assert {of.optimizer for of in resolved} == {"muon"}
    # The small model's, and those of a sweep around it.
    usual = settings.OPTIMIZER_SCALES["muon"]
    factors = [1.0, 0.5, 1.0, 2.0]
    assert [of.learning_rate_scale for of in resolved] == [usual * factor for factor in factors]


def test_the_ramp_is_a_share_of_the_fused_steps():
    (stage,) = last_stages(plan_of("fresh_rewarmed", gains_scales=(1.0,)), "fresh_rewarmed")
    assert stage.settings["rewarmup_steps"] == round(0.03 * stage.settings["steps"])
    assert stage.settings["schedule"] == "continue"


@pytest.mark.parametrize(("decay", "share"), [(None, 0.2), (0.9, 0.5), (0.0, 0.0)])
def test_every_arm_has_a_decay_of_as_much_compute(decay, share):
    """A fused stage of half of the budget has none longer than itself."""
    options = {"gains_scales": (1.0,), "gains_seeds": 1, "gains_decay": decay}
    plan = plan_of("baseline", "self_fusion_50", **options)
    whole, fused = last_stages(plan, "baseline"), last_stages(plan, "self_fusion_50")
    steps = [stage.settings["decay_steps"] for stage in (*whole, *fused)]
    budget = whole[0].settings["steps"]
    assert steps == pytest.approx(
        [budget * (0.2 if decay is None else decay), budget * share], abs=1
    )
    small = [stage for stage in plan.stages if "small" in stage.name]
    assert small and not any("decay_steps" in stage.settings for stage in small)


def test_only_the_best_candidate_has_further_seeds(tmp_path):
    plan = plan_of("baseline", gains_seeds=3)
    first, *_ = names = list(plan.points)  # none of them is on the way
    assert len(plan.stages) == 3 * 3
    state = RunState(tmp_path)
    for name, loss in zip(names, (2.0, 1.0, 3.0), strict=True):
        state.write_record(name, {"loss_per_token": loss})
    again = [stage.name for stage in plan.stages if stage.repeat > 1 and is_promoted(stage, state)]
    assert again == [f"{names[1]}_r2", f"{names[1]}_r3"]
    seeds = {stage.name: settings.resolve(stage, nano.NANO, FLAGS).seed for stage in plan.stages}
    assert [seeds[f"{first}{again}"] for again in ("", "_r2", "_r3")] == [2, 1002, 2002]


def test_the_best_of_the_screening_are_the_finalists(tmp_path):
    kinds = {REFERENCE: "baseline", FUSED: "mlp", PEER: "net2net"}
    assert {ARMS[name].kind: name for name in kinds.values()} == kinds
    losses = {"baseline": 2.0, "baseline_muon": 2.1, "mlp": 1.9, "heads": 1.8, "unequal": 1.7}
    assert gains.finalists(losses) == ()
    losses |= {"net2net": 2.5, "stacked": 2.4}
    assert gains.finalists(losses) == ("baseline", "unequal", "heads", "stacked")
    state = RunState(tmp_path)
    points = {}
    for arm, loss in losses.items():
        points |= {f"{arm}_{i}": {"arm": arm, "budget": 1} for i in range(2)}
        # The first candidate is the best of two seeds; the second one was better by chance.
        for name, value in ((f"{arm}_0", loss + 0.1), (f"{arm}_0_r2", loss - 0.1)):
            state.write_record(name, {"loss_per_token": value})
        state.write_record(f"{arm}_1", {"loss_per_token": loss + 0.2})
    assert screening.finalists(state) == ()
    write_json(tmp_path / RUN_FILE, {"experiments": {"gains": {"points": points}}})
    assert screening.finalists(state) == ("baseline", "unequal", "heads", "stacked")


def test_the_finals_are_those_of_the_screening():
    arms = [point["arm"] for point in plan_of("best").points.values() if "arm" in point]
    assert list(dict.fromkeys(arms)) == ["baseline", "mlp", "heads", "net2net"]


def test_finals_before_the_screening_are_refused():
    basis = Basis(nano.NANO, cost, FLAGS, PlanOptions(gains_arms=("best",)), parameters=parameters)
    with pytest.raises(UserError, match="screening of at least 1 reference, 2 fused, 1 peer arms"):
        plans.get_plan("gains", basis)
    with pytest.raises(UserError, match="Received: gains_arms='ghost'"):
        plan_of("ghost")


@pytest.mark.parametrize("budgets", [(1,), (2,), (3, 4), (5, 7), (9,), (10,)])
def test_a_stage_of_a_name_is_the_same_at_all_budgets(budgets):
    """So that budgets can be trained one by one."""
    arms = ("self_fusion_12", "self_fusion_75", "fusion_rule_25", "restarted_25")
    stages = plan_of(*arms, gains_budgets=budgets, gains_seeds=1).stages
    every = plan_of(*arms, gains_budgets=tuple(range(1, 12)), gains_seeds=1).stages
    assert {stage.name: stage for stage in stages}.items() <= {s.name: s for s in every}.items()


def test_names_do_not_depend_on_what_else_is_asked_for():
    """So that arms can be trained one by one, and candidates be added."""
    alone = {stage.name: stage for stage in plan_of("mlp", gains_scales=(1.0,)).stages}
    together = {stage.name: stage for stage in plan_of(gains_budgets=(1, 3, 9)).stages}
    for name, stage in alone.items():
        same = together[name]
        assert (same.sources, same.settings) == (stage.sources, stage.settings)
    assert len(together) == len(set(itertools.chain(together, alone)))


def test_the_budget_may_be_given_without_the_baseline(tmp_path):
    given = {"workdir": str(tmp_path), "stage_flags": FLAGS}
    config = PretrainConfig(("gains",), plan_options=PlanOptions(gains_arms=("mlp",)), **given)
    assert not any("baseline" in stage.name for stage in config.stages)


def test_a_sweep_comes_in_a_command_before(tmp_path):
    with pytest.raises(UserError, match="plan=gains in a command of its own.*plan='tune,gains'"):
        PretrainConfig(("tune", "gains"), workdir=str(tmp_path))


def test_the_scales_of_a_sweep_are_those_that_one_would_write():
    last = last_stages(plan_of("baseline_adamw", gains_scales=(1.4, 0.7)), "baseline_adamw")
    names = [stage.name for stage in last if stage.repeat == 1]
    assert [name.rpartition("_")[2] for name in names] == ["s7e-2", "s35e-3"]


def test_a_restarted_model_is_the_big_one_all_along():
    plan = plan_of("restarted_25", gains_scales=(0.5,), gains_seeds=1)
    source, again = plan.stages
    assert (source.size, source.init, again.size, again.init) == ("M", "scratch", "M", "restarted")
    assert source.settings["steps"] == 16 and again.settings["steps"] == 48
    assert (again.sources, again.copies) == ((source.name,), 1)
    assert again.settings["decay_steps"] == round(gains.DECAY * 64)
    assert source.seed != again.seed  # other batches


def test_stacked_layers_of_the_big_model_are_those_of_half_its_depth():
    plan = plan_of("stacked_half", gains_scales=(1.0,), gains_seeds=1)
    stages = {stage.name: stage for stage in plan.stages}
    source, *_, stacked = plan.stages
    assert (source.size, source.settings["depth"], source.init) == ("M", "half", "scratch")
    assert source.seed != stacked.seed
    assert (stacked.size, stacked.copies) == ("M", 2)
    fields = model_fields(stacked, stages, CONFIGS, resized={source.name: HALF})
    assert fields == CONFIGS["M"]
