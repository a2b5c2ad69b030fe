"""Heat maps and the curve of η: their numbers by hand, where borders stand, what is left out."""

import json

import numpy as np
import pytest

import keras_fusion as kf
from tests.trainers.reports import synthetic
from tests.trainers.reports.heatmaps import fused_stages
from tests.trainers.reports.heatmaps.fused_stages import MLP, QUERY
from trainers.errors import UserError
from trainers.reports import page, pictures
from trainers.reports.heatmaps import data, drawings, heat_maps
from trainers.runs import history

STEPS = (100, 200, 400)
# The widths of the two sources, along the MLP kernel's axes.
HIDDEN, WIDE = 8, 72


@pytest.fixture(scope="module")
def model():
    return kf.models.T5(fused_stages.fused_config((8, 2, 72), (16, 3, 120)), seed=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory, model):
    """Two fused stages, one of which was saved once more."""
    workdir = tmp_path_factory.mktemp("run") / "w"
    written = fused_stages.run_with(workdir, "high", "low", model=model, steps=STEPS)
    written["high"] |= fused_stages.save(workdir, "high", model, (300,))
    return history.read_run(workdir), written


@pytest.fixture(scope="module")
def shown(made):
    drawn, paragraphs = heat_maps(made[0])
    assert paragraphs == ()
    return {picture.key: picture for picture in drawn}


def key(kind, path):
    return f"{kind}_{path.removesuffix('/kernel').replace('/', '_')}"


def test_which_pictures_there_are(shown):
    kinds = "heatmap", "closeup"
    assert list(shown) == [*(key(kind, path) for path in (MLP, QUERY) for kind in kinds), "eta"]


def test_maps_are_block_means_by_hand(made, shown):
    data = shown[key("heatmap", MLP)].data
    assert data["columns"] == [100, 200, 300, 400]
    assert data["axes"] == ["hidden (in)", "mlp (out)"]
    high, low = data["rows"]
    assert (high["stage"], high["schedule"]) == ("high", "1/√max(n, 300)")
    assert high["shape"] == [24, 192]
    assert high["borders"] == [[0, HIDDEN, 24], [0, WIDE, 192]]
    # 192 columns are reduced by three, 24 rows are not reduced.
    assert high["cells"] == [list(range(25)), list(range(0, 193, 3))]
    weights = np.abs(made[1]["high"][200][MLP])
    by_hand = weights.reshape(24, 64, 3).mean(axis=2)
    np.testing.assert_allclose(high["maps"][1]["values"], by_hand, rtol=6e-3)
    assert [heat_map["step"] for heat_map in low["maps"] if heat_map["values"] is None] == [300]


def test_a_scale_holds_all_but_a_few_cells_of_its_row(shown):
    for row in shown[key("heatmap", MLP)].data["rows"]:
        maps = [np.asarray(heat_map["values"]) for heat_map in row["maps"] if heat_map["values"]]
        assert row["scale"]["low"] == 0
        above = [np.mean(array > row["scale"]["high"]) for array in maps]
        assert 0 < max(above) < 0.006


def test_close_up_is_the_last_step_and_single_weights_where_blocks_meet(made, shown):
    row = shown[key("closeup", MLP)].data["rows"][0]
    assert (row["step"], row["sources"]) == (400, ["a", "b"])
    zoom = row["zoom"]
    assert (zoom["from"], zoom["to"]) == ([HIDDEN - 3, WIDE - 3], [HIDDEN + 3, WIDE + 3])
    weights = np.abs(made[1]["high"][400][MLP])
    np.testing.assert_allclose(zoom["values"], weights[5:11, 69:75], rtol=6e-3)
    np.testing.assert_allclose(row["values"], weights, rtol=6e-3)


def test_growth_by_hand(made, shown):
    panels = {panel["kernel"]: panel["series"] for panel in shown["eta"].data["panels"]}
    assert list(panels) == [None, MLP, QUERY]
    line = panels[MLP][0]
    assert (line["stage"], line["x"]) == ("high", [100, 200, 300, 400])
    for step, ratio in zip(line["x"], line["ratio"], strict=True):
        weights = made[1]["high"][step][MLP].astype(np.float64)
        inside = np.zeros(weights.shape, bool)
        inside[:HIDDEN, :WIDE] = inside[HIDDEN:, WIDE:] = True
        by_hand = (np.square(weights[~inside]).mean() / np.square(weights[inside]).mean()) ** 0.5
        assert ratio == pytest.approx(by_hand, rel=1e-9)
        assert ratio == pytest.approx(step / 1000, rel=0.1)
    # The other kernels' η is as large as their diagonals.
    assert panels[QUERY][0]["ratio"][0] == pytest.approx(1, abs=0.2)
    assert panels[MLP][0]["ratio"][0] < panels[None][0]["ratio"][0] < 1


