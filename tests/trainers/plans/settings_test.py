"""Settings of stages: the flags' syntax, what wins, and what is refused."""

import dataclasses

import pytest

from keras_fusion import noise, options
from trainers.errors import UserError
from trainers.plans import graph, settings, sizes, stages_of
from trainers.plans.graph import Stage, repeated
from trainers.training.optimizers import OPTIMIZERS

TINY = sizes.SIZES["tiny"]
BASELINE, SMALL, FUSED = stages_of(["baseline", "self_fusion"])


def test_choices_are_those_of_what_is_imported_with_keras_later():
    assert (settings.NORMS, settings.NOISE_KINDS) == (options.NORMS, noise.NOISE_KINDS)
    assert graph.MOST_COPIES == options.MOST_COPIES
    assert settings.OPTIMIZER_SCALES.keys() == OPTIMIZERS.keys()
    assert set(settings.GROWING_OPTIMIZERS) < OPTIMIZERS.keys()


def flags(**texts):
    return {name: settings.parse(name, text) for name, text in texts.items()}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("steps", "3000", {"": 3000}),
        ("steps", "S:3000,M:4000", {"S": 3000, "M": 4000}),
        ("steps", " S:3000 , M:4000 ", {"S": 3000, "M": 4000}),
        ("steps", "10,M:20", {"": 10, "M": 20}),
        ("learning_rate_offset", "self_fusion:-500", {"self_fusion": -500}),
        ("learning_rate_scale", "M:5e-1", {"M": 0.5}),
        ("noise_kind", "balanced", {"": "balanced"}),
        ("optimizer", "S:adamw", {"S": "adamw"}),
    ],
)
def test_parse(name, text, expected):
    assert settings.parse(name, text) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps", "S:abc"),
        ("steps", "0"),
        ("steps", "S:-1"),
        ("steps", ""),
        ("steps", ":5"),
        ("steps", "S:1,S:2"),
        ("steps", "1,2"),
        ("steps", "S:1,,"),
        ("warmup_steps", "1.5"),
        ("learning_rate_scale", "0"),
        ("learning_rate_scale", "inf"),
        ("dropout", "1"),
        ("dropout", "nan"),
        ("noise", "-0.1"),
        ("noise_kind", "uniform"),
        ("norm", "batch"),
        ("optimizer", "sgd"),
        ("seed", "-1"),
    ],
)
def test_parse_refuses(name, text):
    with pytest.raises(UserError) as error:
        settings.parse(name, text)
    message = str(error.value)
    assert f"Received: {name}={text!r}" in message
    assert f"--{name}=NAME:VALUE" in message
    assert "\n" not in message


def test_defaults_come_from_the_size():
    small = settings.resolve(SMALL, TINY)
    fused = settings.resolve(FUSED, TINY)
    assert small.optimizer == "adafactor"
    assert small.learning_rate_scale == 1.0
    assert (fused.noise, fused.noise_kind, fused.norm) == (0.1, "gaussian", "rule")
    assert (small.noise, small.noise_kind, small.norm) == (None, None, None)


def test_the_stage_beats_the_size_beats_the_bare_value():
    given = flags(steps="1,M:2,self_fusion:3")
    steps = [settings.resolve(stage, TINY, given).steps for stage in (SMALL, BASELINE, FUSED)]
    assert steps == [1, 2, 3]


def test_any_flag_beats_any_default():
    size = sizes.Size(
        *("x", {"S": "tiny_s", "M": "tiny_m"}, 1, 1, 1, 1, 1, "prefix_lm"),
        TINY.defaults | {"steps": "baseline:9"},
    )
    assert settings.resolve(BASELINE, size).steps == 9
    assert settings.resolve(BASELINE, size, flags(steps="4")).steps == 4


def test_what_the_plan_fixes_yields_only_to_its_own_name():
    stage = Stage("offset", "M", "self_fusion", ("small_0",), copies=2, settings={"noise": 0.5})
    assert settings.resolve(stage, TINY).noise == 0.5
    assert settings.resolve(stage, TINY, flags(noise="M:0.2")).noise == 0.5
    assert settings.resolve(stage, TINY, flags(noise="offset:0.2")).noise == 0.2


def test_seeds_of_runs_and_stages_never_meet():
    seen = [
        settings.resolve(stage, TINY, flags(seed=str(run))).seed
        for run in range(3)
        for stage in stages_of(["fusion_rule"])
    ]
    assert seen == [0, 1, 2, 1000, 1001, 1002, 2000, 2001, 2002]
    assert settings.resolve(SMALL, TINY, flags(seed="5,small_0:7")).seed == 7


def test_adamw_has_a_scale_of_its_own():
    assert settings.resolve(SMALL, TINY, flags(optimizer="adamw")).learning_rate_scale == 0.05
    both = flags(optimizer="adamw", learning_rate_scale="0.2")
    assert settings.resolve(SMALL, TINY, both).learning_rate_scale == 0.2


def test_norm_is_free_for_a_self_fusion_only():
    _, _, rule = stages_of(["fusion_rule"])
    given = flags(norm="property")
    assert settings.resolve(FUSED, TINY, given).norm == "property"
    assert settings.resolve(rule, TINY, given).norm == "rule"
    assert settings.resolve(BASELINE, TINY, given).norm is None
    with pytest.raises(UserError, match="'fusion_rule'.*norm='property'"):
        settings.resolve(rule, TINY, flags(norm="fusion_rule:property"))


