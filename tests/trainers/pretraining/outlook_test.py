"""FLOPs and time that a command has left, with speeds that are known."""

import pytest

import keras_fusion as kf
from tests.trainers import nano
from trainers import checkpoints
from trainers.checkpoints import CHECKPOINT_FOLDER
from trainers.checkpoints.format import MARKER_FILE
from trainers.engines.flops import step_flops
from trainers.plans.graph import Stage
from trainers.plans.settings import resolve
from trainers.pretraining.outlook import Outlook, Work, duration, expected_speed, works
from trainers.runs.state import RunState


class Timed(Outlook):
    """An outlook with a clock that moves as the steps do."""

    def __init__(self, works, speed=None):
        self.now = 0.0
        super().__init__(works, speed, clock=lambda: self.now)

    def take(self, name, step, count, seconds):
        self.now += seconds
        return self.took(name, step, count, seconds)


def outlook_of(*parts):
    """An outlook of (stage, FLOPs per step, steps, steps taken)."""
    return Timed({stage.name: Work.of_stage(stage, *numbers) for stage, *numbers in parts})


def rivals(count, keep, flops):
    """A sweep: `count` candidates of ten steps, `keep` of which go on for twenty."""
    names = tuple(f"c{index}" for index in range(count))
    first = [(Stage(name, "S"), 1.0, 10, 0) for name in names]
    again = [
        (Stage(f"{n}_2", "S", "continued", (n,), rivals=names, keep=keep), cost, 20, 0)
        for n, cost in zip(names, flops, strict=True)
    ]
    return outlook_of(*first, *again)


SMALL, BIG = Stage("small", "S"), Stage("big", "M", "self_fusion", ("small",), copies=2)


def test_flops_are_those_that_are_left():
    outlook = outlook_of((SMALL, 2.0, 100, 40), (BIG, 10.0, 50, 0))
    assert outlook.flops == 2 * 60 + 10 * 50
    assert (
        outlook.cost == "2 stages to train, 620 FLOPs; the time is measured after the first call."
    )
    outlook.end("small")
    assert outlook.cost.startswith("1 of 2 stages to train, 500 FLOPs;")
    outlook.end("big")
    assert (outlook.flops, outlook.cost) == (0, "all stages are finished.")


def test_what_lies_between_two_stages_counts_to_each_that_follows():
    first, second, third = (Stage(name, "S") for name in ("first", "second", "third"))
    outlook = outlook_of(*((stage, 1.0, 10, 0) for stage in (first, second, third)))
    outlook.begin("first")
    outlook.take("first", 10, 10, 10.0)
    outlook.end("first")
    outlook.now += 7.0  # an evaluation
    outlook.begin("second")
    outlook.now += 1.0  # a model is built
    # 10 FLOPs of the third at 1 s per FLOP, and 7 + 1 s before them.
    assert outlook.take("second", 10, 10, 10.0)[0] == pytest.approx(10 + 8)


def test_time_is_guessed_before_any_step():
    outlook = Timed({"small": Work("S", 2.0, 100)}, speed=0.5)
    assert outlook.cost == (
        "1 stage to train, 200 FLOPs, roughly 7 min; the time is measured after the first call."
    )
    # Of a product that any machine computes.
    assert 1e8 < expected_speed() < 1e16


def test_time_left_is_that_of_all_stages_at_the_speed_measured():
    outlook = outlook_of((SMALL, 2.0, 100, 0), (BIG, 10.0, 50, 0))
    assert outlook.seconds() is None
    outlook.begin("small")
    # 10 steps of 2 FLOPs in 4 seconds: 0.2 s per FLOP, for 180 + 500 that are left.
    assert outlook.take("small", 10, 10, 4.0) == (
        pytest.approx(136.0),
        "About 3 min left in all, measured on small.",
    )
    # Slower since: 40 FLOPs in 16 s.
    assert outlook.take("small", 20, 10, 12.0) == (pytest.approx(0.4 * (160 + 500)), "")
    outlook.end("small")
    assert outlook.seconds() == pytest.approx(0.4 * 500)
    # The big one is measured itself: 100 FLOPs in 5 s, and 400 left.
    outlook.begin("big")
    left, news = outlook.take("big", 10, 10, 5.0)
    assert (left, news) == (pytest.approx(20), "About 20 s left in all, measured on big.")
    outlook.end("big")
    assert outlook.seconds() == 0


