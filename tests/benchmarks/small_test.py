"""The benchmarks of training steps and fusions run, at a size of seconds."""

import sys

import keras
import pytest

import keras_fusion as kf
from benchmarks import fuse_models, fusion

CONFIG = kf.models.T5Config.from_size("tiny_s", num_layers=1, vocabulary_size=64)
SIZES = {"batch_size": 2, "input_length": 8, "steps": 1, "rounds": 1}


@pytest.mark.slow
def test_training_steps():
    # They import KerasHub, which takes seconds.
    from benchmarks import grouped_norm, train_step

    measured = train_step.compare([CONFIG, CONFIG], **SIZES)
    assert len(measured) == 3 and all(len(rounds) == 1 and rounds[0] > 0 for rounds in measured)
    groups = grouped_norm.groups_of(CONFIG.hidden_dim, 2, unequal=True)
    assert groups == (34, 30)
    (ratio,) = grouped_norm.compare(CONFIG, groups, **SIZES)
    assert ratio > 0


@pytest.mark.slow
def test_training_steps_in_processes_of_their_own(capsys):
    from benchmarks import train_step

    interpreters = dict.fromkeys(["keras_fusion", "keras_hub"], sys.executable)
    measured = train_step.compare_alone(CONFIG, **SIZES, interpreters=interpreters)
    assert len(measured) == 2 and all(len(rounds) == 1 and rounds[0] > 0 for rounds in measured)

    train_step.print_ratios([*interpreters], [[0.5], [1.0]], tokens=100)
    ours, theirs, ratio = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (ours[0], ours[-2], theirs[-2]) == ("keras_fusion", "200.00", "100.00")
    assert ratio[:2] == ["over", "keras_hub"] and ratio[3] == "2.00"


def test_a_fusion_and_its_bound():
    sources = [kf.models.T5(CONFIG, seed=seed) for seed in range(2)]
    seconds, _, bound, shapes = fusion.fuse_once(sources)
    fused = sources[0].fuse(sources[1])
    assert shapes == [tuple(weight.shape) for weight in fused.weights]
    assert seconds > 0 and bound > 4 * fused.count_params()
    assert fusion.write_once(shapes) > 0


def test_a_fusion_of_stock_models_and_its_bounds():
    sources = [
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(width), keras.layers.Dense(2)])
        for width in (3, 5)
    ]
    times = fuse_models.measure(sources)
    assert len(times) == 1 + len(fuse_models.BOUNDS)
    assert all(wall > 0 and processor >= 0 for wall, processor in times)