def test_identity_leaves_out_what_computes_nothing():
    identity = settings.resolve(SMALL, TINY).identity()
    assert "steps" in identity
    assert "checkpoint_every" not in identity
    assert "steps_per_call" not in identity


def test_names_that_nobody_bears_are_refused():
    stages = stages_of(["baseline"])
    settings.check_names(flags(steps="S:1,M:2,baseline:3"), stages, TINY)
    with pytest.raises(UserError, match="among S, M, L, baseline. Received: steps=self_fusion:3"):
        settings.check_names(flags(steps="self_fusion:3"), stages, TINY)
    with pytest.raises(UserError, match="Received: steps=L:3"):
        settings.check_names(flags(steps="L:3"), stages, sizes.SIZES["table8"])


@pytest.mark.parametrize(
    "fixed", [{"noisy": 1}, {"steps": 0}, {"steps": "5"}, {"steps": True}, {"noise_kind": "x"}]
)
def test_what_a_plan_fixes_is_checked(fixed):
    (name, value), *_ = fixed.items()
    with pytest.raises(UserError, match=f"'a'.*Received: {name}={value!r}"):
        settings.resolve(Stage("a", "S", settings=fixed), TINY)
    settings.resolve(Stage("a", "S", settings={"clip_norm": 1, "steps": 5}), TINY)


def test_a_stage_is_like_another_where_it_has_nothing_of_its_own():
    stage = Stage("x", "M", like="baseline")
    assert settings.resolve(stage, TINY).steps == 800
    assert settings.resolve(stage, TINY, flags(steps="baseline:7,M:5")).steps == 7
    assert settings.resolve(stage, TINY, flags(steps="x:9,baseline:7")).steps == 9
    fixed = Stage("x", "M", like="baseline", settings={"steps": 3})
    assert settings.resolve(fixed, TINY, flags(steps="baseline:7")).steps == 3
    settings.check_names(flags(steps="baseline:3"), [stage], TINY)


def test_repeats_have_the_settings_of_the_stage_and_the_next_seeds():
    _, again = repeated([BASELINE], 2)
    assert again.name == "baseline_r2"
    first, second = (settings.resolve(stage, TINY) for stage in (BASELINE, again))
    assert (first.seed, second.seed) == (2, 1002)
    assert dataclasses.replace(second, seed=2) == first
    run_1 = settings.resolve(BASELINE, TINY, flags(seed="1"))
    assert second == run_1
    given = flags(steps="baseline:4", seed="baseline:7")
    assert settings.resolve(again, TINY, given).steps == 4
    assert settings.resolve(again, TINY, given).seed == 1007
    assert settings.resolve(again, TINY, flags(seed="baseline_r2:5")).seed == 5


STACKED = Stage("stacked", "M", "stacked", ("small_0",), copies=2)
NEW = {
    "fill": "diagonal",
    "asymmetry": 0.0,
    "grow": "all",
    "optimizer_state": "fresh",
    "schedule": "restart",
    "rewarmup_steps": 0,
}


def test_a_stage_has_the_settings_of_its_kind():
    _, _, rule = stages_of(["fusion_rule"])

    def of(stage):
        return {name: getattr(settings.resolve(stage, TINY), name) for name in NEW}

    assert settings.resolve(FUSED, TINY).depth is None
    assert settings.resolve(BASELINE, TINY).depth == "whole"
    assert of(FUSED) == NEW
    assert of(rule) == NEW | {"fill": None, "asymmetry": None, "grow": None}
    assert of(STACKED) == dict.fromkeys(NEW) | {"schedule": "restart", "rewarmup_steps": 0}
    assert of(Stage("again", "M", "restarted", ("baseline",))) == of(STACKED)
    assert of(BASELINE) == dict.fromkeys(NEW)


def test_identity_names_newer_settings_only_where_they_are_not_the_default():
    new = {*NEW, "depth", "decay_steps"}
    assert all(new.isdisjoint(settings.resolve(s, TINY).identity()) for s in (FUSED, BASELINE))
    half = settings.resolve(BASELINE, TINY, flags(depth="half"))
    assert half.identity()["depth"] == "half"
    changed = flags(schedule="continue", rewarmup_steps="5", fill="copies", asymmetry="0.1")
    identity = settings.resolve(FUSED, TINY, changed).identity()
    assert {name: identity[name] for name in NEW if name in identity} == {
        "schedule": "continue",
        "rewarmup_steps": 5,
        "fill": "copies",
        "asymmetry": 0.1,
    }
    assert NEW.keys().isdisjoint(settings.resolve(BASELINE, TINY, changed).identity())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fill": "baseline:copies"}, "fuse a model with itself only. Received: fill='copies'"),
        ({"noise": "baseline:0.2"}, "are fused only. Received: noise=0.2 for stage 'baseline'"),
        ({"asymmetry": "0.1"}, "asymmetry of copies in stage 'self_fusion'. Received: fill="),
        (
            {"decay_steps": "9999"},
            "within the 400 steps in stage .* Received: decay_steps=9999",
        ),
        ({"optimizer": "muon", "optimizer_state": "grown"}, "can grow .* Received: optimizer='mu"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        for stage in (FUSED, BASELINE):
            settings.resolve(stage, TINY, flags(**given))
