"""GLUE figures that the paper prints, transcribed to the letter.

Every figure here is the paper's; the reports show it in cells that are marked as the paper's.
"""

import dataclasses
import types
from collections.abc import Mapping

MODELS: Mapping[str, str] = types.MappingProxyType(
    {
        "baseline": "baseline",
        "fusion_property": "fusion-prop",
        "self_fusion": "self-fusion",
        "small": "T5-SMALL",
    }
)
"""The paper's name of each model that its tables have."""

TABLE_5_STEPS = (0, 250_000, 500_000, 1_000_000)
TABLE_5: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        "baseline": ("64.07", "83.33", "84.35", "84.74 ± 0.13"),
        "fusion_property": ("81.40", "84.10", "84.86 ± 0.13", ""),
        "self_fusion": ("81.01", "83.71", "84.94 ± 0.2", ""),
        "small": ("", "", "", "80.28"),
    }
)
"""GLUE average by model, in the order of `TABLE_5_STEPS`; empty where the paper has a dash."""

TABLE_5_BASELINE = (
    "The paper's 84.74 is the first of the three runs of its Table 7; their mean is 84.6298. "
    "The ± fits the three."
)


@dataclasses.dataclass(frozen=True)
class Table6Row:
    """A row of Table 6: hours of TPU v3 4x4."""

    model: str  # our name
    fusion: str
    post_fusion: str
    time: str
    glue: str
    times_before_fusion: int  # post-fusion steps as a multiple of K, the steps before fusion


TABLE_6 = (
    Table6Row("baseline", "0 steps 0h", "1M steps 39.2h", "39.2h", "84.74", 2),
    Table6Row("fusion_property", "500k steps 2×8h", "500k steps 21.9h", "37.9h", "84.86", 1),
    Table6Row("self_fusion", "500k steps 8h", "500k steps 21.9h", "29.9h", "84.94", 1),
)


@dataclasses.dataclass(frozen=True)
class Table7Row:
    """A row of Table 7: one run."""

    model: str  # our name
    name: str  # the paper's
    average: str  # over the eight groups
    # In the order of the columns: CoLA, SST-2, MRPC F1 and accuracy, STS-B Pearson and Spearman,
    # QQP accuracy and F1, MNLI matched and mismatched, QNLI, RTE.
    scores: tuple[str, ...]


_TABLE_7 = """
baseline: baseline 1m
84.74 54.18 94.38 93.17 90.69 89.83 89.75 91.94 89.13 86.77 86.6 92.13 78.34
84.45 52.95 93.92 93.12 90.44 89.49 89.35 91.94 89.14 86.94 86.58 92.26 77.98
84.69 53.15 93.81 92.15 88.97 89.06 88.93 92.04 89.24 86.55 86.21 91.69 82.31
fusion_property: Fusion 500k
84.98 53.97 94.27 92.91 90.2 89.68 89.49 92.04 89.36 86.6 86.43 92.39 80.87
84.68 54.46 93.81 91.8 88.97 89.44 89.28 91.95 89.13 86.67 86.65 92.11 80.14
84.92 53.94 94.5 92.73 89.71 90.62 90.44 92.01 89.23 86.64 86.45 91.56 80.51
self_fusion: Self fusion 500K
84.69 54.58 93.12 92.03 89.22 89.23 89.16 91.81 89.01 86.64 86.68 92.11 80.87
85.19 55.82 93.69 93.1 90.44 89.9 89.73 92.04 89.34 86.8 86.31 92.31 80.87
84.95 58 94.27 92.36 89.71 89.93 89.7 91.96 89.18 86.47 86.4 91.93 77.62
"""


def _table_7() -> tuple[Table7Row, ...]:
    rows, model, name = [], "", ""
    for line in _TABLE_7.strip().splitlines():
        if ": " in line:
            model, name = line.split(": ")
        else:
            average, *scores = line.split()
            rows.append(Table7Row(model, name, average, tuple(scores)))
    return tuple(rows)


TABLE_7 = _table_7()