def maps_of(figure):
    """The axes of a figure that show a map."""
    return [axes for axes in figure.axes if axes.collections and axes.get_title() != "|w|"]


def test_lines_stand_at_the_borders(shown):
    picture = shown[key("heatmap", MLP)]
    figure = picture.figure()
    maps = maps_of(figure)
    assert len(maps) == 4 + 3
    for axes in maps:
        places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
        assert places == [(0, HIDDEN), (WIDE, 0)]
    first = maps[0]
    assert [text.get_text() for text in first.get_xticklabels()] == ["0", "72", "192"]
    assert list(first.get_yticks()) == [0, HIDDEN, 24]


def test_one_scale_a_row(shown):
    picture = shown[key("heatmap", MLP)]
    figure = picture.figure()
    limits = [axes.collections[0].get_clim() for axes in maps_of(figure)]
    rows = [(row["scale"]["low"], row["scale"]["high"]) for row in picture.data["rows"]]
    assert limits == [rows[0]] * 4 + [rows[1]] * 3


def test_lightness_falls_evenly_so_that_grey_reads_the_same():
    colors = drawings.COLORS(np.linspace(0, 1, 64))[:, :3]
    linear = np.where(colors > 0.04045, ((colors + 0.055) / 1.055) ** 2.4, colors / 12.92)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) < 0)


def test_nothing_overlaps(shown):
    for picture in (picture for name, picture in shown.items() if name != "eta"):
        figure = picture.figure()
        pictures.FigureCanvasAgg(figure).draw()
        renderer = figure.canvas.get_renderer()
        boxes = [
            (text.get_text(), text.get_window_extent(renderer))
            for text in figure.findobj(match=lambda artist: hasattr(artist, "get_fontsize"))
            if text.get_visible() and text.get_text()
        ]
        for index, (name, box) in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, (picture.key, name)
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, (picture.key, name)
            for neighbour, place in boxes[index + 1 :]:
                # Labels of both axes may touch at the corner, by a pixel.
                assert not box.padded(-1).overlaps(place), (picture.key, name, neighbour)


def test_labels_without_room_are_left_out():
    labels = drawings.labels_with_room([0, 1, 2, 50, 99, 100], 10.0, 0.2)
    assert labels == ["0", "", "2", "50", "", "100"]


@pytest.mark.slow  # figures_test.py has the pictures of every report
def test_pictures_are_the_same_each_time(made, shown):
    again = {picture.key: picture for picture in heat_maps(made[0])[0]}
    for name in (key("heatmap", MLP), key("closeup", QUERY), "eta"):
        assert again[name].data == shown[name].data
        assert again[name].png() == shown[name].png()
    assert shown["eta"].png(pictures.DARK) != shown["eta"].png()


def test_any_kernel_at_chosen_steps(made):
    path = "head/kernel"
    drawn, paragraphs = heat_maps(made[0], [path], [300, 200])
    pictures = {picture.key: picture for picture in drawn}
    assert list(pictures) == ["heatmap_head", "closeup_head", "eta"]
    data = pictures["heatmap_head"].data
    assert data["columns"] == [200, 300]
    assert data["rows"][0]["borders"] == [[0, HIDDEN, 24], [0, 16]]
    assert [row["step"] for row in pictures["closeup_head"].data["rows"]] == [300, 200]
    # One axis grows: no η of its own, and the curve of all has every saved step.
    assert [panel["kernel"] for panel in pictures["eta"].data["panels"]] == [None]
    assert pictures["eta"].data["panels"][0]["series"][0]["x"] == [100, 200, 300, 400]
    assert pictures["heatmap_head"].png().startswith(b"\x89PNG")
    drawn, paragraphs = heat_maps(made[0], [path], [300])
    assert paragraphs == ("Not among the heat maps of head/kernel: low.",)


