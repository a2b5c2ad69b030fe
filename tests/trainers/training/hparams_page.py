"""TensorBoard's HPARAMS page of a folder of runs, by TensorBoard's own code."""

from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups


def read(folder):
    """Returns what the page declares, and its rows: settings and newest metrics of each run."""
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
    return experiment, [_row(group) for group in groups]


def _row(group):
    (_,) = group.sessions
    settings = {name: getattr(v, v.WhichOneof("kind")) for name, v in group.hparams.items()}
    return settings, {value.name.tag: value.value for value in group.metric_values}
