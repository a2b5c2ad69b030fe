"""`make paper`, its own commands, at a size of seconds: every plan, its tables and its figures."""

import json
import pathlib
import shlex
import shutil
import subprocess

import pytest

from tests.trainers import nano
from trainers import pretrain
from trainers.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[1]
FAST = {
    "PAPER_SIZE": "--size=nano --noprogress --steps=4 --eval_every=2 --checkpoint_every=2",
    "PAPER_TUNE": "--tune_arms=small_0 --tune_warmups=1 --tune_scales=0.5,1",
    "PAPER_REPEATS": "1",
    "PAPER_LISTS": "--sigmas=0.5 --offsets=-2 --fuse_at=2 --keep_every=2",
}


def commands(**variables):
    """The command lines of `make paper`, split, without running them."""
    make = ["make", "-n", "paper", "-o", ".venv/.installed"]
    given = [f"{name}={value}" for name, value in variables.items()]
    found = subprocess.run([*make, *given], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = found.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "trainers.pretrain" in line]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of the run."""
    if not (ROOT / "Makefile").exists() or shutil.which("make") is None:
        pytest.skip("needs make and the project's Makefile")
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as monkeypatch:
        nano.define_with_large(monkeypatch)
        data_dir = nano.write_tokens(folder)
        for command in commands(PAPER_DIR=str(folder / "w"), **FAST):
            arguments = command[command.index("trainers.pretrain") + 1 :]
            pretrain.pretrain(nano.config_of(pretrain, *arguments, f"--data_dir={data_dir}"))
    return folder / "w"


@pytest.fixture(scope="module")
def results(world):
    return json.loads((world / "report" / "results.json").read_text())


def test_every_plan_is_trained(world):
    experiments = json.loads((world / "run.json").read_text())["experiments"]
    known = {"tune", "table1", "figure2", "four_at_once", "pair_then_self"}
    assert set(experiments) == known | {"offsets", "zero_blocks", "when_to_fuse"}
    trained = {record["name"] for record in Workdir(world).records()}
    for name, plan in experiments.items():
        assert plan["final"] in trained, name
        assert name == "tune" or set(plan["points"]) <= trained
    assert "baseline_longer" in trained


def test_the_real_commands_are_for_two_cores():
    """What users run differs from the fast form by sizes and lists only."""
    for real, fast in zip(commands(), commands(**FAST), strict=True):
        plans = [{a for a in command if a.startswith("--plan=")} for command in (real, fast)]
        assert plans[0] == plans[1]
        assert "--size=tiny" in real
