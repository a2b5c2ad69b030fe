"""The benchmark of one accelerator: its arithmetic on made-up figures, and all of it when slow."""

import json
import os
import pathlib
import select
import subprocess
import sys

import pytest

from benchmarks._batches import lengths, random_batches
from benchmarks.gpu import __main__ as program
from benchmarks.gpu import collect, device, pretraining, sizes
from benchmarks.gpu.results import Results, aims, markdown, read
from tests.requirements import needed_by, required

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_batches_have_the_shapes_of_span_corruption():
    assert lengths(512) == (512, 114)
    batch = next(random_batches(64, 2, 128))
    assert {name: value.shape for name, value in batch.items()} == {
        "encoder_token_ids": (2, 128),
        "decoder_token_ids": (2, 29),
        "targets": (2, 29),
    }


def test_the_longest_name_on_the_data_sheet_counts():
    assert device.data_sheet_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert device.data_sheet_peak("NVIDIA H100 PCIe") == 756e12
    assert device.data_sheet_peak("cpu") is None


def test_a_part_has_its_share_of_what_is_left():
    parts = list(program.PARTS)
    assert program.budget("steps", parts, 100.0) == pytest.approx(30)
    assert program.budget("fusion", parts, 50.0) == pytest.approx(10)
    assert program.budget("pretrain", parts, 70.0) == 70


def speed(of, model, median, **facts):
    return {"name": of, "unit": "tokens/s", "of": of, "model": model, "median": median, **facts}


def test_aims_compare_equal_batches_and_the_best_utilisation():
    rows = [
        speed("keras_fusion", "t5_m", 130.0, batch=64, utilisation=0.4),
        speed("keras_fusion", "t5_m", 200.0, batch=128, utilisation=0.55),
        speed("transformers", "t5_m", 100.0, batch=64),
        speed("transformers", "t5_m", 50.0, batch=64),
        speed("keras_fusion", "t5_l", 70.0, batch=32, utilisation=0.3),
    ]
    share, ratio, other = aims(rows)
    assert share.startswith("t5_m: 55.0% of the peak")
    assert ratio.startswith("t5_m: 1.30 × the peer's tokens/s at batch 64")
    assert other.startswith("t5_l: 30.0% of the peak")
    assert aims(rows[2:3]) == []


def test_results_are_there_after_each_measurement(tmp_path):
    results = Results(tmp_path / "new", "fusion")
    results.add("seconds", [3.0, 1.0, 2.0], "s", device="cpu")
    (row,) = read(results.folder)
    assert (row["median"], row["min"], row["max"], row["device"]) == (2.0, 1.0, 3.0, "cpu")
    results.note("memory", "left out:\n no | count")
    table = (results.folder / "results.md").read_text("utf-8")
    assert "| fusion | seconds | 2 | 1 – 3 | s | device cpu |" in table
    assert "| fusion | memory |  |  |  | left out: no / count |" in table
    assert markdown(read(results.folder)) == table


def test_a_part_that_fails_or_hangs_ends_with_what_it_started(tmp_path):
    log = tmp_path / "log.txt"
    python = [sys.executable, "-c"]
    assert program.run_part([*python, "print('done')"], 60, log) is None
    fault = program.run_part([*python, "raise SystemExit('no device')"], 60, log)
    assert fault == "ended with code 1: no device"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        child = f"import signal; file = open({str(fifo)!r}, 'wb'); signal.pause()"
        parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        assert program.run_part([*python, parent], 2, log) == "stopped after its 2 s"
        # None while a child holds the other end; that it ends wakes `select`.
        if reader.read(1) is None:
            assert select.select([reader], [], [], 30)[0], "The child of the part is still there."


def test_an_experiment_is_a_command_for_each_arm():
    (experiment,) = sizes.SIZES["small"].experiments
    commands = experiment.commands()
    assert set(commands) == {"tiny_baseline_x1_seed0", "tiny_self_fusion_50_x0.5_seed0"}
    assert {"--size=tiny", "--gains_arms=self_fusion_50", "--gains_scales=0.5", "--seed=0"} <= {
        *commands["tiny_self_fusion_50_x0.5_seed0"]
    }


def test_an_accelerator_without_nvidia_s_service_is_used_without(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pretraining.shared_device(tmp_path / "mps") as variables:
        assert variables == {}
    service = tmp_path / "nvidia-cuda-mps-control"
    log = tmp_path / "calls"
    service.write_text(f'#!/bin/sh\necho "$CUDA_MPS_PIPE_DIRECTORY" "$@" >> {log}\nexit 1\n')
    service.chmod(0o755)
    with pretraining.shared_device(tmp_path / "mps") as variables:
        assert variables == {}
    assert log.read_text().splitlines() == [f"{tmp_path / 'mps'} -d", f"{tmp_path / 'mps'}"]


def test_wheels_are_what_the_programs_need_besides():
    assert len(collect.pins()) == len(collect.WHEELS) and "keras==3.15.1" in collect.pins()
    wanted = [
        str(requirement)
        for name, requirement in required("trainers").items()
        if not name.startswith("tensorflow")
    ]
    there = needed_by(list(collect.PRESENT))
    assert needed_by(wanted) - there == {*collect.WHEELS}


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path, words_file):
    subprocess.run(
        [sys.executable, "-m", "trainers.prepare", "--corpus=text", f"--corpus_path={words_file}"]
        + ["--vocabulary_pieces=80", "--num_sentinels=32", f"--data_dir={tmp_path / 'tiny'}"],
        cwd=ROOT,
        check=True,
    )
    command = [sys.executable, "-m", "benchmarks.gpu", "--minutes=20", "--size=small"]
    command += [f"--output={tmp_path / 'results'}", f"--data_dir={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "KERAS_BACKEND": "jax"})
    rows = read(tmp_path / "results")
    faults = [row for row in rows if "failed" in row.get("note", "") or row["name"] == "part"]
    assert not faults
    speeds = {row["name"]: row for row in rows if row.get("of") == "keras_fusion"}
    assert len(speeds) == 3 and all(row["min"] > 0 for row in speeds.values())
    assert any(row["name"] == "fusion over writing" for row in rows)
    curves = json.loads((tmp_path / "results" / "curves.json").read_text("utf-8"))
    (experiment,) = sizes.SIZES["small"].experiments
    assert set(curves) == set(experiment.commands())
    assert (tmp_path / "results" / "report.html").exists()
