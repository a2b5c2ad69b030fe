"""Stages that train at the same time, their devices, and one that fails."""

import threading

import pytest

from trainers import plans
from trainers.engines.devices import MeshEngines
from trainers.engines.mesh import MeshShape
from trainers.plans.graph import Stage
from trainers.pretraining import order

# An engine is never made here: any names do for devices.
FOUR = MeshEngines(MeshShape.parse("batch:2,model:2"), None, tuple("abcd"))
PAIR = (Stage("x", "S"), Stage("y", "S"))


def names(waves):
    return [[stage.name for stage in wave] for wave in waves]


def test_a_wave_needs_only_earlier_waves():
    stages = plans.stages_of(["baseline", "fusion_property", "self_fusion"])
    assert names(order.waves(stages)) == [
        ["baseline", "small_0", "small_1"],
        ["fusion_property", "self_fusion"],
    ]


def test_sources_that_are_trained_elsewhere_hold_nobody_up():
    fused = plans.stages_of(["self_fusion"])[-1]
    assert names(order.waves([fused])) == [["self_fusion"]]
    assert order.waves([]) == []


def test_parts_are_disjoint_and_data_parallel():
    parts = FOUR.parts(2, batch_size=8)
    assert [part.devices for part in parts] == [("a", "b"), ("c", "d")]
    assert {str(part.shape) for part in parts} == {"batch:2"}


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (1, 8, ["abcd"]),
        (3, 8, ["a", "b", "c"]),
        (9, 8, ["a", "b", "c", "d"]),
        (1, 6, ["abc"]),  # of four devices, three divide a batch of six
        (2, 5, ["a", "b"]),
    ],
)
def test_a_part_has_as_many_devices_as_divide_the_batch(count, batch_size, expected):
    parts = FOUR.parts(count, batch_size)
    assert ["".join(part.devices) for part in parts] == expected


def test_stages_of_a_wave_run_at_the_same_time_and_a_lone_one_has_the_whole_mesh():
    both = threading.Barrier(2, timeout=30)
    seen = {}

    def train(stage, engines):
        if stage in PAIR:
            both.wait()  # passes only if the other one is here too
        seen[stage.name] = (engines.devices, str(engines.shape))

    fused = Stage("z", "M", "fusion_property", ("x", "y"))
    order.train_side_by_side([*PAIR, fused], FOUR, 8, train)
    assert seen == {
        "x": (("a", "b"), "batch:2"),
        "y": (("c", "d"), "batch:2"),
        "z": (tuple("abcd"), "batch:2,model:2"),
    }


def test_more_stages_than_devices_take_turns():
    done = []
    stages = [Stage(f"s{index}", "S") for index in range(5)]
    order.train_side_by_side(stages, FOUR, 8, lambda stage, engines: done.append(stage.name))
    assert sorted(done) == [stage.name for stage in stages]


def test_a_failing_stage_lets_the_one_beside_it_finish_and_is_heard():
    done = []

    def train(stage, engines):
        if stage.name == "x":
            raise ValueError("x failed")
        done.append(stage.name)

    with pytest.raises(ValueError, match="x failed"):
        order.train_side_by_side([*PAIR, Stage("w", "S", "self_fusion", ("x",), 2)], FOUR, 8, train)
    assert done == ["y"]
