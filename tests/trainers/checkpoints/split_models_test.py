"""Models whose checkpoint several hosts wrote: read, fused, grown and converted as any other."""

import threading

import keras
import numpy as np
import pytest

import keras_fusion as kf
from tests.trainers import nano
from trainers import checkpoints, convert, fuse
from trainers.checkpoints import CHECKPOINT_FOLDER, Part, models
from trainers.engines.state import part_name, state_variables
from trainers.plans.settings import GROWTHS


def part_of(host, state):
    """Of each matrix a half of the columns; of everything else all on host 0."""
    part = {}
    for name, value in state.items():
        half = value.shape[-1] // 2 if value.ndim == 2 and value.shape[-1] % 2 == 0 else 0
        if half:
            columns = slice(host * half, host * half + half)
            part[part_name(name, (0, columns.start))] = value[:, columns]
        elif not host:
            part[part_name(name, (0,) * value.ndim)] = value
    return part


@pytest.fixture(scope="module")
def saved(tmp_path_factory, patch):
    """Folders of one trained state: "whole", and "split" between two hosts."""
    folder = tmp_path_factory.mktemp("saved")
    config = kf.models.T5Config.from_size("nano_s", vocabulary_size=128)
    model, optimizer = kf.models.T5(config, seed=0), kf.optimizers.Adafactor(0.1)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    state = {}
    for name, variable in state_variables(model, optimizer).items():
        value = keras.ops.convert_to_numpy(variable.value)
        is_slot = name.startswith("optimizer/") and value.ndim
        state[name] = rng.random(value.shape, np.float32) if is_slot else value
    settings = {"settings": {"model": config.to_dict()}}
    whole, split = (folder / name / CHECKPOINT_FOLDER for name in ("whole", "split"))
    checkpoints.save(whole, 3, state, settings)
    hosts = [
        threading.Thread(
            target=checkpoints.save,
            args=(split, 3, part_of(host, state), settings),
            kwargs={"part": Part(host, 2, "t")},
        )
        for host in (0, 1)
    ]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join(60)
    return folder


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(second[name]), err_msg=name)


def test_a_model_and_its_optimizer_are_read(saved):
    whole, split = (models.find_checkpoint(saved / name) for name in ("whole", "split"))
    assert len(list(split.path.glob("*.safetensors"))) == 4
    assert_equal(whole.state(), split.state())
    first, second = (models.build_model(checkpoint) for checkpoint in (whole, split))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_fusion_takes_it_for_a_source(saved, tmp_path):
    fused = []
    for first, second in (("whole", "whole"), ("split", "whole"), ("split", "split")):
        output = tmp_path / f"{first} {second}"
        sources = f"--sources={saved / first},{saved / second}"
        fuse.fuse(nano.config_of(fuse, sources, f"--output={output}", "--noise=0.1"))
        fused.append(models.find_checkpoint(output).weights)
    assert_equal(fused[0], fused[1])
    assert_equal(fused[0], fused[2])


def test_its_optimizer_state_grows(saved):
    sources = [models.find_checkpoint(saved / name) for name in ("whole", "split")]
    whole, split = (models.grown_slots([source] * 2, GROWTHS["all"], "all") for source in sources)
    assert_equal(whole, split)


def test_it_is_converted(saved, tmp_path):
    files = []
    for name in ("whole", "split"):
        flags = (f"--source={saved / name}", f"--output={tmp_path / name}")
        output = convert.convert(nano.config_of(convert, *flags))
        files.append((output / "model.safetensors").read_bytes())
    assert files[0] == files[1]
