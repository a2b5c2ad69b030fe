"""The benchmark runs, saves at the right steps, and computes shares from known times."""

import numpy as np
import pytest

import keras_fusion as kf
from benchmarks import checkpoint_stall
from trainers import checkpoints


@pytest.mark.slow  # writer_test.py has the writer
def test_saves_at_every_second_boundary(tmp_path):
    config = kf.models.T5Config.from_size("tiny_s", num_layers=1)
    engine = checkpoint_stall.train(config, "adamw", 2, 8, 2, 2, tmp_path)
    assert list(engine.ended) == [2, 4, 6, 8, 10, 12]
    assert list(engine.began) == [0, 2, 4, 6, 8, 10]
    # The newest two; the best is the last, at which it is evaluated.
    assert checkpoints.steps(tmp_path / "checkpoints") == [8, 12]
    for shares in checkpoint_stall.stalls(engine, every=2, rounds=2).values():
        assert shares.shape == (2,) and np.isfinite(shares).all()


def test_shares_of_known_times():
    """Windows of 10 s, 13 s where they begin with a save, whose pause is 2 s and else 1 s."""
    engine = checkpoint_stall.TimedEngine()
    now = 0.0
    for step in range(0, 600, 100):
        saves = step % 200 == 0 and step > 0
        engine.began[step] = np.array([now, 3 * now])
        now += {False: 9.0, True: 11.0}[saves]
        engine.ended[step + 100] = np.array([now, 3 * now])
        now += 2.0 if (step + 100) % 200 == 0 else 1.0
    shares = checkpoint_stall.stalls(engine, every=100, rounds=2)
    assert shares["all, in wall time"] == pytest.approx(0.3)
    assert shares["all, in processor time"] == pytest.approx(0.3)
    assert shares["pause of the loop"] == pytest.approx(0.1)