@pytest.mark.parametrize(
    ("kernels", "steps", "message"),
    [
        (["encoder/nothing"], None, "token_embedding.*kernels=.'encoder/nothing'"),
        (["encoder/final_norm/scale"], None, "two dimensions"),
        (None, [7], "steps=.7.. There are 100, 200, 300, 400"),
    ],
)
def test_what_is_not_there_is_refused(made, kernels, steps, message):
    with pytest.raises(UserError, match=message):
        heat_maps(made[0], kernels, steps)


def test_many_steps_and_stages_are_spread(tmp_path, model):
    fused_stages.run_with(tmp_path, "a1", "b1", "c1", model=model, steps=(1, 2, 3, 4, 5))
    drawn, paragraphs = heat_maps(history.read_run(tmp_path), [MLP], rows=2, columns=3)
    data = drawn[0].data
    assert data["columns"] == [1, 3, 5]
    assert [row["stage"] for row in data["rows"]] == ["a1", "c1"]
    assert paragraphs == (f"Not among the heat maps of {MLP}: b1.",)
    lines = drawn[-1].data["panels"][0]["series"]
    assert [line["stage"] for line in lines] == ["a1", "b1", "c1"]
    assert all(len(line["x"]) == 5 for line in lines)


def test_nan_is_drawn_said_and_null_in_the_data(tmp_path, model, monkeypatch):
    values = fused_stages.values

    def broken(model, step):
        weights = values(model, step)
        weights[MLP][0, 0] = np.nan if step == 2 else np.inf
        return weights

    monkeypatch.setattr(fused_stages, "values", broken)
    fused_stages.run_with(tmp_path, "a1", model=model, steps=(1, 2))
    report = page.pretraining_report(history.read_run(tmp_path), [MLP])
    assert "Light blue: NaN or infinite." in page.to_markdown(report)
    results = json.loads(page.to_json(report))
    row = results["figures"][key("heatmap", MLP)]["rows"][0]
    assert [heat_map["values"][0][0] for heat_map in row["maps"]] == [None, None]
    assert results["figures"]["eta"]["panels"][1]["series"][0]["ratio"] == [None, None]


def test_a_report_with_fused_stages_has_all_of_it(made):
    report = page.pretraining_report(made[0])
    titles = [picture.title for picture in report.blocks(pictures.Picture)]
    assert f"Figure 5: {MLP} over time." in titles
    assert any(title.startswith(f"Figure 8: {QUERY}") for title in titles)
    assert "Inside the fused kernels" in page.to_markdown(report)
    text = page.to_json(report)
    drawn = heat_maps(made[0])[0][0].data
    assert json.loads(text)["figures"][key("heatmap", MLP)] == drawn
    # A row of a map is one line.
    assert json.dumps(drawn["rows"][0]["maps"][0]["values"][0]) in text


def test_a_damaged_checkpoint_is_named_in_the_report(tmp_path, model):
    fused_stages.run_with(tmp_path, "a1", model=model, steps=(1, 2))
    (tmp_path / "a1" / "checkpoints" / "step_00000001" / "COMMITTED").write_text("no")

    def text():
        return page.to_markdown(page.pretraining_report(history.read_run(tmp_path)))

    assert "Passed over: a1: " in text() and "step 1 with a changed" in text()
    (tmp_path / "a1" / "checkpoints" / "step_00000002" / "model.safetensors").write_bytes(b"")
    assert "No checkpoint of a fused stage could be read" in text() and "step 2" in text()


def test_without_fused_stages_or_checkpoints_it_says_so(tmp_path):
    def text(*stages):
        folder = synthetic.write_run(tmp_path / str(len(stages)), *stages)
        return page.to_markdown(page.pretraining_report(history.read_run(folder)))

    assert "heat maps of fused kernels." in text(synthetic.small())
    assert "so there are no heat maps" in text(synthetic.small(), synthetic.fused())


def test_sources_of_each_block():
    def names(sources, count):
        stage = history.StageHistory(*["s"] * 3, tuple(sources), *[None] * 9)
        return data.source_names(stage, count)

    assert names(["a", "b"], 2) == ["a", "b"]
    assert names(["a"], 3) == ["a", "a", "a"]
    assert names(["a", "b"], 3) == ["source 1", "source 2", "source 3"]
