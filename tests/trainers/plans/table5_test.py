"""The models of Table 5: how long each is trained, and which of its checkpoints stay."""

import pytest

from tests.trainers import nano
from trainers import plans, pretrain
from trainers.errors import UserError
from trainers.plans import Basis


@pytest.fixture(autouse=True)
def size(monkeypatch):
    nano.define(monkeypatch)


def asked(tmp_path, *arguments):
    return nano.config_of(
        pretrain, "--plan=table5", "--size=nano", f"--workdir={tmp_path}/w", *arguments
    )


def test_models_and_their_steps(tmp_path):
    config = asked(tmp_path, "--steps=S:40")
    steps = {name: settings.steps for name, settings in config.settings.items()}
    assert steps == {
        "small_0": 40,
        "small_1": 40,
        "table5_small": 40,
        "table5_baseline": 80,
        "table5_fusion_property": 40,
        "table5_self_fusion": 40,
    }
    by_name = {stage.name: stage for stage in config.stages}
    assert by_name["table5_small"].is_continued
    assert by_name["table5_fusion_property"].sources == ("small_0", "small_1")
    points = config.plans[0].points
    assert points["table5_baseline"] == {"model": "baseline", "steps": [0, 20, 40, 80]}
    assert points["table5_small"] == {"model": "small", "steps": [40], "before": 40}


def test_what_is_fine_tuned_stays(tmp_path):
    config = asked(tmp_path, "--steps=S:40", "--repeats=2")
    kept = config.fused_at
    assert kept["table5_baseline"] == kept["table5_baseline_r2"] == [20, 40, 80]
    assert kept["table5_self_fusion"] == [20, 40]
    for stage in config.stages:
        for step in kept.get(stage.name, ()) if stage.base.startswith("table5") else ():
            assert step % config.settings[stage.name].checkpoint_every == 0


def test_half_of_an_odd_number_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"even number of steps.*steps=41\. Give --steps=S:42"):
        asked(tmp_path, "--steps=S:41")


def test_it_stands_beside_the_other_plans():
    basis = Basis(nano.NANO, {"S": 1.0, "M": 4.0}.__getitem__, {"steps": {"": 4}})
    plans.merge([plans.get_plan("table5", basis), *plans.PLANS.values()])
