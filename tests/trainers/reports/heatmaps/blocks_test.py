"""Blocks of fused kernels: reductions against numpy by hand, borders, checkpoints passed over."""

import os
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import keras_fusion as kf
from keras_fusion.axes import Axes, Joined
from tests.trainers.reports.heatmaps import fused_stages
from trainers.reports.heatmaps import blocks

KERNEL = Axes(("hidden", Joined("heads", after=4)), sums=("hidden",))


@pytest.fixture(scope="module")
def model():
    return kf.models.T5(fused_stages.fused_config((4, 2, 8), (8, 3, 12)), seed=0)


def test_borders_of_unequal_widths_also_where_a_head_is_several_entries():
    widths = {"hidden": (4, 8, 2), "heads": (2, 3, 1)}
    assert blocks.borders(KERNEL, (14, 24), widths) == ((0, 4, 12, 14), (0, 8, 20, 24))
    assert blocks.borders(Axes(("vocab", "hidden")), (5, 14), widths) == ((0, 5), (0, 4, 12, 14))
    assert blocks.borders(Axes(("buckets", "x")), (5, 6), widths) == ((0, 5), (0, 6))


@pytest.mark.parametrize("edges", [(0, 64, 128), (0, 1000, 1003, 3000), (0, 7), (0, 1, 2, 3)])
@pytest.mark.parametrize("most", [1, 64, 256])
def test_bands_keep_to_borders_and_are_alike(edges, most):
    cuts = blocks.bands(edges, most)
    assert set(edges) <= set(cuts)
    assert list(cuts) == sorted(set(cuts))
    assert len(cuts) - 1 <= most + len(edges)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        widths = np.diff([cut for cut in cuts if start <= cut <= stop])
        assert widths.max() - widths.min() <= 1


def test_small_kernels_keep_every_weight():
    assert blocks.bands((0, 3, 5), 64) == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("measure", ["mean", "squares"])
def test_cells_are_what_numpy_gives_by_hand(measure):
    array = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    edges = ((0, 3, 7), (0, 1, 6, 11))
    by_hand = {
        "mean": lambda part: np.abs(part).mean(dtype=np.float64),
        "squares": lambda part: np.square(part.astype(np.float64)).sum(),
    }[measure]
    expected = [
        [by_hand(array[0:3, 0:1]), by_hand(array[0:3, 1:6]), by_hand(array[0:3, 6:11])],
        [by_hand(array[3:7, 0:1]), by_hand(array[3:7, 1:6]), by_hand(array[3:7, 6:11])],
    ]
    np.testing.assert_allclose(blocks.cells(array, edges, measure), expected, rtol=1e-6)


def test_pieces_and_small_dtypes_change_nothing():
    array = np.random.default_rng(1).normal(size=(40, 30)).astype(ml_dtypes.bfloat16)
    edges = (blocks.bands((0, 15, 40), 6), blocks.bands((0, 30), 4))
    whole = blocks.cells(array, edges)
    np.testing.assert_allclose(blocks.cells(array, edges, chunk=30), whole, rtol=1e-12)
    first = np.abs(array[: edges[0][1], : edges[1][1]].astype(np.float64)).mean()
    assert whole[0, 0] == pytest.approx(first)


def test_a_nan_stays_in_its_cell():
    array = np.ones((4, 4), np.float32)
    array[3, 0] = np.nan
    means = blocks.cells(array, ((0, 2, 4), (0, 2, 4)))
    np.testing.assert_array_equal(np.isnan(means), [[False, False], [True, False]])


def test_eta_over_diagonal_by_hand():
    """Blocks of two 3s and six 1s; the seven values of η are 0.5."""
    array = np.full((3, 5), 0.5)
    array[:1, :2], array[1:, 2:] = 3.0, 1.0
    sizes = blocks.eta_sizes(array, ((0, 1, 3), (0, 2, 5)))
    assert sizes[:, 1].tolist() == [7, 2 + 6]
    assert blocks.rms(sizes) == pytest.approx((0.5, ((2 * 9 + 6) / 8) ** 0.5))
    assert blocks.ratio(sizes) == pytest.approx(0.5 / 3**0.5)
    both = sizes + [[7.0, 7], [0.0, 8]]
    assert blocks.rms(both) == pytest.approx((((7 * 0.25 + 7) / 14) ** 0.5, (24 / 16) ** 0.5))


