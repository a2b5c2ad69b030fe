"""Settings of a run for TensorBoard's HPARAMS page: one row per run, with what it reached.

The page shows the columns that the first of the runs below its --logdir declares, so each declares
all: a setting that this run does not have is an empty cell of its row.
"""

import dataclasses
from collections.abc import Mapping

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

METRICS = {"eval/loss_per_token": "loss per token", "eval/accuracy": "accuracy, %"}
"""Scalars that stand beside the settings, the newest value of each, and their headings."""

_TYPES = {
    bool: api_pb2.DATA_TYPE_BOOL,
    int: api_pb2.DATA_TYPE_FLOAT64,
    float: api_pb2.DATA_TYPE_FLOAT64,
    str: api_pb2.DATA_TYPE_STRING,
}


@dataclasses.dataclass(frozen=True)
class HParams:
    """Settings of a run, as TensorBoard shows them.

    Args:
        types: type of each setting, `bool`, `int`, `float` or `str`: the same in all runs that are
            shown together.
        values: those that this run has; None counts as none.

    Example:
        >>> HParams({"steps": int, "noise": float}, {"steps": 2000, "noise": None})
    """

    types: Mapping[str, type]
    values: Mapping[str, object]

    def summaries(self) -> tuple[summary_pb2.Summary, summary_pb2.Summary]:
        """Returns the declaration of the columns, and the values of this run."""
        values = {name: value for name, value in self.values.items() if value is not None}
        return self._experiment(), summary_v2.hparams_pb(values)

    def _experiment(self) -> summary_pb2.Summary:
        columns = [
            api_pb2.HParamInfo(name=name, type=_TYPES[kind]) for name, kind in self.types.items()
        ]
        metrics = [
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=heading)
            for tag, heading in METRICS.items()
        ]
        experiment = api_pb2.Experiment(hparam_infos=columns, metric_infos=metrics)
        content = plugin_data_pb2.HParamsPluginData(experiment=experiment)
        value = summary_pb2.Summary.Value(
            tag=metadata.EXPERIMENT_TAG,
            metadata=metadata.create_summary_metadata(content),
            tensor=metadata.NULL_TENSOR,
        )
        return summary_pb2.Summary(value=[value])