def test_where_nothing_is_left_nothing_is_told():
    outlook = outlook_of((SMALL, 2.0, 10, 0))
    outlook.begin("small")
    assert outlook.take("small", 10, 10, 4.0) == (0, "")


def test_stages_of_one_size_are_as_fast_as_each_other():
    outlook = outlook_of((SMALL, 1.0, 10, 0), (BIG, 1.0, 10, 0), (Stage("other", "S"), 1.0, 10, 0))
    for name, seconds in (("small", 10.0), ("big", 30.0)):
        outlook.begin(name)
        outlook.take(name, 10, 10, seconds)
        outlook.end(name)
    assert outlook.seconds() == pytest.approx(10)


def test_a_stage_that_has_not_begun_also_takes_what_the_latest_took_before_its_first_step():
    outlook = outlook_of((SMALL, 1.0, 10, 0), (BIG, 1.0, 10, 0), (Stage("other", "S"), 1.0, 10, 0))
    outlook.begin("small")
    outlook.now += 7
    # A second per step: 5 of this one, then twice 7 + 10.
    assert outlook.take("small", 5, 5, 5.0)[0] == pytest.approx(39)
    outlook.end("small")
    outlook.begin("big")
    assert outlook.seconds() == pytest.approx(10 + 17)
    outlook.now += 2
    assert outlook.take("big", 10, 10, 10.0)[0] == pytest.approx(12)


def test_stages_side_by_side_share_the_time():
    outlook = outlook_of((SMALL, 1.0, 10, 0), (Stage("other", "S"), 1.0, 10, 0))
    for name in ("small", "other"):
        outlook.begin(name)
    outlook.take("small", 5, 5, 5.0)
    left, _ = outlook.take("other", 5, 5, 5.0)
    assert left == pytest.approx(5)


def test_of_rivals_those_count_that_go_on():
    outlook = rivals(4, 2, [1.0] * 4)
    assert outlook.flops == 4 * 10 + 2 * 20
    assert "at most" not in outlook.cost
    for name in ("c0", "c1", "c2", "c3", "c1_2", "c3_2"):
        outlook.end(name)
    outlook.end("c0_2")
    assert outlook.flops == 20


def test_a_cost_that_depends_on_results_is_a_bound():
    unlike = rivals(2, 1, [1.0, 3.0])
    assert unlike.flops == 20 + 60 and "at most 80 FLOPs" in unlike.cost
    longer = Stage("longer", "M", "continued", ("big",), until="other")
    assert "at most 10 FLOPs" in outlook_of((longer, 1.0, 10, 0)).cost


def test_what_is_trained_already_is_not_left(tmp_path):
    """FLOPs per step come from the model's configuration, steps from checkpoints and records."""
    state = RunState(tmp_path)
    stages = [Stage(name, "S", seed=seed) for seed, name in enumerate(("done", "begun", "new"))]
    state.write_record("done", {})
    for step in (1, 2, 3):
        folder = tmp_path / "begun" / CHECKPOINT_FOLDER / checkpoints.step_folder(step)
        folder.mkdir(parents=True)
        if step < 3:  # the last one is not whole
            (folder / MARKER_FILE).write_text("")
    config = kf.models.T5Config.from_size("tiny_s", vocabulary_size=128)
    settings = {stage.name: resolve(stage, nano.NANO) for stage in stages}
    work = works(stages, settings, lambda stage: config, state, 2, lambda stage: (16, 5))
    assert {name: (w.step, w.steps) for name, w in work.items()} == {
        "done": (3, 3),
        "begun": (2, 3),
        "new": (0, 3),
    }
    model = kf.models.T5(config)
    assert work["new"].flops == 3 * step_flops(model, 2, 16, 5).total


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (61, "2 min"), (5400, "1.5 h"), (200_000, "2.3 days")],
)
def test_times_in_words(seconds, words):
    assert duration(seconds) == words
