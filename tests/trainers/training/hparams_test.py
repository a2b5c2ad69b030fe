"""Settings and results of runs, as TensorBoard's own HPARAMS page reads them."""

import pytest
from tensorboard.plugins.hparams import api_pb2

from tests.trainers.training import hparams_page
from trainers.training.hparams import HParams
from trainers.training.logs import RunLog

TYPES = {"stage": str, "steps": int, "noise": float, "tied": bool}


def write(folder, values, *evaluations, step=None):
    """Logs a run that was started once more at `step`, if that is given."""
    hparams = HParams(TYPES, values)
    with RunLog(folder, step, 10, "a", progress=False, hparams=hparams) as log:
        for step, accuracy in evaluations:
            log.write("eval", {"step": step, "accuracy": accuracy, "loss_per_token": 2.0})


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small = {"stage": "small_0", "steps": 3000, "noise": None, "tied": False}
    write(folder / "small_0" / "tensorboard", small, (0, 1.0), (100, 30.0))
    write(folder / "small_0" / "tensorboard", small, (200, 40.0), step=100)
    big = {"stage": "self_fusion", "steps": 2000, "noise": 0.1, "tied": True}
    write(folder / "self_fusion" / "tensorboard", big, (0, 38.0))
    return hparams_page.read(folder)


def test_the_columns_are_all_settings_with_their_types_then_loss_and_accuracy(shown):
    experiment, _ = shown
    kinds = {"STRING": ["stage"], "FLOAT64": ["noise", "steps"], "BOOL": ["tied"]}
    for kind, names in kinds.items():
        number = api_pb2.DataType.Value(f"DATA_TYPE_{kind}")
        infos = [info.name for info in experiment.hparam_infos if info.type == number]
        assert sorted(infos) == names
    tags = [info.name.tag for info in experiment.metric_infos]
    assert tags == ["eval/loss_per_token", "eval/accuracy"]


def test_a_row_per_run_has_its_settings_and_newest_results(shown):
    rows = {settings.pop("stage"): (settings, results) for settings, results in shown[1]}
    assert rows == {
        "small_0": (
            {"steps": 3000, "tied": False},
            {"eval/loss_per_token": 2.0, "eval/accuracy": 40.0},
        ),
        "self_fusion": (
            {"steps": 2000, "noise": 0.1, "tied": True},
            {"eval/loss_per_token": 2.0, "eval/accuracy": 38.0},
        ),
    }
