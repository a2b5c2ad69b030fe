"""The table of costs: alignment, units, order, and what is shown only where there is some."""

import dataclasses

import pytest

from trainers.mesh_costs import table as cost_table
from trainers.mesh_costs.config import MeshReportConfig
from trainers.mesh_costs.measure import MeshCosts, Traffic

CONFIG = MeshReportConfig("batch:2,model:2", "mlp:model", batch_size=8, input_length=32)
SMALL = MeshCosts(
    parameters=12_345,
    weight_bytes=1_000,
    slot_bytes=200,
    argument_bytes=1_260,
    temporary_bytes=5_000_000,
    counted_flops=2.5e12,
    product_flops=2.5e12,
    xla_flops=2.75e12,
    traffic=(
        Traffic("all-reduce", "model", "mlp:model", 3_000.0, 2),
        Traffic("all-gather", "batch", "batch:batch", 500.0, 1),
    ),
    unknown_loops=0,
    largest={"batch": 8, "model": 64},
    compile_seconds=1.25,
    peak_host_bytes=2_000_000_000,
)
BIG = dataclasses.replace(
    SMALL,
    parameters=49_000,
    traffic=(Traffic("all-gather", "batch", "batch:batch", 9_000.0, 1),),
)


def table(costs, config=CONFIG):
    lines = cost_table.text(config, costs).splitlines()
    return lines, {line[:37].strip(): line[37:].split("  ") for line in lines[5:]}


def test_numbers_stand_in_columns_below_their_model():
    lines, rows = table({"small": SMALL, "big": BIG})

    assert lines[0] == "mesh batch:2,model:2 (4 devices), layout mlp:model"
    assert lines[1] == "a step of 8 sequences of 32 + 8 tokens, adafactor, float32"
    assert lines[3].split() == ["per", "device", "small", "big"]
    full = [line for line in lines[3:] if line[-1] != "-" and len(line) > 40]
    assert len({len(line) for line in full}) == 1
    shown = {name: [cell.strip() for cell in cells if cell] for name, cells in rows.items()}
    assert shown["parameters of the whole model"] == ["12,345", "49,000"]
    assert shown["weights"] == ["1.000 kB", "1.000 kB"]
    assert shown["batch and seeds"] == ["60 B", "60 B"]
    assert shown["of the model, counted"] == ["2.500 TFLOP", "2.500 TFLOP"]
    assert shown["all-reduce over model"] == ["3.000 kB", "0 B"]
    assert shown["all-gather over batch"] == ["500 B", "9.000 kB"]
    assert shown["mlp:model"] == ["3.000 kB", "0 B"]
    assert shown["largest mesh that divides"] == ["batch:8,model:64"] * 2


def test_what_the_last_model_sends_most_of_comes_first():
    lines, _ = table({"small": SMALL, "big": BIG})
    labels = [line[:37].strip() for line in lines]

    assert labels.index("all-gather over batch") < labels.index("all-reduce over model")


def test_microbatches_and_loops_are_shown_where_there_are_any():
    config = dataclasses.replace(CONFIG, microbatches=4)
    looping = dataclasses.replace(SMALL, unknown_loops=2)

    assert "in 4 microbatches" in table({"small": SMALL}, config)[0][1]
    assert "loops counted as one trip" in table({"small": looping})[1]
    assert "loops counted as one trip" not in table({"small": SMALL})[1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.000 kB"),
        (12_345_678, "12.346 MB"),
        (3e21, "3000.000 EB"),
    ],
)
def test_quantities_have_decimal_prefixes(value, shown):
    assert cost_table.quantity(value, "B") == shown
