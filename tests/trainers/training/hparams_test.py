"""Settings and results of runs, as TensorBoard's own HPARAMS page reads them."""

import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from trainers.training.hparams import HParams
from trainers.training.logs import RunLog

TYPES = {"stage": str, "steps": int, "noise": float, "tied": bool}


def write(folder, values, *evaluations, step=None):
    """Logs a run that was started once more at `step`, if that is given."""
    hparams = HParams(TYPES, values)
    with RunLog(folder, step, 10, "a", progress=False, hparams=hparams) as log:
        for step, accuracy in evaluations:
            log.write("eval", {"step": step, "accuracy": accuracy, "loss_per_token": 2.0})


def page(folder):
    """The columns of the page and its rows, by TensorBoard's code."""
    runs = plugin_event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(folder)).Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(folder))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = context.RequestContext()
    content = backend.hparams_metadata(request, "")
    experiment = backend.experiment_from_metadata(request, "", True, content, [])
    wanted = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_UNKNOWN],
        col_params=[api_pb2.ColParams(metric=metric.name) for metric in experiment.metric_infos],
    )
    groups = list_session_groups.Handler(request, backend, "", wanted).run().session_groups
    return experiment, groups


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small = {"stage": "small_0", "steps": 3000, "noise": None, "tied": False}
    write(folder / "small_0" / "tensorboard", small, (0, 1.0), (100, 30.0))
    write(folder / "small_0" / "tensorboard", small, (200, 40.0), step=100)
    big = {"stage": "self_fusion", "steps": 2000, "noise": 0.1, "tied": True}
    write(folder / "self_fusion" / "tensorboard", big, (0, 38.0))
    return page(folder)


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
    rows = {}
    for group in shown[1]:
        assert len(group.sessions) == 1
        values = {name: getattr(v, v.WhichOneof("kind")) for name, v in group.hparams.items()}
        results = {value.name.tag: value.value for value in group.metric_values}
        rows[values.pop("stage")] = values, results
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
