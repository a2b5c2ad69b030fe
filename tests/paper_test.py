"""The commands of `make paper` at a size of seconds: every plan, its tables and its figures."""

import json

import pytest

from tests import makefile
from tests.trainers import nano
from trainers import pretrain

PRETRAIN = "trainers.pretrain"
FAST = {
    "PAPER_SIZE": "--size=nano --noprogress --steps=4 --eval_every=2 --checkpoint_every=2",
    "PAPER_REPEATS": "1",
    "PAPER_LISTS": "--sigmas=0.5 --offsets=-2 --fuse_at=2 --keep_every=2",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of the run."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as monkeypatch:
        nano.define_with_large(monkeypatch)
        data_dir = nano.write_tokens(folder)
        where = str(folder / "w")
        for arguments in makefile.arguments("paper", PRETRAIN, PAPER_DIR=where, **FAST):
            pretrain.pretrain(nano.config_of(pretrain, *arguments, f"--data_dir={data_dir}"))
    return folder / "w"


@pytest.mark.slow  # Faster tests train most of the plans.
def test_every_plan_is_trained(world):
    experiments = json.loads((world / "run.json").read_text())["experiments"]
    table1 = {"baseline", "self_fusion", "fusion_property", "fusion_rule"}
    fixed = {"figure2", "four_at_once", "pair_then_self"}
    assert set(experiments) == table1 | fixed | {"offsets", "zero_blocks", "when_to_fuse"}
    trained = set(nano.records(world))
    for name, plan in experiments.items():
        assert plan["final"] in trained, name
        assert set(plan["points"]) <= trained


def test_the_real_commands_are_for_two_cores():
    """The commands of users differ from the fast form by sizes and lists only."""
    commands = (makefile.arguments("paper", PRETRAIN, **given) for given in ({}, FAST))
    for real, fast in zip(*commands, strict=True):
        plans = [{a for a in command if a.startswith("--plan=")} for command in (real, fast)]
        assert plans[0] == plans[1]
        assert "--size=tiny" in real