def test_no_noise_and_no_diagonal():
    edges = ((0, 1, 2), (0, 1, 2))
    assert blocks.ratio(blocks.eta_sizes(np.eye(2), edges)) == 0
    assert blocks.ratio(blocks.eta_sizes(1 - np.eye(2), edges)) is None


def test_the_corner_is_where_blocks_meet():
    assert blocks.corner(((0, 4, 12), (0, 8, 20)), 3) == (slice(1, 7), slice(5, 11))
    assert blocks.corner(((0, 2, 12), (0, 20)), 3) == (slice(0, 5), slice(7, 13))
    assert blocks.corner(((0, 1, 4, 9), (0, 2, 5, 9)), 1) == (slice(3, 5), slice(4, 6))


def test_saved_steps_and_what_they_hold(tmp_path, model):
    written = fused_stages.save(tmp_path, "s", model, (10, 20))
    by_step, faults = blocks.open_saved(tmp_path / "s")
    assert list(by_step) == [10, 20] and faults == ()
    saved = by_step[20]
    assert saved.borders(fused_stages.MLP) == ((0, 4, 12), (0, 8, 20))
    assert saved.borders(fused_stages.QUERY) == ((0, 4, 12), (0, 4, 10))
    np.testing.assert_array_equal(saved.weights[fused_stages.MLP], written[20][fused_stages.MLP])
    # Four kernels an attention and three an MLP; encoder one attention, decoder two.
    assert len(saved.kernels) == 3 * 4 + 2 * 3
    assert "head/kernel" in saved.matrices and "head/kernel" not in saved.kernels
    assert not any("norm" in path for path in saved.matrices)
    only, _ = blocks.open_saved(tmp_path / "s", lambda steps: steps[:1])
    assert list(only) == [10]


def test_what_cannot_be_used_is_passed_over_with_a_word(tmp_path, model):
    fused_stages.save(tmp_path, "s", model, (10, 20, 30, 40))
    folder = tmp_path / "s" / "checkpoints"
    damaged = folder / "step_00000020" / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    (folder / "step_00000030" / "manifest.json").unlink()
    by_step, faults = blocks.open_saved(tmp_path / "s")
    assert list(by_step) == [10, 40]
    assert len(faults) == 2
    assert "step 20" in faults[0] and "changed bytes" in faults[0]
    assert "step 30" in faults[1] and "manifest.json" in faults[1]
    assert not any(str(tmp_path) in fault for fault in faults)


def test_a_model_that_is_not_fused_or_another_one_is_passed_over(tmp_path, model):
    unlike = kf.models.T5(fused_stages.fused_config((4, 2, 8), (4, 2, 8)), seed=0)
    plain = kf.models.T5(fused_stages.config(8, 2, 16), seed=0)
    for step, source in ((10, unlike), (20, model), (30, plain)):
        fused_stages.save(tmp_path, "s", source, (step,))
    by_step, faults = blocks.open_saved(tmp_path / "s")
    assert list(by_step) == [20]
    assert "step 30 with no blocks" in faults[0]
    assert faults[1] == "step 10, a model of another configuration than the newest one's."


def test_a_checkpoint_that_vanishes_is_no_fault(tmp_path, model, monkeypatch):
    fused_stages.save(tmp_path, "s", model, (10, 20))
    load = blocks.checkpoints.load

    def vanish(path):
        if path.name == "step_00000010":
            os.rename(path, tmp_path / "gone")
        return load(path)

    monkeypatch.setattr(blocks.checkpoints, "load", vanish)
    by_step, faults = blocks.open_saved(tmp_path / "s")
    assert list(by_step) == [20] and faults == ()


def test_memory_stays_near_a_piece():
    array = np.zeros((2048, 4096), np.float32)
    edges = (blocks.bands((0, 1024, 2048), 64), blocks.bands((0, 4096), 64))
    tracemalloc.start()
    try:
        blocks.cells(array, edges)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 2
